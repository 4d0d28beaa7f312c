"""Waveforms -> spectrogram or mel spectrogram, as `torchaudio.transforms` has them, a whole ragged batch at once.

In: (rows, samples), and how many samples of each row count. Out: (rows, frames, bins).

    mirror both ends -> frames -> window -> |rfft| ** power [-> mel] -> linear | ln | dB [-> top_db of the clip]

Not Kaldi's: frames are centred, windows periodic, triangles linear in Hz; no mean is removed, there is no dither and no
pre-emphasis. A row is mirrored at its own end, so padding is never seen: its valid frames are those of the clip alone.

On the CPU rows are done one by one, a few hundred frames at a time in memory that stays in cache; what is done to a
row depends on its own length only, so its values are the same, bit for bit, in any batch.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import mel
from dist_train.decode import to_device
from dist_train.settings import Audio, Features

FLOOR = 1e-10  # under the logarithm, torchaudio's amin
BLOCKS = 4  # of the mel bank on the CPU: a third of the multiplications
CPU_SAMPLES, GPU_SAMPLES = 1 << 18, 1 << 28  # of frames at once: a CPU's cache, a GPU's memory


class Spectrogram:
    """Spectrogram or mel spectrogram on one device. `bins` is the number of values a frame.

    `size` is the shortest row: a mirror needs fft // 2 + 1 samples, frames that are not centred need fft. A shorter
    clip counts as followed by silence up to there, and has the frames of `size` samples. ValueError where the settings
    make no frame.
    """

    def __init__(
        self, audio: Audio, features: Features, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        # 46.43990929705215 ms of 22050 Hz are 1024 samples, not 1023.9999999999999
        length, self.shift = (
            int(audio.sample_rate * span / 1000 + 1e-6) for span in (features.frame_length, features.frame_shift)
        )
        if length < 2 or self.shift < 1:
            raise ValueError(
                f"features.frame_length={features.frame_length:g} and frame_shift={features.frame_shift:g} ms make "
                f"frames of {length} samples every {self.shift} at {audio.sample_rate} Hz; give longer ones"
            )
        self.fft = features.fft or length
        if self.fft < length:
            raise ValueError(
                f"features.fft={self.fft} is shorter than a frame, {length} samples (features.frame_length="
                f"{features.frame_length:g} ms at {audio.sample_rate} Hz); give a longer fft or shorter frames"
            )
        self.settings, self.device, self.dtype = features, device, dtype
        self.margin = self.fft // 2 if features.center else 0
        self.size = self.margin + 1 if features.center else self.fft
        self.window = mel.periodic(features.window, length, dtype).to(device)
        self.left = (self.fft - length) // 2  # zeros before the window, where the transform is longer
        self.wide = torch.nn.functional.pad(self.window, (self.left, self.fft - length - self.left))
        self.bins = self.fft // 2 + 1
        self.bank: Tensor | None = None
        self.blocks: list[tuple[slice, slice, Tensor]] = []
        if features.name == "mel":
            ends, shape = (features.low_freq, features.high_freq), (features.mel_scale, features.mel_norm)
            bank = mel.triangles(features.bins, self.fft, audio.sample_rate, *ends, *shape).to(dtype)
            self.bank, self.blocks = bank.to(device), mel.blocks(bank, BLOCKS)
            self.bins = features.bins

    def frames(self, samples: int) -> int:
        """Frames of so many samples: their centres, or all of them (center=false), lie within."""
        return 0 if samples < self.size else 1 + (samples + 2 * self.margin - self.fft) // self.shift

    def valid(self, filled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames of each row whose first `filled` samples count; at least one."""
        return 1 + (np.maximum(filled, self.size) + 2 * self.margin - self.fft) // self.shift

    def __call__(self, wave_BT: Tensor, filled: NDArray[np.int64] | None = None) -> Tensor:
        """(B, T) -> (B, frames(T), bins). Frames past a row's valid ones hold finite values without meaning."""
        if wave_BT.device.type == "cpu":
            lengths = np.full(len(wave_BT), wave_BT.shape[1]) if filled is None else filled
            return self._rows(wave_BT, lengths.tolist())
        return self.batched(wave_BT, None if filled is None else to_device(filled, wave_BT.device))

    def batched(self, wave_BT: Tensor, filled_B: Tensor | None = None) -> Tensor:
        """The same for any device, in plain operations on the whole batch; `filled_B` (B,) int64 lies on the device."""
        count = self.frames(wave_BT.shape[1])
        if not count:
            return wave_BT.new_empty(len(wave_BT), 0, self.bins)
        step = max(1, GPU_SAMPLES // (count * self.fft))
        parts = [
            self._batch(wave_BT[start : start + step], None if filled_B is None else filled_B[start : start + step])
            for start in range(0, max(1, len(wave_BT)), step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _batch(self, wave_BT: Tensor, filled_B: Tensor | None) -> Tensor:
        if filled_B is not None:  # also keeps what lies past the end, finite or not, out of every sum
            place = torch.arange(wave_BT.shape[1], device=wave_BT.device)
            wave_BT = torch.where(place < filled_B[:, None], wave_BT, 0)
            filled_B = filled_B.clamp(min=self.size, max=wave_BT.shape[1])
        if self.settings.waveform_scale != 1.0:
            wave_BT = wave_BT * self.settings.waveform_scale
        if self.margin:
            wave_BT = _mirrored(wave_BT, self.margin, filled_B)
        spectrum = torch.view_as_real(torch.fft.rfft(wave_BT.unfold(1, self.fft, self.shift) * self.wide))
        power = spectrum.square().sum(-1)
        if self.settings.power != 2.0:
            power = power.pow(self.settings.power / 2)
        feat_BTF = _scaled(power if self.bank is None else power @ self.bank, self.settings)
        if self.settings.scale != "db" or self.settings.top_db is None:
            return feat_BTF
        seen = feat_BTF
        if filled_B is not None:
            valid = 1 + (filled_B + 2 * self.margin - self.fft) // self.shift
            past = torch.arange(feat_BTF.shape[1], device=feat_BTF.device) >= valid[:, None]
            seen = feat_BTF.masked_fill(past[:, :, None], -torch.inf)
        return feat_BTF.maximum(seen.amax((1, 2), keepdim=True) - self.settings.top_db)

    def _rows(self, wave_BT: Tensor, lengths: list[int]) -> Tensor:
        """Each row by itself, its valid frames only; zeros behind them."""
        samples = wave_BT.shape[1]
        out = wave_BT.new_empty(len(lengths), self.frames(samples), self.bins)
        if not out.shape[1]:
            return out
        scratch = _Scratch(self, wave_BT)
        for wave, length, target in zip(wave_BT, lengths, out, strict=True):
            whole = min(max(length, self.size), samples)
            count = self.frames(whole)
            self._row(self._laid(wave, min(length, samples), whole, scratch.wave), target[:count], scratch)
            target[count:] = 0
        return out

    def _laid(self, wave_T: Tensor, length: int, whole: int, into: Tensor) -> Tensor:
        """(T,) -> (margin + whole + margin,): `length` samples, silence up to `whole`, both ends mirrored."""
        margin, end = self.margin, self.margin + whole
        torch.mul(wave_T[:length], self.settings.waveform_scale, out=into[margin : margin + length])
        into[margin + length : end] = 0
        if margin:
            into[:margin] = into[margin + 1 : 2 * margin + 1].flip(0)
            into[end : end + margin] = into[end - margin - 1 : end - 1].flip(0)
        return into[: end + margin]

    def _row(self, wave_T: Tensor, out: Tensor, scratch: "_Scratch") -> None:
        """Features of one row, into `out` (frames, bins); each step writes where the one before left the cache warm."""
        frames = wave_T[self.left :].unfold(0, len(self.window), self.shift)
        count, exponent = len(out), self.settings.power / 2
        parts = -(-count // len(scratch.padded))
        edges = [count * part // parts for part in range(parts + 1)]
        for first, last in pairwise(edges):
            padded = scratch.padded[: last - first]
            torch.mul(frames[first:last], self.window, out=padded[:, self.left : self.left + len(self.window)])
            # Not `rfft(out=)`: that makes a fresh tensor as well, and then copies it.
            squares = torch.view_as_real(torch.fft.rfft(padded)).square_()
            power = scratch.power[: last - first] if self.blocks else out[first:last]
            torch.add(squares[..., 0], squares[..., 1], out=power)
            if exponent == 0.5:
                power.sqrt_()
            elif exponent != 1.0:
                power.pow_(exponent)
            for lines, bins, matrix in self.blocks:
                torch.mm(power[:, lines], matrix, out=out[first:last, bins])
        _scaled(out, self.settings)
        # The level is the clip's own. torchaudio takes it over all of a (clips, bins, frames) batch, so that there a
        # quiet clip changes beside a loud one.
        if self.settings.scale == "db" and self.settings.top_db is not None:
            out.clamp_(min=out.max() - self.settings.top_db)


class _Scratch:
    """Memory of one call, used again for each block of frames: fresh pages would cost more than the arithmetic."""

    def __init__(self, bank: Spectrogram, like: Tensor) -> None:
        samples = like.shape[1]
        count, lines = min(bank.frames(samples), max(1, CPU_SAMPLES // bank.fft)), bank.fft // 2 + 1
        self.wave = like.new_empty(samples + 2 * bank.margin)
        self.padded = like.new_zeros(count, bank.fft)
        self.power = like.new_empty(count if bank.blocks else 0, lines)


def _scaled(value: Tensor, settings: Features) -> Tensor:
    """Linear values brought to the scale in place. dB of a power are 10 log10, of a magnitude 20 log10."""
    if settings.scale == "ln":
        value.clamp_(min=FLOOR).log_()
    elif settings.scale == "db":
        value.clamp_(min=FLOOR).log10_().mul_(10.0 if settings.power == 2.0 else 20.0)
    return value


def _mirrored(wave_BT: Tensor, margin: int, filled_B: Tensor | None) -> Tensor:
    """(B, T) -> (B, margin + T + margin): mirrored before the first sample and after each row's own last one."""
    wide = torch.nn.functional.pad(wave_BT, (margin, margin), mode="reflect")
    if filled_B is None:
        return wide
    step = torch.arange(margin, device=wave_BT.device)
    tail = wave_BT.gather(1, filled_B[:, None] - 2 - step)
    return wide.scatter(1, margin + filled_B[:, None] + step, tail)
