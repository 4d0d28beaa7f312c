"""One line of the result: ours, its peer's, their ratio; and what a measurement is given to work with."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from dist_train.bench.pair import Pair

ABSENT = "not installed"


@dataclass(frozen=True)
class Row:
    """`ratio` is how many times better ours is (over 1: ours is), with its spread `low` ... `high` over the pairs.

    None: not measured, and `note` says why. `goal` is the least ratio (or the least value of ours, where there is no
    peer) that is aimed at; `goal_most` the greatest. `more` holds values that have no column.
    """

    group: str
    name: str
    unit: str
    ours: float | None = None
    peer: str = ""
    version: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    goal_most: float | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none or nothing was measured."""
        value = self.ours if self.ratio is None and not self.peer else self.ratio
        if value is None or (self.goal is None and self.goal_most is None):
            return None
        return (self.goal is None or value >= self.goal) and (self.goal_most is None or value <= self.goal_most)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"reached": self.reached}


@dataclass(frozen=True)
class Work:
    """What a measurement is given: a folder for its data, how much, how often, with which allocator settings."""

    folder: Path
    quick: bool = False
    full: bool = False
    times: int = 9
    data: Path | None = None
    malloc: Literal["untuned", "tuned"] = "untuned"

    def size(self, full: int, quick: int) -> int:
        """How many of something."""
        return quick if self.quick else full

    @property
    def device(self) -> torch.device:
        """Where models and batched front ends run."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rate(group: str, name: str, pair: Pair, count: float, unit: str, **other: Any) -> Row:
    """A row of rates: `count` things were done in each of the pair's times."""
    return _row(group, name, pair, unit, lambda seconds: count / seconds, other)


def duration(group: str, name: str, pair: Pair, count: float, unit: str, **other: Any) -> Row:
    """A row of times for one of `count` things; `unit` begins with us, ms or s."""
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit.split(maxsplit=1)[0]]
    return _row(group, name, pair, unit, lambda seconds: seconds / count * scale, other)


def _row(group: str, name: str, pair: Pair, unit: str, convert: Any, other: dict[str, Any]) -> Row:
    values: dict[str, Any] = {
        "ours": None if pair.ours_seconds is None else convert(pair.ours_seconds),
        "peer_value": None if pair.peer_seconds is None else convert(pair.peer_seconds),
        "ratio": pair.ratio,
        "low": pair.low,
        "high": pair.high,
    }
    note = "; ".join(text for text in (pair.note, other.pop("note", "")) if text)
    if other.get("version") == ABSENT:
        note = "; ".join(text for text in (ABSENT, note) if text)
    return Row(group, name, unit, **values, note=note, **other)
