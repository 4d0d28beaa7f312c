"""Waveforms -> Kaldi Fbank or MFCC without memory of its own, for a compiler to fuse: the arithmetic of `Fbank`.

In: (rows, samples). Out: (rows, frames, bins).

    frames -> minus mean -> pre-emphasis -> window -> zeros -> |rfft|^2 -> one product with the mel bank -> log
"""

import torch
from torch import Tensor

from dist_train.features import Fbank, log_energy
from dist_train.settings import Audio, Features
from dist_train.spectra import mel


class Kaldi:
    """The constants of an `Fbank`, the same steps as one expression, in torchaudio's order."""

    def __init__(self, audio: Audio, features: Features, device: torch.device, dtype: torch.dtype) -> None:
        fbank = self.fbank = Fbank(audio, features, torch.device("cpu"), dtype)
        self.size, self.shift, self.padded, self.bins = fbank.size, fbank.shift, fbank.padded, fbank.bins
        self.valid, self.settings = fbank.valid, features
        self.window = fbank.window.to(device)
        self.bank = mel.mel_bank(features, self.padded, audio.sample_rate).to(device, dtype)
        self.cosines = fbank.cosines
        if self.cosines is not None:
            matrix, lift = self.cosines
            self.cosines = matrix.to(device), lift.to(device)

    def batched(self, wave_RT: Tensor, filled_R: Tensor | None = None) -> Tensor:
        """(R, T) -> (R, frames, bins). `filled_R`: samples that count; a frame within them sees no others."""
        keys = self.settings
        if keys.waveform_scale != 1.0:
            wave_RT = wave_RT * keys.waveform_scale
        if not keys.snip_edges:
            wave_RT = self.fbank.mirrored(wave_RT, filled_R)
        frames = wave_RT.unfold(1, self.size, self.shift)
        if keys.remove_dc:
            frames = frames - frames.mean(-1, keepdim=True)
        total = log_energy(frames, keys.energy_floor) if keys.use_energy and keys.raw_energy else None
        if keys.preemphasis != 0.0:
            before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
            frames = frames - before * keys.preemphasis
        frames = frames * self.window
        if keys.use_energy and not keys.raw_energy:
            total = log_energy(frames, keys.energy_floor)
        padded = torch.nn.functional.pad(frames, (0, self.padded - self.size))
        power = torch.view_as_real(torch.fft.rfft(padded)).square().sum(-1)
        return self._finished((power if keys.power == 2 else power.sqrt()) @ self.bank, total)

    def _finished(self, energy: Tensor, total: Tensor | None) -> Tensor:
        """Logarithm, cosines and, where it is asked for, the log energy `total` in its column."""
        if self.settings.scale == "ln":
            energy = (energy + self.settings.log_offset).clamp(min=self.fbank.floor).log()
        last = self.settings.htk_compat
        if self.cosines is not None:
            matrix, lift = self.cosines
            energy = energy @ matrix * lift
            if total is not None:
                energy = energy[..., :-1] if last else energy[..., 1:]
        if total is None:
            return energy
        return torch.cat([energy, total[..., None]] if last else [total[..., None], energy], -1)
