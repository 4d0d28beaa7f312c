"""Waveforms -> Kaldi Fbank or MFCC, a few rows at a time, for the CPU (`batched` has an accelerator's form).

In: (rows, samples). Out: (rows, frames, bins), as `torchaudio.compliance.kaldi` has them.

    frames -> minus mean -> pre-emphasis -> window -> zeros -> |rfft|^2 -> mel -> log [-> cosines -> lifter]

Quiet bins hold the rounding errors of the loud ones: orders of summation differ there by up to 1e-2, torchaudio's own
from float64 too. Two orders are here. `exact` is torchaudio's up to the transform, bit by bit, and within 2e-6 of it at
the end. The other, wherever the window begins with zero (povey, hanning, blackman), is no further from float64 than
torchaudio is, in less time: pre-emphasis once a sample, not once for each of the 2.5 frames that hold it, and the mean
taken off after it, where a constant c has become (1 - 0.97) c. After the transform all terms are positive and order is
free: the mel bank weighs the squares of real and imaginary parts, in a few dense blocks. A frame never touches samples
past the clip, so padded rows are exact.
"""

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.edges import extended, silenced
from dist_train.settings import Audio, Features
from dist_train.spectra import mel
from dist_train.spectra.spectrogram import Spectrogram
from dist_train.spectra.waveform import Waveform

EPSILON = torch.finfo(torch.float32).eps  # Kaldi's floor under the logarithm, in float64 as well
FRAMES = 1200  # at once: what the core's cache holds
BLOCKS = 5  # of the mel bank: a fifth of the multiplications
SILENT_EDGE = 1e-9  # a window's first value that counts as zero (blackman's is -1e-17)


