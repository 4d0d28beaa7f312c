"""features.name=waveform, hf: samples as they are, for networks that make their own features (M5, encoders).

In: (rows, samples). Out: (rows, samples, 1): a frame is a sample. The interface of `Fbank`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.settings import Audio, Features


class Waveform:
    """The samples times `features.waveform_scale`; one bin, one channel of the network."""

    size = shift = bins = 1

    def __init__(
        self, audio: Audio, features: Features, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.scale = features.waveform_scale

    def frames(self, samples: int) -> int:
        """As many as there are samples."""
        return samples

    def valid(self, filled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames within `filled` samples of each row, at least one."""
        return np.maximum(filled, 1)

    def __call__(self, wave_BT: Tensor, filled: NDArray[np.int64] | None = None) -> Tensor:
        """(B, T) -> (B, T, 1), a copy."""
        return (wave_BT * self.scale).unsqueeze(-1)

    def batched(self, wave_BT: Tensor, filled_B: Tensor | None = None) -> Tensor:
        """The same."""
        return self(wave_BT)
