"""Probabilities of one window after another -> labels that hold, each told once.

window    w1   w2   w3   w4   w5   w6   w7   w8   w9
label     dog  dog  dog  rain rain  -   rain rain  -      hold = 2 windows
told           dog            rain                        the `rain` after one window's pause is the same rain
gone                               dog (after `gone` seconds without it)

A window's label is the likeliest class, with several labels a clip every class, whose smoothed probability reaches the
threshold. Silence has no label.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
SLACK = 1e-6  # seconds: sums of hops


@dataclass(frozen=True)
class Rule:
    """several: labels are independent; threshold: least probability; smooth, hold: windows; gone: seconds."""

    several: bool
    threshold: float
    smooth: int
    hold: int
    gone: float


@dataclass(frozen=True)
class Label:
    """A label that began to be heard, or is gone. start, end: seconds of the stream, from the first window that held
    it to the end of the last; probability: smoothed, of that window when it is told, the highest when it is gone."""

    number: int
    begun: bool
    start: float
    end: float
    probability: float


@dataclass
class _Run:
    """A class that is or was heard. windows: held without a break until it was told; best: highest probability."""

    start: float
    end: float
    windows: int
    best: float
    last: float
    told: bool = False


class Debounce:
    """What is being heard. One window after another, in order of time."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._recent: deque[Probabilities] = deque(maxlen=rule.smooth)
        self._runs: dict[int, _Run] = {}

    def hear(self, start: float, end: float, probability_C: Probabilities | None) -> list[Label]:
        """The window from `start` to `end` seconds; None: silence. Labels that go come before those that begin."""
        if probability_C is None:
            self._recent.clear()
            return self._over(end)
        self._recent.append(probability_C)
        smooth_C = self.smoothed()
        active = self._active(smooth_C)
        gone = self._over(end, active)
        begun = []
        for number in active:
            run = self._held(number, start, end, float(smooth_C[number]))
            if run.windows >= self.rule.hold and not run.told:
                begun.append(self._tell(number, run))
        return gone + begun

    def smoothed(self) -> Probabilities:
        """The mean over the last windows, (C,). There must have been one since the last silence."""
        return np.asarray(np.mean(self._recent, axis=0))

    def finish(self) -> list[Label]:
        """The stream is over: what its last window held is told, however short it held; then all are gone."""
        late = [number for number, run in self._runs.items() if not run.told]
        begun = [self._tell(number, self._runs[number]) for number in late]
        return begun + self._over(math.inf)

    def _active(self, smooth_C: Probabilities) -> list[int]:
        if self.rule.several:
            return [int(number) for number in np.flatnonzero(smooth_C >= self.rule.threshold)]
        best = int(smooth_C.argmax())
        return [best] if smooth_C[best] >= self.rule.threshold else []

    def _held(self, number: int, start: float, end: float, probability: float) -> _Run:
        """The run of a class with one more window."""
        run = self._runs.get(number)
        if run is None:
            run = self._runs[number] = _Run(start, end, 0, 0.0, 0.0)
        run.end, run.windows, run.last = end, run.windows + 1, probability
        run.best = max(run.best, probability)
        return run

    def _tell(self, number: int, run: _Run) -> Label:
        run.told = True
        return Label(number, True, run.start, run.end, run.last)

    def _over(self, now: float, active: list[int] | None = None) -> list[Label]:
        """End the runs of classes that are not active; those told stay for a while, in case they come back."""
        gone = []
        for number, run in list(self._runs.items()):
            if number in (active or ()):
                continue
            if not run.told or now - run.end > self.rule.gone - SLACK:
                del self._runs[number]
                if run.told:
                    gone.append(Label(number, False, run.start, run.end, run.best))
        return gone
