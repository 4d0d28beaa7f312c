"""Waveforms -> Kaldi Fbank or MFCC, a whole batch at once; and the presets, front ends as other systems have them.

In: (rows, samples). Out: (rows, frames, bins), equal to `torchaudio.compliance.kaldi` within 2e-6 on the CPU.

    frames -> minus mean -> pre-emphasis -> window -> zeros -> |rfft|^2 -> mel -> log [-> cosines -> lifter]

The steps up to the transform are torchaudio's, bit by bit: quiet bins hold the rounding errors of the loud ones, so
any other order is off by up to 1e-2 there. After it all terms are positive and order is free: the power is a sum of
squares, the mel bank a few dense blocks. A frame never touches samples past the clip, so padded rows are exact.
"""

from itertools import pairwise

import torch
from torch import Tensor

from dist_train import mel
from dist_train.settings import Audio, Features

EPSILON = torch.finfo(torch.float32).eps  # Kaldi's floor under the logarithm, in float64 as well
CPU_ROWS, GPU_ROWS = 4, 256  # rows at once: a CPU's cache, a GPU's memory
BLOCKS = 3  # of the mel bank on the CPU: a third of the multiplications


class Fbank:
    """Kaldi Fbank or MFCC on one device: window, mel bank and cosines. `bins` is the number of features a frame.

    `remove_dc`, `power` (or magnitude) and `lifter` are Kaldi options that no setting changes. ValueError where the
    settings make no frame.
    """

    def __init__(
        self,
        audio: Audio,
        features: Features,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        remove_dc: bool = True,
        power: bool = True,
        lifter: float = 22.0,
    ) -> None:
        self.size = int(audio.sample_rate * features.frame_length * 0.001)
        self.shift = int(audio.sample_rate * features.frame_shift * 0.001)
        if self.size < 2 or self.shift < 1:
            raise ValueError(
                f"features.frame_length={features.frame_length:g} and frame_shift={features.frame_shift:g} ms make "
                f"frames of {self.size} samples every {self.shift} at {audio.sample_rate} Hz; give longer ones"
            )
        self.padded = 1 << (self.size - 1).bit_length()
        self.settings, self.remove_dc, self.power = features, remove_dc, power
        self.device, self.dtype = device, dtype
        self.window = mel.window(features.window, self.size, dtype).to(device)
        bank = mel.mel_bank(features.bins, self.padded, audio.sample_rate, features.low_freq, features.high_freq)
        self.blocks = _blocks(bank.to(device, dtype), BLOCKS if device.type == "cpu" else 1)
        self.bins = features.bins
        self.cosines: tuple[Tensor, Tensor] | None = None
        if features.name == "mfcc":
            if features.ceps > features.bins:
                raise ValueError(f"features.ceps={features.ceps} exceeds features.bins={features.bins}; lower it")
            self.bins = features.ceps
            matrix, lift = mel.cosines(features.bins, features.ceps, lifter)
            self.cosines = matrix.to(device, dtype), lift.to(device, dtype)

    def frames(self, samples: int) -> int:
        """Frames that lie wholly within so many samples (Kaldi's snip_edges)."""
        return 0 if samples < self.size else 1 + (samples - self.size) // self.shift

    def __call__(self, wave_BT: Tensor) -> Tensor:
        """(B, T) -> (B, frames(T), bins). Row by row the result does not depend on the other rows (CPU)."""
        rows, samples = wave_BT.shape
        out = wave_BT.new_empty(rows, self.frames(samples), self.bins)
        step = CPU_ROWS if wave_BT.device.type == "cpu" else GPU_ROWS
        scratch = _Scratch(self, min(step, rows), wave_BT)
        for start in range(0, rows, step):
            self._chunk(wave_BT[start : start + step], out[start : start + step], scratch)
        return out

    def _chunk(self, wave_BT: Tensor, out: Tensor, scratch: "_Scratch") -> None:
        """Features of a few rows, into `out`; every step writes into memory that the one before left in cache."""
        spectrum = torch.fft.rfft(self._frame(wave_BT, scratch), out=scratch.spectrum[: len(wave_BT)])
        squares = torch.view_as_real(spectrum).square_()
        power = torch.add(squares[..., 0], squares[..., 1], out=scratch.power[: len(wave_BT)])
        if not self.power:
            power.sqrt_()
        energy = out if self.cosines is None else scratch.energy[: len(wave_BT)]
        for lines, bins, matrix in self.blocks:
            _product(power[..., lines], matrix, energy[..., bins])
        energy.clamp_(min=EPSILON).log_()
        if self.cosines is not None:
            matrix, lift = self.cosines
            _product(energy, matrix, out)
            out.mul_(lift)

    def _frame(self, wave_BT: Tensor, scratch: "_Scratch") -> Tensor:
        """(B, T) -> (B, frames, padded): scaled, centred, pre-emphasised, windowed frames, zeros behind them."""
        if self.settings.waveform_scale != 1.0:
            wave_BT = wave_BT * self.settings.waveform_scale
        frames = wave_BT.unfold(1, self.size, self.shift)
        if self.remove_dc:
            frames = torch.sub(frames, frames.mean(-1, keepdim=True), out=scratch.frames[: len(wave_BT)])
        padded = scratch.padded[: len(wave_BT)]
        target = padded[..., : self.size]
        if self.settings.preemphasis != 0.0:
            # Not `sub(alpha=)`: that is one rounding, torchaudio has two.
            torch.mul(frames[..., :-1], self.settings.preemphasis, out=target[..., 1:])
            torch.mul(frames[..., 0], self.settings.preemphasis, out=target[..., 0])
            frames = torch.sub(frames, target, out=target)
        torch.mul(frames, self.window, out=target)
        return padded


def _product(left: Tensor, matrix: Tensor, out: Tensor) -> None:
    """left @ matrix for a batch; row by row on the CPU, where a row must not depend on how many there are."""
    if left.device.type != "cpu":
        torch.matmul(left, matrix, out=out)
        return
    for row, target in zip(left, out, strict=True):
        torch.mm(row, matrix, out=target)


class _Scratch:
    """Memory of one call, used again for each chunk: fresh pages would cost more than the arithmetic."""

    def __init__(self, bank: Fbank, rows: int, like: Tensor) -> None:
        shape, lines = (rows, bank.frames(like.shape[1])), bank.padded // 2 + 1
        self.frames = like.new_empty(*shape, bank.size)
        self.padded = like.new_zeros(*shape, bank.padded)
        self.spectrum = like.new_empty(*shape, lines, dtype=like.dtype.to_complex())
        self.power = like.new_empty(*shape, lines)
        self.energy = like.new_empty(*shape, bank.settings.bins if bank.cosines is not None else 0)


def _blocks(bank: Tensor, count: int) -> list[tuple[slice, slice, Tensor]]:
    """The bank's columns in `count` groups, each with the only lines of the spectrum that it weighs."""
    if count == 1:
        return [(slice(0, len(bank)), slice(0, bank.shape[1]), bank.contiguous())]
    edges = [bank.shape[1] * part // count for part in range(count + 1)]
    blocks = []
    for first, last in pairwise(edges):
        used = torch.nonzero(bank[:, first:last].any(1)).flatten()
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(bank))
        blocks.append((slice(low, high), slice(first, last), bank[low:high, first:last].contiguous()))
    return blocks
