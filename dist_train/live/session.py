"""A source of sound and a listener -> events until the source ends; what was lost and how long it took.

source.flow -> converter -> listener -> events
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Protocol

from dist_train.live.converter import Converter
from dist_train.live.flow import Flow, Heard
from dist_train.live.level import Meter
from dist_train.live.listener import Event, Listener

POLL = 0.2  # seconds between looks at a source that gives nothing
STOPPED = "the device has stopped; is it still plugged in?"


class Source(Protocol):
    """A microphone or a pipe. live: it cannot wait, so what is late is skipped."""

    live: bool
    name: str
    rate: int
    channels: int
    flow: Flow

    def start(self) -> None: ...
    def close(self) -> None: ...
    def silent(self) -> bool: ...


class Session:
    """One stream from its start to its end."""

    def __init__(self, source: Source, mix: str | int, listener: Listener, live: bool, seconds: float | None) -> None:
        """`live`: skip what is late; `seconds`: end after so many of the stream, None: when the source ends."""
        self.source, self.listener, self.live = source, listener, live
        self.converter = Converter(source.rate, listener.grid.rate, mix)
        self.meter = Meter()
        self.lost = self.overruns = 0  # frames; times that a device said so, or that there was no room
        self._left = None if seconds is None else round(seconds * source.rate)
        self._begun = time.perf_counter()
        self._idle = 0.0

    @property
    def busy(self) -> float:
        """Seconds that understanding took: all but waiting for sound."""
        return time.perf_counter() - self._begun - self._idle

    def lag(self) -> float:
        """Seconds of sound that wait."""
        return self.source.flow.waiting / self.source.rate

    def wall(self, end: float) -> datetime:
        """When `end` seconds of the stream were heard, by the clock."""
        late = self.lag() + self.listener.end - end
        return datetime.now().astimezone() - timedelta(seconds=late)

    def events(self) -> Iterator[Event | None]:
        """What happens; None where nothing did, so that who waits can look around.

        ValueError: a device that stopped by itself. OSError: a pipe that broke.
        """
        self._begun, self._idle = time.perf_counter(), 0.0
        while self._left is None or self._left > 0:
            before = time.perf_counter()
            try:
                heard = self.source.flow.take(POLL)
            except TimeoutError:
                if self.source.silent():
                    raise ValueError(f"{self.source.name}: {STOPPED}") from None
                yield None
                continue
            except EOFError:
                if self.source.live:
                    raise ValueError(f"{self.source.name}: {STOPPED}") from None
                break
            finally:
                self._idle += time.perf_counter() - before
            yield from self._hear(heard)
            yield None
        yield from self.listener.hear(self.converter.finish())
        yield from self.listener.finish()

    def _hear(self, heard: Heard) -> Iterator[Event]:
        if self.source.flow.overruns > self.overruns:
            count, self.overruns = self.source.flow.overruns - self.overruns, self.source.flow.overruns
            yield Event("overrun", self.listener.end, self.listener.end, count=count)
        if heard.lost:
            yield from self._gap(heard.lost)
        block = self.converter.clean(heard.block if self._left is None else heard.block[: self._left])
        self._left = None if self._left is None else self._left - len(block)
        self.meter.hear(block, self.source.rate)
        yield from self.listener.hear(self.converter.hear(block), self.lag if self.live else None)

    def _gap(self, frames: int) -> Iterator[Event]:
        """Frames that were lost: what was heard before them ends there."""
        self.lost += frames
        yield from self.listener.hear(self.converter.finish())
        start = self.listener.end
        yield from self.listener.gap(round(frames * self.listener.grid.rate / self.source.rate))
        yield Event("lost", start, self.listener.end)
