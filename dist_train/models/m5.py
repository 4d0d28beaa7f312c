"""M5: four convolutions of the waveform itself; Dai 2016, arXiv 1610.00087. Samples (B, T, 1) -> logits (B, classes).

    [conv (k80 /4, then k3) -> BatchNorm -> ReLU -> max-pool 4] x 4: 128, 128, 256, 512 channels -> mean -> head

The mean is over all that is left of the clip. torchaudio's tutorial takes means of 30 frames each and goes by the
first, 31,468 samples: `window=30`, no difference for its clips of 32,000 samples. Made for 8 kHz. A linear head
follows, which the paper does without.
"""

from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_input, padding
from dist_train.models.pooling import time_mean

SOURCES = 8  # more are surely mel bins


def least_samples(frames: int) -> int:
    """Samples from which on the last block gives so many frames: 1772, or 31,468 for 30."""
    for _ in range(3):
        frames = 4 * frames + 2
    return 4 * (4 * frames - 1) + 80


class Block(nn.Module):
    """Convolution without padding, BatchNorm, ReLU, maximum of each 4 frames. (B, C, T) -> (B, D, T')."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)
        self.norm = nn.BatchNorm1d(outputs)
        self.kernel, self.stride = kernel, stride

    def frames(self, count_B: Tensor) -> Tensor:
        """Frames that it makes of so many."""
        return ((count_B - self.kernel) // self.stride + 1) // 4

    def forward(self, x_BCT: Tensor) -> Tensor:
        return functional.max_pool1d(self.norm(self.conv(x_BCT)).relu_(), 4)


class M5(nn.Module):
    """M5. `bins`: channels of the audio; `channels`: of the first two blocks (128), of the others twice and 4 times.

    `window`: a score is of the first so many frames of the last block; None: of all. `frames_B` are samples. In a batch
    a clip under the least number of samples is scored as if zeros followed it.
    """

    BLOCKS = (Block,)  # compiled one by one

    def __init__(self, bins: int, classes: int, *, channels: int = 128, window: int | None = None) -> None:
        super().__init__()
        if bins > SOURCES:
            raise ValueError(
                f"m5 hears waveforms, one value a channel, and got {bins} bins: set features.name=waveform"
            )
        if channels < 1:
            raise ValueError(f"model.channels of m5 is {channels}: take at least 1 (128)")
        if window is not None and window < 1:
            raise ValueError(f"model.window of m5 is {window}: take a positive number (30), or null")
        self.bins, self.window, self.least = bins, window, least_samples(window or 1)
        self.block1 = Block(bins, channels, 80, 4)
        self.block2 = Block(channels, channels, 3)
        self.block3 = Block(channels, 2 * channels, 3)
        self.block4 = Block(2 * channels, 4 * channels, 3)
        self.head = nn.Linear(4 * channels, classes)

    def _last(self, feat_BTF: Tensor, frames_B: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames of the last block (B, C, T), and how many of each row are valid."""
        check_input("m5", feat_BTF, self.bins, self.least)
        x_BCT = feat_BTF.transpose(1, 2)
        x_BCT = blank(x_BCT, padding(frames_B, x_BCT))
        frames_B = None if frames_B is None else frames_B.clamp(min=self.least)
        for block in (self.block1, self.block2, self.block3, self.block4):
            x_BCT = block(x_BCT)
            frames_B = None if frames_B is None else block.frames(frames_B)
        return x_BCT, frames_B

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid samples of each row. ValueError under `least` samples (1772)."""
        x_BCT, frames_B = self._last(feat_BTF, frames_B)
        if self.window is not None:
            return x_BCT[..., : self.window].mean(-1)
        vector_BE: Tensor = time_mean(x_BCT, padding(frames_B, x_BCT)).squeeze(-1)
        return vector_BE

    def windows(self, feat_BTF: Tensor) -> Tensor:
        """Logits of every whole window, (B, T, channels) -> (B, n, classes); the first is what `forward` gives."""
        assert self.window is not None
        x_BCT, _ = self._last(feat_BTF, None)
        logits_BNC: Tensor = self.head(functional.avg_pool1d(x_BCT, self.window).mT)
        return logits_BNC

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
