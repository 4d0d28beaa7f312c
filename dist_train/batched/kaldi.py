"""Waveforms -> Kaldi Fbank or MFCC without memory of its own, for a compiler to fuse: the arithmetic of `Fbank`.

In: (rows, samples). Out: (rows, frames, bins).

    frames -> minus mean -> pre-emphasis -> window -> zeros -> |rfft|^2 -> one product with the mel bank -> log
"""

import torch
from torch import Tensor

from dist_train import mel
from dist_train.features import EPSILON, Fbank
from dist_train.settings import Audio, Features


class Kaldi:
    """The constants of an `Fbank`, the same steps as one expression, in torchaudio's order."""

    def __init__(self, audio: Audio, features: Features, device: torch.device, dtype: torch.dtype) -> None:
        fbank = Fbank(audio, features, torch.device("cpu"), dtype)
        self.size, self.shift, self.padded, self.bins = fbank.size, fbank.shift, fbank.padded, fbank.bins
        self.valid = fbank.valid
        self.scale, self.preemphasis = features.waveform_scale, features.preemphasis
        self.window = fbank.window.to(device)
        bank = mel.mel_bank(features.bins, self.padded, audio.sample_rate, features.low_freq, features.high_freq)
        self.bank = bank.to(device, dtype)
        self.cosines = fbank.cosines
        if self.cosines is not None:
            matrix, lift = self.cosines
            self.cosines = matrix.to(device), lift.to(device)

    def batched(self, wave_RT: Tensor, filled_R: Tensor | None = None) -> Tensor:
        """(R, T) -> (R, frames, bins). `filled_R`: samples that count; a frame within them sees no others."""
        if self.scale != 1.0:
            wave_RT = wave_RT * self.scale
        frames = wave_RT.unfold(1, self.size, self.shift)
        frames = frames - frames.mean(-1, keepdim=True)
        if self.preemphasis != 0.0:
            before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
            frames = frames - before * self.preemphasis
        padded = torch.nn.functional.pad(frames * self.window, (0, self.padded - self.size))
        spectrum = torch.view_as_real(torch.fft.rfft(padded))
        power = spectrum.square().sum(-1)
        energy = (power @ self.bank).clamp(min=EPSILON).log()
        if self.cosines is None:
            return energy
        matrix, lift = self.cosines
        return energy @ matrix * lift
