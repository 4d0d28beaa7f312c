"""A long recording -> what is heard when: overlapping windows, averaged where they overlap, cut into segments.

    blocks of int16 --windows of the training length, one each hop--> probabilities --overlap average--> cells
    --smoothing--> --hysteresis, minimum duration--> Timeline

Sound is read by the block: an hour takes no more of it in memory than a minute.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from dist_train.inference import segments
from dist_train.inference.prediction import UNKNOWN

SMOOTHINGS = ("median", "exponential", "none")


@dataclass(frozen=True)
class Segment:
    """start, end: seconds; label: a class, or `unknown` where `known` is False; probability: its mean there."""

    start: float
    end: float
    label: str
    probability: float
    known: bool = True

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return vars(self).copy()


@dataclass(frozen=True, eq=False)
class Timeline:
    """Segments of a sound in the order of their starts; where nothing at all is heard (digital silence) there is none.

    probabilities: (K, C), smoothed, of K cells of `hop` seconds from the start on (the last may be shorter); NaN where
    nothing is heard. seconds: length of the sound.
    """

    source: str
    seconds: float
    segments: tuple[Segment, ...]
    classes: tuple[str, ...]
    hop: float
    probabilities: NDArray[np.float64]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = [segment.record() for segment in self.segments]
        return {"source": self.source, "seconds": self.seconds, "segments": found}


class Options(TypedDict, total=False):
    """What `Model.timeline` takes; see there."""

    hop: float | None
    smooth: str
    span: float | None
    threshold: float | None
    hysteresis: float
    min_duration: float


@dataclass(frozen=True)
class Way:
    """How windows become segments; `size` and `step` in samples at `rate` Hz, times in seconds. `threshold` None: every
    label is known."""

    rate: int
    size: int
    hop: float | None = None
    smooth: str = "median"
    span: float | None = None
    threshold: float | None = None
    hysteresis: float = 0.1
    min_duration: float = 0.0

    @property
    def step(self) -> int:
        """Between the starts of two windows."""
        return max(1, self.size // 4) if self.hop is None else round(self.hop * self.rate)

    @property
    def cell(self) -> float:
        """Seconds of a cell."""
        return self.step / self.rate

    @property
    def width(self) -> float:
        """Cells that smoothing spans."""
        return 3.0 if self.span is None else self.span / self.cell

    @property
    def least(self) -> int:
        """Cells of a segment, at least."""
        return max(1, int(np.ceil(self.min_duration / self.cell - 1e-9)))

    def __post_init__(self) -> None:
        if not (self.hop is None or np.isfinite(self.hop)) or not 0 < self.step <= self.size:
            seconds = self.size / self.rate
            raise ValueError(f"hop={self.hop:g} s: give a hop over 0, up to the window of {seconds:g} s")
        if self.smooth not in SMOOTHINGS:
            raise ValueError(f"smooth={self.smooth!r}: is none of {', '.join(SMOOTHINGS)}")
        for name in ("span", "hysteresis", "min_duration"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < np.inf:
                raise ValueError(f"{name}={value:g}: give a number from 0 up")


def windows(blocks: Iterable[NDArray[np.int16]], size: int, hop: int) -> Iterator[tuple[int, NDArray[np.int16]]]:
    """(start, samples (size, C)) one each `hop` samples, and one that ends where the sound ends.

    Of a sound shorter than `size` itself, alone.
    """
    kept, base, start = np.zeros((0, 0), np.int16), 0, 0
    for block in blocks:
        kept = np.concatenate([kept, block]) if len(kept) else block
        while start + size <= base + len(kept):
            yield start, kept[start - base : start - base + size]
            start += hop
        free = min(start, base + len(kept) - size) - base
        if free > 0:
            kept, base = kept[free:], base + free
    end = base + len(kept)
    if not start or start - hop + size < end:
        yield max(0, end - size), kept[-size:]


def groups(found: Iterable[tuple[int, NDArray[np.int16]]], size: int) -> Iterator[list[tuple[int, NDArray[np.int16]]]]:
    """In lists of `size`, the last perhaps shorter."""
    iterator = iter(found)
    while group := list(itertools.islice(iterator, size)):
        yield group


class Cells:
    """Probabilities of windows, averaged on a grid: of each cell over the windows that reach into it, by how much of it
    they cover; silent windows do not count, as in evaluation."""

    def __init__(self, hop: int, classes: int) -> None:
        self.hop, self.end = hop, 0
        self.sums_KC, self.weights_K = np.zeros((64, classes)), np.zeros(64)

    def add(self, start: int, size: int, heard: bool, probability_C: NDArray[np.float64]) -> None:
        """A window [start, start + size)."""
        stop = start + size
        self.end = max(self.end, stop)
        first, last = start // self.hop, -(-stop // self.hop)
        if last > len(self.weights_K):
            more = max(last, 2 * len(self.weights_K)) - len(self.weights_K)
            self.sums_KC = np.concatenate([self.sums_KC, np.zeros((more, self.sums_KC.shape[1]))])
            self.weights_K = np.concatenate([self.weights_K, np.zeros(more)])
        if heard:
            edges = np.clip(np.arange(first, last + 1) * self.hop, start, stop)
            weight_K = np.diff(edges).astype(np.float64)
            self.sums_KC[first:last] += weight_K[:, None] * probability_C
            self.weights_K[first:last] += weight_K

    def mean(self, samples: int) -> NDArray[np.float64]:
        """(K, C) of the cells of the first `samples` samples; NaN where no window was heard."""
        count = -(-min(samples, self.end) // self.hop)
        weight_K1 = self.weights_K[:count, None]
        return np.where(weight_K1 > 0, self.sums_KC[:count] / np.maximum(weight_K1, 1), np.nan)


def drawn(
    source: str,
    seconds: float,
    cells_KC: NDArray[np.float64],
    classes: tuple[str, ...],
    several: bool,
    way: Way,
) -> Timeline:
    """The timeline of cells."""
    cells_KC = segments.smoothed(cells_KC, way.smooth, way.width)
    if several:
        assert way.threshold is not None, "a model of several labels always has one"
        runs = segments.several(cells_KC, way.threshold, way.hysteresis, way.least)
    else:
        runs = segments.single(cells_KC, way.threshold, way.hysteresis, way.least)
    found = []
    for run in runs:
        end = seconds if run.last == len(cells_KC) else run.last * way.cell
        known = run.label != segments.UNKNOWN
        label = classes[run.label] if known else UNKNOWN
        found.append(Segment(run.first * way.cell, end, label, run.probability, known))
    return Timeline(source, seconds, tuple(found), classes, way.cell, cells_KC)
