"""Folds, splits and a shortest length -> which rows of the joined sets are chosen, looked through in passes.

In: the sets and the choices of `view.choose`. Out: a Subset, a bit a row; nothing here holds more than a pass of rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.archive.row import SPLITS
from dist_train.shards import ShardSet
from dist_train.subset import BLOCK, Subset

Ids = NDArray[np.int64]
PASS = BLOCK << 14  # rows looked through at once, 64 MB of the index


def pick(sets: Sequence[ShardSet], starts: Ids, choices: dict[str, Any]) -> tuple[Subset | None, int]:
    """The joined rows that are chosen (None: all), and how many min_seconds left out; unasked, no row is looked at."""
    asked_for = ("without_folds", "split", "without_splits", "min_seconds")
    if choices["folds"] is None and not any(choices[name] for name in asked_for):
        return None, 0
    if choices["folds"]:
        _check_folds(sets, choices["folds"])
    total, left_out = int(starts[-1]), 0

    def masks() -> Iterator[NDArray[np.bool_]]:
        nonlocal left_out
        for begin in range(0, total, PASS):
            parts = []
            for rows in _joined_rows(sets, starts, begin, min(begin + PASS, total)):
                asked, enough = _asked(rows, choices), rows["frames"] >= choices["min_seconds"] * rows["rate"]
                left_out += int((asked & ~enough).sum())
                parts.append(asked & enough)
            yield np.concatenate(parts)

    picked = Subset(total, masks())
    return (None if len(picked) == total else picked), left_out


def _joined_rows(sets: Sequence[ShardSet], starts: Ids, begin: int, end: int) -> Iterator[NDArray[np.void]]:
    """The joined rows [begin, end), set by set."""
    for one, start in zip(sets, starts.tolist(), strict=False):
        if start < end and start + len(one) > begin:
            yield one.rows[max(begin - start, 0) : end - start]


def _asked(rows: NDArray[np.void], choices: dict[str, Any]) -> NDArray[np.bool_]:
    """Which rows of a set the folds and splits ask for."""
    mask = np.ones(len(rows), np.bool_)
    if choices["folds"] is not None:
        mask &= np.isin(rows["fold"], choices["folds"])
    if choices["without_folds"]:
        mask &= ~np.isin(rows["fold"], choices["without_folds"])
    if choices["split"] is not None:
        mask &= rows["split"] == _split(choices["split"])
    if choices["without_splits"]:
        mask &= ~np.isin(rows["split"], [_split(name) for name in choices["without_splits"]])
    return mask


def _check_folds(sets: Sequence[ShardSet], folds: Sequence[int]) -> None:
    chunks = (one.rows["fold"][begin : begin + PASS] for one in sets for begin in range(0, len(one), PASS))
    there = {fold for chunk in chunks for fold in np.unique(chunk).tolist()}
    if missing := sorted(set(folds) - there):
        have = ", ".join(str(fold) for fold in sorted(there) if fold >= 0) or "none"
        raise ValueError(f"{roots(sets)}: no sample is in fold {missing[0]}; the folds there: {have}")


def _split(name: str) -> int:
    if name not in SPLITS:
        raise ValueError(f"split {name!r}: there are {', '.join(SPLITS)}")
    return SPLITS[name]


def roots(sets: Sequence[ShardSet]) -> str:
    """Where the sets lie, for messages."""
    return ", ".join(str(one.root) for one in sets)


def said(choices: dict[str, Any]) -> str:
    """What was chosen, for messages."""
    return ", ".join(f"{name}={value}" for name, value in choices.items() if name != "classes" and value)