class Fbank:
    """Kaldi Fbank or MFCC: window, mel bank and cosines. `bins` is the number of features a frame.

    `exact`: torchaudio's order of additions, for comparisons. ValueError where the settings make no frame.
    """

    def __init__(
        self,
        audio: Audio,
        features: Features,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        exact: bool = False,
    ) -> None:
        self.size, self.shift = mel.spans(audio, features)
        self.padded = features.fft or 1 << (self.size - 1).bit_length()
        if self.padded < self.size or self.padded % 2:
            raise ValueError(f"features.fft={self.padded}: is odd or shorter than a frame, {self.size} samples")
        self.settings, self.device, self.dtype = features, device, dtype
        self.left = 0 if features.snip_edges else self.size // 2 - self.shift // 2  # samples before the clip
        self.floor = features.amin or EPSILON
        window = mel.window(features, self.size, dtype, periodic=False)
        self.window = window.to(device)
        bank = mel.mel_bank(features, self.padded, audio.sample_rate)
        blocks = _blocks(bank.to(dtype), 2 if features.power == 2 else 1)
        self.blocks = [(lines, columns, matrix.to(device)) for lines, columns, matrix in blocks]
        late = abs(float(window[0])) < SILENT_EDGE and features.preemphasis > 0 and features.remove_dc
        self.late_mean = late and not exact and not features.use_energy  # taken off after pre-emphasis
        # What a constant 1 has become there: with the coefficient as it is rounded, or 3e-8 of the constant is left.
        self.constant = 1.0 - float(torch.tensor(features.preemphasis, dtype=dtype))
        self.scratch: _Scratch | None = None
        self.cosines = _cosines(features, device, dtype) if features.name == "mfcc" else None
        self.bins = features.ceps if self.cosines is not None else features.bins + features.use_energy
        first = 0 if features.htk_compat or self.cosines is not None or not features.use_energy else 1
        self.mels = slice(first, first + features.bins)  # columns of Fbank that are mel bins
        self.energy = -1 if features.htk_compat else 0  # the energy's column, with use_energy

    def frames(self, samples: int) -> int:
        """Frames that lie wholly within so many samples; snip_edges=false: one each shift."""
        if samples < self.size:
            return 0
        if not self.settings.snip_edges:
            return (samples + self.shift // 2) // self.shift
        return 1 + (samples - self.size) // self.shift

    def valid(self, filled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames within `filled` samples of each row, at least one."""
        if not self.settings.snip_edges:
            return (np.maximum(filled, self.size) + self.shift // 2) // self.shift
        return 1 + (np.maximum(filled, self.size) - self.size) // self.shift

    def __call__(self, wave_BT: Tensor, filled: NDArray[np.int64] | None = None) -> Tensor:
        """(B, T) -> (B, frames(T), bins). Row by row the result does not depend on the other rows.

        Frames that reach past a row's `filled` samples are not valid ones; no other frame sees what lies there.
        """
        rows, samples = wave_BT.shape
        out = wave_BT.new_empty(rows, self.frames(samples), self.bins)
        if not self.settings.snip_edges and out.shape[1]:
            wave_BT = self.mirrored(wave_BT, None if filled is None else torch.from_numpy(filled))
        step = min(rows, max(1, FRAMES // max(1, out.shape[1])))
        if self.scratch is None or not self.scratch.fits(self, step, wave_BT):
            self.scratch = _Scratch(self, step, wave_BT)
        for start in range(0, rows, step):
            self._chunk(wave_BT[start : start + step], out[start : start + step], self.scratch)
        return out

    def mirrored(self, wave_BT: Tensor, filled_B: Tensor | None) -> Tensor:
        """snip_edges=false: rows with what their first and last frames see past their ends."""
        samples = (self.frames(wave_BT.shape[1]) - 1) * self.shift + self.size
        if filled_B is not None:
            wave_BT, filled_B = silenced(wave_BT, filled_B), filled_B.clamp(min=self.size)
        return extended(wave_BT, self.left, samples, filled_B, "mirror")

    def _chunk(self, wave_BT: Tensor, out: Tensor, scratch: "_Scratch") -> None:
        """Features of a few rows, into `out`; every step writes into memory that the one before left in cache."""
        if self.settings.waveform_scale != 1.0:
            wave_BT = wave_BT * self.settings.waveform_scale
        frame = self._late_mean if self.late_mean else self._exact
        # Not `rfft(out=)`: that one transforms into memory of its own and copies (torch 2.11), half as fast again.
        spectrum = torch.fft.rfft(frame(wave_BT, scratch))
        power = torch.view_as_real(spectrum).square_()
        power = power.flatten(-2) if self.settings.power == 2 else power.sum(-1).sqrt_()
        energy = out[..., self.mels] if self.cosines is None else scratch.energy[: len(wave_BT)]
        for lines, bins, matrix in self.blocks:
            _product(power[..., lines], matrix, energy[..., bins])
        if self.settings.scale == "ln":
            if self.settings.log_offset:
                energy.add_(self.settings.log_offset)
            energy.clamp_(min=self.floor).log_()
        if self.cosines is not None:
            matrix, lift = self.cosines
            _product(energy, matrix, out)
            out.mul_(lift)
        if self.settings.use_energy:
            out[..., self.energy] = scratch.total[: len(wave_BT)]

    def _late_mean(self, wave_BT: Tensor, scratch: "_Scratch") -> Tensor:
        """(B, T) -> (B, frames, padded): pre-emphasised, centred, windowed frames, zeros behind them."""
        factor, rows = self.settings.preemphasis, len(wave_BT)
        emphasised, padded = scratch.emphasised[:rows], scratch.padded[:rows]
        emphasised[:, 0] = 0  # only ever seen through the window's first value, zero
        torch.sub(wave_BT[:, 1:], wave_BT[:, :-1], alpha=factor, out=emphasised[:, 1:])
        target = padded[..., : self.size]
        torch.mul(emphasised.unfold(1, self.size, self.shift), self.window, out=target)
        target.addcmul_(self._means(wave_BT).unsqueeze(-1), self.window, value=-self.constant)
        return padded

    def _means(self, wave_BT: Tensor) -> Tensor:
        """(B, frames): each frame's mean, from sums of the parts that frames have in common."""
        part = math.gcd(self.size, self.shift)
        if part < 8:
            return wave_BT.unfold(1, self.size, self.shift).mean(-1)
        sums = wave_BT.unfold(1, part, part).sum(-1)
        return sums.unfold(1, self.size // part, self.shift // part).sum(-1).div_(self.size)

    def _exact(self, wave_BT: Tensor, scratch: "_Scratch") -> Tensor:
        """(B, T) -> (B, frames, padded): centred, pre-emphasised, windowed frames, zeros behind them."""
        frames, keys = wave_BT.unfold(1, self.size, self.shift), self.settings
        if keys.remove_dc:
            frames = torch.sub(frames, frames.mean(-1, keepdim=True), out=scratch.frames[: len(wave_BT)])
        if keys.use_energy and keys.raw_energy:
            scratch.total[: len(wave_BT)] = log_energy(frames, keys.energy_floor)
        padded = scratch.padded[: len(wave_BT)]
        target = padded[..., : self.size]
        if keys.preemphasis != 0.0:
            # Not `sub(alpha=)`: that is one rounding, torchaudio has two.
            torch.mul(frames[..., :-1], keys.preemphasis, out=target[..., 1:])
            torch.mul(frames[..., 0], keys.preemphasis, out=target[..., 0])
            frames = torch.sub(frames, target, out=target)
        torch.mul(frames, self.window, out=target)
        if keys.use_energy and not keys.raw_energy:
            scratch.total[: len(wave_BT)] = log_energy(target, keys.energy_floor)
        return padded


def log_energy(frames: Tensor, floor: float) -> Tensor:
    """(...) log of the sum of squares of (..., size), from Kaldi's floor up, and from features.energy_floor up."""
    energy = frames.square().sum(-1).clamp(min=EPSILON).log()
    return energy if floor == 0.0 else energy.clamp(min=math.log(floor))


def _cosines(features: Features, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Matrix and lifter of an MFCC, columns in their final order."""
    if features.ceps > features.bins:
        raise ValueError(f"features.ceps={features.ceps} exceeds features.bins={features.bins}; lower it")
    matrix, lift = mel.cosines(features.bins, features.ceps, features.lifter)
    if features.htk_compat:
        lift[0] *= 1.0 if features.use_energy else math.sqrt(2.0)
        matrix, lift = matrix.roll(-1, 1), lift.roll(-1, 0)
    return matrix.to(device, dtype), lift.to(device, dtype)


def _product(left: Tensor, matrix: Tensor, out: Tensor) -> None:
    """left @ matrix by one product a row: a row must not depend on how many there are."""
    out.copy_(torch.bmm(left, matrix.expand(len(left), -1, -1)))


class _Scratch:
    """Memory that is used again for each chunk, and by the next call: fresh pages cost more than the arithmetic."""

    def __init__(self, bank: Fbank, rows: int, like: Tensor) -> None:
        shape = self.shape = (rows, _count(bank, like))
        self.emphasised = like.new_empty(rows, like.shape[1] if bank.late_mean else 0)
        self.frames = like.new_empty(*shape, 0 if bank.late_mean else bank.size)
        self.padded = like.new_zeros(*shape, bank.padded)
        self.energy = like.new_empty(*shape, bank.settings.bins if bank.cosines is not None else 0)
        self.total = like.new_empty(shape)  # log energy of each frame, with use_energy

    def fits(self, bank: Fbank, rows: int, like: Tensor) -> bool:
        """Whether it serves chunks of these sizes."""
        samples = self.emphasised.shape[1] if bank.late_mean else like.shape[1]
        return self.shape == (rows, _count(bank, like)) and samples == like.shape[1]


def _count(bank: Fbank, like: Tensor) -> int:
    """Frames that lie within the waveforms, ends included where they were mirrored."""
    return max(0, 1 + (like.shape[1] - bank.size) // bank.shift)


def _blocks(bank: Tensor, times: int) -> list[tuple[slice, slice, Tensor]]:
    """The bank's columns in groups, each with the only lines of the spectrum that it weighs, each line `times` over."""
    edges = [bank.shape[1] * part // BLOCKS for part in range(BLOCKS + 1)]
    blocks = []
    for first, last in pairwise(edges):
        if first == last:
            continue
        used = torch.nonzero(bank[:, first:last].any(1)).flatten()
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(bank))
        matrix = bank[low:high, first:last].repeat_interleave(times, 0).contiguous()
        blocks.append((slice(low * times, high * times), slice(first, last), matrix))
    return blocks


def extractor(
    audio: Audio, features: Features, device: torch.device, dtype: torch.dtype = torch.float32
) -> Fbank | Spectrogram | Waveform:
    """What `features.name` says, on one device. ValueError where the settings do not fit together."""
    if features.name in ("waveform", "hf", "packed"):  # packed: a stored frame is a sample, a bin a channel
        return Waveform(audio, features, device, dtype)
    kaldi = features.name in ("fbank", "mfcc")
    return Fbank(audio, features, device, dtype) if kaldi else Spectrogram(audio, features, device, dtype)
