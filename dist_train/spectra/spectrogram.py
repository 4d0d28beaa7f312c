"""Waveforms -> spectrogram, mel spectrogram or MFCC, as `torchaudio.transforms` has them, a whole ragged batch at once.

In: (rows, samples), and how many samples of each row count. Out: (rows, frames, bins).

    pad both ends -> frames -> window -> |rfft| ** power [-> mel] -> linear | ln | dB [-> top_db of the clip] [-> DCT]

Not Kaldi's: frames are centred, windows periodic, triangles linear in Hz; no mean is removed, there is no dither and no
pre-emphasis. A row is continued past its own end, so padding is never seen: its valid frames are those of the clip
alone. The rows of a clip's channels lie side by side, and its top level is that of all its channels.

On the CPU rows are done one by one, a few hundred frames at a time in memory that stays in cache; what is done to a
row depends on its own length only, so its values are the same, bit for bit, in any batch.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import to_device
from dist_train.edges import pad_row, padded, silenced
from dist_train.settings import Audio, Features
from dist_train.spectra import mel
from dist_train.spectra.levels import Levels

BLOCKS = 4  # of the mel bank on the CPU: a third of the multiplications
CPU_SAMPLES, GPU_SAMPLES = 1 << 18, 1 << 28  # of frames at once: a CPU's cache, a GPU's memory
SPARE = 1e-6  # 46.43990929705215 ms of 22050 Hz are 1024 samples, not 1023.9999999999999


class Spectrogram:
    """Spectrogram, mel spectrogram or MFCC on one device. `bins` is the number of values a frame.

    `size` is the shortest row: a mirror needs fft // 2 + 1 samples, frames that are not centred need fft. A shorter
    clip counts as followed by silence up to there, and has the frames of `size` samples. ValueError where the settings
    make no frame.
    """

    def __init__(
        self, audio: Audio, features: Features, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        length, self.shift = mel.spans(audio, features, SPARE)
        self.fft = features.fft or length
        if self.fft < length:
            raise ValueError(
                f"features.fft={self.fft} is shorter than a frame, {length} samples (features.frame_length="
                f"{features.frame_length:g} ms at {audio.sample_rate} Hz); give a longer fft or shorter frames"
            )
        self.settings, self.device, self.dtype = features, device, dtype
        self.margin = self.fft // 2 if features.center else 0
        least = {"reflect": self.margin + 1, "circular": self.margin}.get(features.pad_mode, 1)
        self.size = max(1, (least if features.center else self.fft) - 2 * features.pad)
        self.around = 2 * (self.margin + features.pad) - self.fft  # samples that are heard beyond a frame's length
        self.window = self._window(length).to(device)
        self.left = (self.fft - length) // 2  # zeros before the window, where the transform is longer
        self.wide = torch.nn.functional.pad(self.window, (self.left, self.fft - length - self.left))
        self.lines = self.middle = self.bins = self.fft // 2 + 1
        self.bank: Tensor | None = None
        self.blocks: list[tuple[slice, slice, Tensor]] = []
        if features.name != "spectrogram":
            bank = mel.triangles(features, self.fft, audio.sample_rate).to(dtype)
            self.bank, self.blocks = bank.to(device), mel.blocks(bank, BLOCKS)
            self.middle = self.bins = features.bins
        self.levels = Levels(features, audio.channels if isinstance(audio.channels, int) else 1)
        self.cosines: Tensor | None = None
        if features.name == "torchaudio_mfcc":
            if features.ceps > features.bins:
                raise ValueError(f"features.ceps={features.ceps} exceeds features.bins={features.bins}; lower it")
            self.cosines = mel.transform(features.bins, features.ceps, features.dct_norm).to(device, dtype)
            self.bins = features.ceps

    def _window(self, length: int) -> Tensor:
        window = mel.window(self.settings, length, self.dtype, periodic=True)
        if self.settings.normalized == "window":
            return window / window.square().sum().sqrt()
        return window / self.fft**0.5 if self.settings.normalized == "frame_length" else window

    def frames(self, samples: int) -> int:
        """Frames of so many samples: their centres, or all of them (center=false), lie within."""
        return 0 if samples < self.size else 1 + (samples + self.around) // self.shift

    def valid(self, filled: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frames of each row whose first `filled` samples count; at least one."""
        return 1 + (np.maximum(filled, self.size) + self.around) // self.shift

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
        step = max(1, GPU_SAMPLES // (count * self.fft * self.levels.channels)) * self.levels.channels
        parts = [
            self._batch(wave_BT[start : start + step], None if filled_B is None else filled_B[start : start + step])
            for start in range(0, max(1, len(wave_BT)), step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _batch(self, wave_BT: Tensor, filled_B: Tensor | None) -> Tensor:
        keys, valid_B = self.settings, None
        wave_BT = silenced(wave_BT, filled_B)
        if filled_B is not None:
            filled_B = filled_B.clamp(min=self.size, max=wave_BT.shape[1])
            valid_B = 1 + (filled_B + self.around) // self.shift
        if keys.waveform_scale != 1.0:
            wave_BT = wave_BT * keys.waveform_scale
        if keys.pad:
            wave_BT = torch.nn.functional.pad(wave_BT, (keys.pad, keys.pad))
            filled_B = None if filled_B is None else filled_B + 2 * keys.pad
        if self.margin:
            wave_BT = padded(wave_BT, self.margin, filled_B, keys.pad_mode)
        spectrum = torch.view_as_real(torch.fft.rfft(wave_BT.unfold(1, self.fft, self.shift) * self.wide))
        power = spectrum.square().sum(-1)
        if keys.power != 2.0:
            power = power.pow(keys.power / 2)
        feat_BTF = self.levels.scaled(power if self.bank is None else power @ self.bank)
        feat_BTF = self.levels.limited(feat_BTF, valid_B)
        return feat_BTF if self.cosines is None else feat_BTF @ self.cosines

    def _rows(self, wave_BT: Tensor, lengths: list[int]) -> Tensor:
        """Each row by itself, its valid frames only; zeros behind them."""
        samples = wave_BT.shape[1]
        out = wave_BT.new_empty(len(lengths), self.frames(samples), self.middle)
        if not out.shape[1]:
            return wave_BT.new_empty(len(lengths), 0, self.bins)
        scratch, counts = _Scratch(self, wave_BT), []
        for wave, length, target in zip(wave_BT, lengths, out, strict=True):
            whole = min(max(length, self.size), samples)
            counts.append(self.frames(whole))
            self._row(self._laid(wave, min(length, samples), whole, scratch.wave), target[: counts[-1]], scratch)
            target[counts[-1] :] = 0
        self.levels.limit_rows(out, counts)
        if self.cosines is None:
            return out
        made = wave_BT.new_zeros(len(lengths), out.shape[1], self.bins)
        for row, count in enumerate(counts):
            made[row, :count] = torch.mm(out[row, :count].clone(), self.cosines)
        return made

    def _laid(self, wave_T: Tensor, length: int, whole: int, into: Tensor) -> Tensor:
        """(T,) -> `length` samples, silence up to `whole`, features.pad zeros and what lies past them at both ends."""
        pad, first = self.settings.pad, self.margin + self.settings.pad
        count = whole + 2 * pad
        into[self.margin : first] = 0
        torch.mul(wave_T[:length], self.settings.waveform_scale, out=into[first : first + length])
        into[first + length : self.margin + count] = 0
        laid = into[: count + 2 * self.margin]
        return pad_row(laid, self.margin, self.settings.pad_mode) if self.margin else laid

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
                # Not `mm(out=)`: how its memory is aligned depends on the row's place, and the order of a sum on that.
                out[first:last, bins] = torch.mm(power[:, lines], matrix)
        self.levels.scaled(out)


class _Scratch:
    """Memory of one call, used again for each block of frames: fresh pages would cost more than the arithmetic."""

    def __init__(self, bank: Spectrogram, like: Tensor) -> None:
        samples = like.shape[1]
        count = min(bank.frames(samples), max(1, CPU_SAMPLES // bank.fft))
        self.wave = like.new_empty(samples + 2 * (bank.margin + bank.settings.pad))
        self.padded = like.new_zeros(count, bank.fft)
        self.power = like.new_empty(count if bank.blocks else 0, bank.lines)
