"""A source of sound -> takes: so many seconds each, from a sound on if so wanted, and what is amiss with them.

source.flow -> converter -> [trigger] -> take
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dist_train.live import level
from dist_train.live.converter import Converter
from dist_train.live.level import Level, Meter
from dist_train.live.ring import Wave
from dist_train.live.session import POLL, STOPPED, Source
from dist_train.live.trigger import Trigger

Show = Callable[[float | None], None]  # seconds that a take has so far, None: it waits for a sound


class Recorder:
    """Cuts takes from a stream, one after another; no sample is in two of them."""

    def __init__(self, source: Source, rate: int) -> None:
        self.source, self.rate = source, rate
        self.converter, self.meter = Converter(source.rate, rate), Meter()
        self.ended, self.fresh = False, True  # fresh: no take was begun
        self._rest: Wave = np.zeros((0, 1), np.float32)

    def take(self, seconds: float, trigger: Trigger | None, stop: Callable[[], bool], show: Show) -> Wave:
        """(T, 1): the next take. Shorter where `stop` says so or the source ends; empty where it had ended.

        ValueError: a device that stopped. OSError: a pipe that broke.
        """
        wanted, have = round(seconds * self.rate), 0
        parts: list[Wave] = [self._rest[:0]]
        self.fresh = False
        while have < wanted and not stop() and (wave_TC := self._next()) is not None:
            if trigger is not None:
                begun_TC = trigger.hear(wave_TC)
                if begun_TC is None:
                    show(None)
                    continue
                wave_TC, trigger = begun_TC, None
            parts.append(wave_TC)
            have += len(wave_TC)
            show(min(have, wanted) / self.rate)
        whole_TC = np.concatenate(parts)
        self._rest = whole_TC[wanted:]
        return whole_TC[:wanted]

    def forget(self) -> None:
        """Leave out what was heard since the last take: keys, a countdown, talk."""
        self._rest = self._rest[:0]
        while self.source.flow.waiting and not self.ended:
            self._next()
        self.converter.finish()

    def _next(self) -> Wave | None:
        """More of the stream, perhaps nothing new; None: it has ended."""
        rest_TC, self._rest = self._rest, self._rest[:0]
        if len(rest_TC):
            return rest_TC
        if self.ended:
            return None
        try:
            block = self.converter.clean(self.source.flow.take(POLL).block)
        except TimeoutError:
            if self.source.silent():
                raise ValueError(f"{self.source.name}: {STOPPED}") from None
            return self._rest
        except EOFError:
            if self.source.live:
                raise ValueError(f"{self.source.name}: {STOPPED}") from None
            self.ended = True
            return self.converter.finish()
        self.meter.hear(block, self.source.rate)
        return self.converter.hear(block)


def measured(wave_TC: Wave) -> Level:
    """The level of a take. What 16 bits cannot hold is clipped as well: a resampler rounds a plateau to peaks."""
    found = level.measure(wave_TC)
    over = int((np.abs(wave_TC) > 1).sum())
    return replace(found, clipped=max(found.clipped, over))


def amiss(found: Level, quiet: float) -> str | None:
    """What is wrong with a take and how to mend it; None: nothing. `quiet`: dBFS that its peak should reach."""
    if found.clipped:
        return f"clipped: {found.clipped} samples at full scale; go farther away, or turn the microphone down"
    if found.peak < quiet:
        return f"too quiet: its peak is {found.peak:.1f} dB; come closer, or turn the microphone up"
    return None
