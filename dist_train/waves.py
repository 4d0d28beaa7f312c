"""Raw audio bytes -> windows at one rate, speed and level, a few alike rows at a time: the CPU's way.

In: bytes (B, row_bytes) as the reader leaves them and their PLAN rows. Out: (B, C, samples), for each row what
converting the whole clip and cutting it afterwards would give, silence outside the clip.

    bytes --PCM, channels--> | stage 1: rate | --> | stage 2: speed | --silence, gain, fill--> row of the batch

Rows stay in the core's cache from their bytes to their windows, and all memory is used again by the next batch: on a
CPU fresh pages cost more than this arithmetic does. No row's values depend on the others'.
"""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import memory
from dist_train.archive.row import CODECS
from dist_train.decode import Rows, mix, pcm
from dist_train.resample import Resampler, Resamplers, rate_ratio, speed_ratio
from dist_train.settings import Audio
from dist_train.window import PLAIN

FEW = 4
CACHED = 100_000  # source samples at once: with what becomes of them they stay in a core's second cache


class Waves:
    """The windows of one batch after another. What a call returns is overwritten by the next."""

    def __init__(self, audio: Audio, speeds: list[Fraction], resamplers: Resamplers) -> None:
        self.audio, self.resamplers = audio, resamplers
        self.channels = audio.channels if isinstance(audio.channels, int) else 1
        ratios = [speed_ratio(factor) for factor in speeds]
        self.speeds = [None if ratio.same else resamplers.of(ratio) for ratio in ratios]
        self.rates: dict[int, Resampler | None] = {}
        self.memory: dict[str, Tensor] = {}

    def __call__(
        self, data: Tensor, plan: Rows, samples: int, gain: NDArray[Any] | None, place: NDArray[Any]
    ) -> Tensor:
        """(B, row_bytes) uint8 -> (B, C, samples). `gain` (B,) factors or None; `place` (B,) in [0, 1] as in `fill`."""
        room_BCT = self._memory("room", len(plan), samples)
        factors = itertools.repeat(1.0, len(plan)) if gain is None else gain.tolist()
        rows = list(zip(plan["length"].tolist(), plan["window"].tolist(), factors, place.tolist(), strict=True))
        for alike in self._alike(plan):
            wave_RCT = self._windows(data, alike, plan[alike])
            for wave_CT, row in zip(wave_RCT.unbind(), alike.tolist(), strict=True):
                self._place(wave_CT, room_BCT[row], *rows[row])
        return room_BCT

    def _place(self, wave_CT: Tensor, out_CT: Tensor, length: int, window: int, factor: float, place: float) -> None:
        """A window at its level and length into its row of the batch."""
        torch.mul(wave_CT[:, :length], factor, out=out_CT[:, :length])
        if length < out_CT.shape[1]:
            out_CT[:, length:] = 0
        if length < window and self.audio.short != "pad":
            fill(out_CT, max(length, 1), window, self.audio.short, place)

    def _windows(self, data: Tensor, rows: NDArray[np.int64], plan: Rows) -> Tensor:
        """Some alike rows of the data up to their speed, (R, C, at least their length); undefined past it."""
        one, count = plan[0], int(plan["count"].max())
        stage1, window = self._stage1(int(one["rate"])), int(plan["window"].max())
        stage2 = None if one["factor"] == PLAIN else self.speeds[one["factor"]]
        needed = count if stage2 is None else stage2.needed(window)
        made = 0 if stage1 is None else (count - 2 * stage1.width) // stage1.ratio.orig * stage1.ratio.new
        first, frames = plan["first"], plan["frames"].astype(np.int64)
        wave_RCT = self._memory("source", len(plan), max(count, needed if stage1 is None else stage1.needed(made)))
        self._decode(data, rows, plan, wave_RCT[..., :count])
        _silence(wave_RCT, -first, np.minimum(frames - first, count))
        if stage1 is not None:
            start = (first + stage1.width) // stage1.ratio.orig * stage1.ratio.new + plan["drop"]
            end = -(-frames * stage1.ratio.new // stage1.ratio.orig)
            rated_RCT = self._memory("rated", len(plan), max(stage1.room(made), int(plan["drop"].max()) + needed))
            _convert(wave_RCT, stage1, made, rated_RCT)
            wave_RCT = self._dropped(rated_RCT, plan["drop"].tolist(), made, made if stage2 is None else needed)
            _silence(wave_RCT, -start, np.minimum(end - start, made - plan["drop"]))
        if stage2 is not None:
            fast_RCT = self._memory("fast", len(plan), stage2.room(window))
            _convert(wave_RCT, stage2, window, fast_RCT)
            return fast_RCT
        return wave_RCT

    def _dropped(self, rated_RCT: Tensor, drop: list[int], made: int, length: int) -> Tensor:
        """Rows without their first `drop` samples, (R, C, length); undefined from `made` on."""
        if min(drop) == max(drop):
            return rated_RCT[..., drop[0] : drop[0] + length]
        out_RCT = self._memory("dropped", len(drop), length)
        for rated_CT, out_CT, count in zip(rated_RCT.unbind(), out_RCT.unbind(), drop, strict=True):
            kept = min(made - count, length)
            out_CT[:, :kept] = rated_CT[:, count : count + kept]
        return out_RCT

    def _alike(self, plan: Rows) -> Iterator[NDArray[np.int64]]:
        """Numbers of rows alike in codec, channels, rate, factor and source frames, as many as the cache holds.

        In `drop` too where it takes few values: then nothing has to be moved.
        """
        rates, rate = np.unique(plan["rate"], return_inverse=True)
        found = [self._stage1(one) for one in rates.tolist()]
        few = np.array([stage is not None and stage.ratio.new <= FEW for stage in found])[rate]
        kind = plan["count"].astype(np.int64) * FEW + np.where(few, plan["drop"], 0)
        for values, size in ((rate, 2**8), (plan["factor"], 2**8), (plan["channels"], 2**8), (plan["codec"], 2**5)):
            kind = kind * size + values
        order = np.argsort(kind, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
            step = max(1, CACHED // int(plan["count"][rows[0]] * plan["channels"][rows[0]]))
            yield from (rows[begin : begin + step] for begin in range(0, len(rows), step))

    def _stage1(self, rate: int) -> Resampler | None:
        if rate not in self.rates:
            ratio = rate_ratio(rate, self.audio.sample_rate)
            self.rates[rate] = None if ratio.same else self.resamplers.of(ratio)
        return self.rates[rate]

    def _decode(self, data: Tensor, rows: NDArray[np.int64], plan: Rows, into_RCT: Tensor) -> None:
        """The samples of alike rows' bytes."""
        codec, channels, count = CODECS(int(plan["codec"][0])), int(plan["channels"][0]), into_RCT.shape[2]
        if codec == CODECS.S16 and channels == 1:
            samples = data.view(torch.int16)
            for row, into_CT in zip(rows.tolist(), into_RCT.unbind(), strict=True):
                into_CT.copy_(samples[row, :count])
            into_RCT.mul_(2.0**-15)
        else:
            chosen = data.index_select(0, torch.from_numpy(rows))
            into_RCT.copy_(mix(pcm(chosen, codec, channels, count, self.resamplers.dtype), self.audio.channels))

    def _memory(self, name: str, rows: int, count: int) -> Tensor:
        """(rows, C, count) values of memory that lasts, as earlier use left them."""
        shape = rows, self.channels, count
        found = self.memory.get(name)
        if found is None or len(found) < math.prod(shape):
            found = self.memory[name] = memory.empty(math.prod(shape), dtype=self.resamplers.dtype)
        return found[: math.prod(shape)].view(shape)


def fill(wave_CT: Tensor, length: int, window: int, short: str, place: float) -> None:
    """A clip shorter than its window, in place: repeated (tile), or moved to where `place` of the silence is before it.

    `place` in [0, 1]; used by audio.short=random_pad.
    """
    if short == "tile":
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


def _convert(wave_RCT: Tensor, resampler: Resampler, samples: int, out_RCT: Tensor) -> None:
    resampler.into(wave_RCT.flatten(0, 1), samples, out_RCT.flatten(0, 1))


def _silence(wave_RCT: Tensor, low: NDArray[np.int64], high: NDArray[np.int64]) -> None:
    """Zeros outside [low, high) of each row: what lies there may be anything, NaN included."""
    samples = wave_RCT.shape[2]
    rest = max(int(high.max()), 0)
    if rest < samples:
        wave_RCT[..., rest:] = 0
    for row in np.flatnonzero((low > 0) | (high < rest)).tolist():
        wave_RCT[row, :, : max(int(low[row]), 0)] = 0
        wave_RCT[row, :, max(int(high[row]), 0) :] = 0
