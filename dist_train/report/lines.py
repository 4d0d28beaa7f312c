"""metrics.jsonl -> columns of numbers: one table of the training's lines, one of each set that was scored.

A line that is no JSON object is passed over: a killed run may leave half of one.
"""

import json
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Table = dict[str, Floats]
_LEFT_OUT = {"kind", "stream", "rank_seconds"}


@dataclass(frozen=True)
class Lines:
    """Columns by name, all of a table equally long, NaN where a line has no such number. `scored`: tables by set."""

    train: Table = field(default_factory=dict)
    scored: dict[str, Table] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the training took by its own figures, without evaluations."""
        if not {"consumed", "clips_per_second"} <= self.train.keys():
            return 0.0
        clips, rate = np.diff(self.train["consumed"], prepend=0.0), self.train["clips_per_second"]
        good = (rate > 0) & (clips > 0)
        return float((clips[good] / rate[good]).sum())


def read(path: Path) -> Lines:
    """The lines of a run; empty tables where there are none yet."""
    tables: dict[str, dict[str, array[float]]] = defaultdict(dict)
    lengths: dict[str, int] = defaultdict(int)
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                _add(line, tables, lengths)
    made = {kind: {name: _padded(column, lengths[kind]) for name, column in tables[kind].items()} for kind in tables}
    return Lines(made.pop("train", {}), made)


def _add(line: bytes, tables: dict[str, dict[str, "array[float]"]], lengths: dict[str, int]) -> None:
    try:
        record = json.loads(line)
        kind = str(record["kind"])
        values = {name: float(value) for name, value in record.items() if _number(name, value)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    table, count = tables[kind], lengths[kind]
    for name, value in values.items():
        column = table.setdefault(name, array("d"))
        column.extend([np.nan] * (count - len(column)))
        column.append(value)
    lengths[kind] = count + 1


def _number(name: str, value: object) -> bool:
    return name not in _LEFT_OUT and isinstance(value, int | float) and not isinstance(value, bool)


def _padded(column: "array[float]", length: int) -> Floats:
    return np.array([*column, *[np.nan] * (length - len(column))], np.float64)
