"""Raw audio bytes -> windows at one rate, speed and level, row by row: the CPU's way.

In: bytes (B, row_bytes) as the reader leaves them and their PLAN rows. Out: (B, C, samples), what `decode`, `speed` and
`fill` would make of each row alone, bit for bit.

    bytes --PCM, channels--> | stage 1: rate | --> | stage 2: speed | --silence, gain, fill--> row of the batch

A row stays in the core's cache from its bytes to its window, and all memory is used again by the next batch: on a CPU
fresh pages cost more than this arithmetic does.
"""

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import Rows, mix, pcm
from dist_train.resample import Resampler, Resamplers, rate_ratio, speed_ratio
from dist_train.row import CODECS
from dist_train.settings import Audio
from dist_train.window import PLAIN

_READ = ("codec", "channels", "rate", "factor", "first", "count", "frames", "drop", "length", "window")


class Waves:
    """The windows of one batch after another. What a call returns is overwritten by the next."""

    def __init__(self, audio: Audio, speeds: list[Fraction], resamplers: Resamplers) -> None:
        self.audio, self.resamplers = audio, resamplers
        self.channels = audio.channels if isinstance(audio.channels, int) else 1
        ratios = [speed_ratio(factor) for factor in speeds]
        self.speeds = [None if ratio.same else resamplers.of(ratio) for ratio in ratios]
        self.rates: dict[int, Resampler | None] = {}
        # A filter writes whole blocks, so the last may reach past the window.
        self.slack = max((resampler.outputs for resampler in self.speeds if resampler is not None), default=0)
        self.memory: dict[str, Tensor] = {}

    def __call__(
        self, data: Tensor, plan: Rows, samples: int, gain: NDArray[Any] | None, place: NDArray[Any]
    ) -> Tensor:
        """(B, row_bytes) uint8 -> (B, C, samples). `gain` (B,) factors or None; `place` (B,) in [0, 1] as in `fill`."""
        room = self._memory("room", samples + self.slack, len(plan) * self.channels)
        room = room.view(len(plan), self.channels, -1)
        for row, one in enumerate(zip(*(plan[name].tolist() for name in _READ), strict=True)):
            length, window = one[-2:]
            self._window(data[row], one, room[row])
            wave_CT = room[row, :, :samples]
            wave_CT[:, length:] = 0
            if gain is not None:
                wave_CT[:, :length].mul_(float(gain[row]))
            if length < window and self.audio.short != "pad":
                self._fill(wave_CT, max(length, 1), window, float(place[row]))
        return room[:, :, :samples]

    def _window(self, data: Tensor, one: tuple[int, ...], out_CT: Tensor) -> None:
        """One row up to its speed; what lies past its length is undefined."""
        codec, channels, rate, factor, first, count, frames, drop, _, window = one
        stage1 = self._stage1(rate)
        stage2 = None if factor == PLAIN else self.speeds[factor]
        needed = 0 if stage2 is None else stage2.needed(window)
        made = 0 if stage1 is None else (count - 2 * stage1.width) // stage1.ratio.orig * stage1.ratio.new
        into = out_CT
        if stage1 is not None or stage2 is not None:
            into = self._memory("source", max(count, needed if stage1 is None else stage1.needed(made)))
        self._decode(data, codec, channels, into[:, :count])
        _silence(into, -first, min(frames - first, count))
        if stage1 is not None:
            rated = self._memory("rated", max(stage1.room(made), drop + needed))
            _convert(into, stage1, made, rated)
            into = rated[:, drop:]
            start = (first + stage1.width) // stage1.ratio.orig * stage1.ratio.new + drop
            _silence(into, -start, min(stage1.ratio.length(frames) - start, made - drop))
        if stage2 is not None:
            _convert(into, stage2, window, out_CT)
        elif stage1 is not None:
            kept = min(into.shape[1], out_CT.shape[1])
            out_CT[:, :kept] = into[:, :kept]

    def _stage1(self, rate: int) -> Resampler | None:
        if rate not in self.rates:
            ratio = rate_ratio(rate, self.audio.sample_rate)
            self.rates[rate] = None if ratio.same else self.resamplers.of(ratio)
        return self.rates[rate]

    def _decode(self, data: Tensor, codec: int, channels: int, into: Tensor) -> None:
        """The samples of a row's bytes, (C, count)."""
        count = into.shape[1]
        if codec == CODECS.S16 and channels == 1:
            into.copy_(data.view(torch.int16)[:count]).mul_(2.0**-15)
        else:
            wave_RCT = pcm(data[None], CODECS(codec), channels, count, self.resamplers.dtype)
            into.copy_(mix(wave_RCT, self.audio.channels)[0])

    def _fill(self, wave_CT: Tensor, length: int, window: int, place: float) -> None:
        """A clip shorter than its window, repeated or moved to its place."""
        if self.audio.short == "tile":
            while length < window:
                more = min(length, window - length)
                wave_CT[:, length : length + more] = wave_CT[:, :more]
                length += more
            return
        offset = min(int(place * (window - length + 1)), window - length)
        clip = wave_CT[:, :length].clone()
        wave_CT[:, :offset] = 0
        wave_CT[:, offset : offset + length] = clip
        wave_CT[:, offset + length : window] = 0

    def _memory(self, name: str, count: int, rows: int = 0) -> Tensor:
        """(rows or channels, count) values of memory that lasts, as earlier use left them."""
        rows = rows or self.channels
        found = self.memory.get(name)
        if found is None or len(found) < rows * count:
            kind = np.float64 if self.resamplers.dtype == torch.float64 else np.float32
            # NumPy asks for huge pages, torch does not.
            found = self.memory[name] = torch.from_numpy(np.empty(rows * count, kind))
        return found[: rows * count].view(rows, count)


def _convert(wave_CT: Tensor, resampler: Resampler, samples: int, out_CT: Tensor) -> None:
    for channel in range(len(wave_CT)):
        resampler.into(wave_CT[channel], samples, out_CT[channel])


def _silence(wave_CT: Tensor, low: int, high: int) -> None:
    """Zeros outside [low, high): what lies there may be anything, NaN included."""
    if low > 0:
        wave_CT[:, :low] = 0
    if high < wave_CT.shape[1]:
        wave_CT[:, max(high, 0) :] = 0
