"""A stream at the model's rate, as it comes -> what was heard in it: labels that hold, windows, what was skipped.

    stream   |-------- window --------|
                  |-------- window --------|            a hop later
                                       |---- window ----|   the last ends where the stream ends

Which windows there are depends on the stream alone, not on the blocks that it came in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.live.debounce import Debounce, Label, Probabilities, Rule
from dist_train.live.level import loudest
from dist_train.live.ring import Ring, Wave

PATIENCE = 1.0  # seconds (or two hops, if they are longer) that understanding may lag behind a microphone
Ears = Callable[[NDArray[np.float32]], Probabilities]  # (1, T, channels) -> (1, classes)


@dataclass(frozen=True)
class Grid:
    """rate: Hz; window, hop: samples; gate: dBFS, windows nowhere as loud are silence; keep: samples before the newest
    window that stay within reach."""

    rate: int
    channels: int
    window: int
    hop: int
    gate: float
    keep: int = 0

    def seconds(self, samples: int) -> float:
        return samples / self.rate


@dataclass(frozen=True)
class Event:
    """kind: label (begins), gone, window, skipped. start, end: seconds of the stream; level: dBFS of the loudest tenth
    of a second; probability_C: smoothed, None: silence; count: windows that were skipped."""

    kind: str
    start: float
    end: float
    number: int | None = None
    probability: float | None = None
    probability_C: Probabilities | None = None
    level: float | None = None
    count: int = 0


class Listener:
    """What is understood so far of a stream."""

    def __init__(self, ears: Ears, grid: Grid, rule: Rule) -> None:
        self.ears, self.grid = ears, grid
        self.step = max(1, min(grid.hop, grid.rate // 10))  # samples appended at a time
        self.ring = Ring(grid.window + grid.keep + grid.hop + self.step, grid.channels)
        self.debounce = Debounce(rule)
        self.windows = self.skipped = 0
        self._begin, self._next = 0, grid.window  # of the unbroken stretch; end of the next window
        self._unsaid: tuple[int, float] | None = None  # windows skipped and not yet told, start of the first

    @property
    def end(self) -> float:
        """Seconds of the stream so far."""
        return self.grid.seconds(self.ring.end)

    def hear(self, wave_TC: Wave, waiting: Callable[[], float] | None = None) -> Iterator[Event]:
        """More of the stream. `waiting`: seconds of sound that wait behind this; None: no window is ever skipped."""
        patience = max(PATIENCE, 2 * self.grid.seconds(self.grid.hop))
        for start in range(0, len(wave_TC), self.step):
            self.ring.append(wave_TC[start : start + self.step])
            while self._next <= self.ring.end:
                left = len(wave_TC) - start - self.step
                late = 0.0 if waiting is None else self.grid.seconds(self.ring.end - self._next + max(0, left))
                if waiting is not None and late + waiting() > patience:
                    self._skip()
                else:
                    yield from self._caught_up()
                    yield from self._window(self._next - self.grid.window, self._next)
                self._next += self.grid.hop

    def gap(self, samples: int) -> Iterator[Event]:
        """So many samples were lost: no window reaches over them, no label holds across them."""
        self.ring.gap(samples)
        self._begin, self._next = self.ring.end, self.ring.end + self.grid.window
        yield from self._labels(self.debounce.hear(self.end, self.end, None))

    def finish(self) -> Iterator[Event]:
        """The stream has ended: its last window; one shorter than a window is heard as a short clip."""
        yield from self._caught_up()
        last = self._next - self.grid.hop  # end of the last window
        start = max(self._begin, self.ring.end - self.grid.window)
        if self.ring.end > start and (self.ring.end > last or last < self._begin + self.grid.window):
            yield from self._window(start, self.ring.end)
        yield from self._labels(self.debounce.finish())

    def _window(self, start: int, end: int) -> Iterator[Event]:
        wave_TC = self.ring.view(start, end)
        level = loudest(wave_TC, self.grid.rate)
        silent = level < self.grid.gate or not wave_TC.any()
        heard = None if silent else self.ears(wave_TC[None])[0]
        self.windows += 1
        first, last = self.grid.seconds(start), self.grid.seconds(end)
        labels = self.debounce.hear(first, last, heard)
        smooth_C = None if silent else self.debounce.smoothed()
        yield Event("window", first, last, probability_C=smooth_C, level=level)
        yield from self._labels(labels, smooth_C, level)

    def _labels(
        self, labels: list[Label], smooth_C: Probabilities | None = None, level: float | None = None
    ) -> Iterator[Event]:
        for label in labels:
            kind = "label" if label.begun else "gone"
            yield Event(kind, label.start, label.end, label.number, label.probability, smooth_C, level)

    def _skip(self) -> None:
        self.skipped += 1
        count, start = self._unsaid or (0, self.grid.seconds(self._next - self.grid.window))
        self._unsaid = count + 1, start

    def _caught_up(self) -> Iterator[Event]:
        if self._unsaid is not None:
            count, start = self._unsaid
            self._unsaid = None
            end = start + self.grid.seconds(self.grid.window + (count - 1) * self.grid.hop)
            yield Event("skipped", start, end, count=count)
