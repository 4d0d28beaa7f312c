"""What the settings ask of single windows, ready to apply to a group's waveforms: docs/augmentation.md has the order.

    fill -> polarity, gain of audio.level=clip -> stretch -> reverb -> noise -> low-pass, high-pass -> white -> codec
         -> level of audio.level=crop -> random gain -> ...

Each change takes waveforms (B, C, T), their PLAN rows and (B,) how many samples of each count, and returns the
waveforms, changed in place. What is not asked for changes nothing and costs nothing.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import Rows
from dist_train.effects import acoustics, filters
from dist_train.effects.bank import noise_bank, rooms_bank
from dist_train.effects.stretch import StretchDraws, stretch, stretch_draws
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

    @property
    def changes(self) -> bool:
        """Whether anything is asked for that `change` does."""
        augment = self.augment
        single = augment.stretch, augment.low_pass, augment.high_pass, augment.white, augment.codec
        banks = self.rooms is not None or self.bank is not None
        return banks or any(settings is not None and settings.probability > 0 for settings in single)

    def lengths(self, plan: Rows, filled: Ints) -> Ints:
        """(B,) how many samples count after `change`: a stretched window holds more or less of its clip (short=pad)."""
        draws = self._stretched(plan, filled)
        return filled if draws is None or self.audio.short != "pad" else draws.made

    def change(self, wave_BCT: Tensor, plan: Rows, filled: Ints) -> Tensor:
        """All changes of training windows one by one. `filled`: what counts before; `lengths` says it of after."""
        draws, ends = self._stretched(plan, filled), self.lengths(plan, filled)
        if draws is not None and self.augment.stretch is not None:
            wave_BCT = stretch(wave_BCT, filled, plan, draws, self.augment.stretch.fft)
        return self.line(self.noise(self.reverb(wave_BCT, plan, ends), plan, ends), plan, ends)

    def _stretched(self, plan: Rows, filled: Ints) -> StretchDraws | None:
        settings = self.augment.stretch
        if settings is None or settings.probability == 0:
            return None
        return stretch_draws(plan, filled, settings, self.audio.short, self.seed)

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

    def line(self, wave_BCT: Tensor, plan: Rows, filled: Ints) -> Tensor:
        """augment.low_pass, high_pass, white, codec: what the microphone and the line to it do."""
        augment, rate = self.augment, self.audio.sample_rate
        if augment.low_pass is not None or augment.high_pass is not None:
            low = filters.pass_draws(plan, augment.low_pass, "low pass", self.seed)
            high = filters.pass_draws(plan, augment.high_pass, "high pass", self.seed)
            wave_BCT = filters.band(wave_BCT, filled, low, high, rate)
        if augment.white is not None:
            wave_BCT = filters.add_white(wave_BCT, filled, plan, augment.white, self.seed)
        if augment.codec is not None:
            wave_BCT = filters.coded(wave_BCT, filled, plan, augment.codec, rate, self.seed)
        return wave_BCT

    def level(self, wave_BCT: Tensor, plan: Rows, filled: Ints) -> Tensor:
        """audio.level=crop: the level of what counts of each window becomes audio.target_db."""
        if self.audio.level != "crop" or self.audio.target_db is None:
            return wave_BCT
        return acoustics.level(wave_BCT, filled, self.audio.target_db)
