"""Two ways to do one thing -> paired times. They take turns, so that what the machine does besides meets both.

warm-up each, then  ours peer | ours peer | ours peer ...   ratio = median over the pairs of peer / ours
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Side = Callable[[], Any]


@dataclass(frozen=True)
class Pair:
    """Seconds of each turn; a side that is absent or failed has none, and `note` says why it failed."""

    ours: tuple[float, ...] = ()
    peer: tuple[float, ...] = ()
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """peer / ours of each pair."""
        return tuple(peer / ours for ours, peer in zip(self.ours, self.peer, strict=False))

    @property
    def ratio(self) -> float | None:
        """Median of the paired ratios: how many times faster ours is."""
        return median(self.ratios)

    @property
    def low(self) -> float | None:
        return min(self.ratios, default=None)

    @property
    def high(self) -> float | None:
        return max(self.ratios, default=None)

    @property
    def ours_seconds(self) -> float | None:
        return median(self.ours)

    @property
    def peer_seconds(self) -> float | None:
        return median(self.peer)


def median(values: Sequence[float]) -> float | None:
    """Of no value: None."""
    return statistics.median(values) if values else None


def paired(ours: Side | None, peer: Side | None, times: int) -> Pair:
    """Both sides in turns, `times` each after a warm-up; a side may return its own seconds, else its call is timed."""
    sides: list[Side | None] = [ours, peer]
    notes = []
    for number, label in enumerate(("ours", "peer")):
        side = sides[number]
        if side is None:
            continue
        try:
            seconds(side)
        except Exception as error:  # a side that cannot run is a finding, not the end of the run
            notes.append(f"{label}: {reason(error)}")
            sides[number] = None
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for side, times_of in zip(sides, found, strict=True):
            if side is not None:
                times_of.append(seconds(side))
    return Pair(tuple(found[0]), tuple(found[1]), "; ".join(notes))


def seconds(side: Side) -> float:
    """What one call took, the device's work included; or what it says itself (a float)."""
    _settle()
    begun = time.perf_counter()
    said = side()
    _settle()
    return said if isinstance(said, float) else time.perf_counter() - begun


def reason(error: BaseException) -> str:
    """An error in one short line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def _settle() -> None:
    """Wait for the GPU if one is in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
