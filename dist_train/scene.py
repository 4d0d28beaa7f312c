"""What the settings ask of rooms, recorded noise and level, ready to apply to a group's waveforms.

    fill -> gain of audio.level=clip -> reverb -> noise -> level of audio.level=crop -> random gain -> ...

Each change takes waveforms (B, C, T), their PLAN rows and (B,) how many samples of each count, and returns the
waveforms, changed in place. What is not asked for changes nothing.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import acoustics
from dist_train.bank import noise_bank, rooms_bank
from dist_train.decode import Rows
from dist_train.settings import Audio, Augment
from dist_train.window import window_samples

Ints = NDArray[np.int64]


class Scene:
    """The banks of a run on one device, loaded here: make it for training only, scores need none of it but `level`.

    bad: "NAME: REASON" of each clip and room that could not be read. ValueError: a bank's folder is not there or holds
    nothing to use.
    """

    def __init__(
        self,
        audio: Audio,
        augment: Augment,
        *,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.audio, self.augment, self.seed = audio, augment, seed
        reverb, noise = augment.reverb, augment.noise
        self.rooms = rooms_bank(reverb, audio, device, dtype) if reverb and reverb.probability else None
        self.bank = noise_bank(noise, audio, device) if noise and noise.probability else None
        self.bad = [line for held in (self.rooms, self.bank) if held is not None for line in held.bad]

    def reverb(self, wave_BCT: Tensor, plan: Rows, filled: Ints) -> Tensor:
        """augment.reverb: a share of the windows is heard in a room."""
        settings = self.augment.reverb
        if self.rooms is None or settings is None:
            return wave_BCT
        draws = acoustics.reverb_draws(plan, self.rooms, settings, self.seed)
        return acoustics.reverberate(wave_BCT, filled, self.rooms, draws)

    def noise(self, wave_BCT: Tensor, plan: Rows, filled: Ints) -> Tensor:
        """augment.noise: a share of the windows is heard in noise."""
        settings = self.augment.noise
        if self.bank is None or settings is None:
            return wave_BCT
        draws = acoustics.noise_draws(plan, self.bank, settings, self.seed, window_samples(self.audio))
        return acoustics.add_noise(wave_BCT, filled, self.bank, draws)

    def level(self, wave_BCT: Tensor, plan: Rows, filled: Ints) -> Tensor:
        """audio.level=crop: the level of what counts of each window becomes audio.target_db."""
        if self.audio.level != "crop" or self.audio.target_db is None:
            return wave_BCT
        return acoustics.level(wave_BCT, filled, self.audio.target_db)
