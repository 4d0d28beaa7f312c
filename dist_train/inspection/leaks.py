"""A ledger and a division -> the leaks: samples in different parts that belong together, and whom they help.

group, recording, bytes    equal numbers in the ledger: one leak a group, with all its samples
overlap                    cuts of one recording that share time: one leak a pair
sound                      near-duplicates that `twins` heard: one leak a pair
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.inspection.division import Division
from dist_train.inspection.ledger import Ledger, Numbers

KINDS = ("group", "recording", "bytes", "overlap", "sound")
SLACK = 1e-3  # seconds: cuts that touch, or whose bounds were rounded, share nothing

Pairs = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Leak:
    """Rows in more than one part; name: the group, or how much time; empty where the kind says it."""

    kind: str
    name: str
    rows: Numbers


def find(ledger: Ledger, division: Division, heard: Pairs | None = None) -> list[Leak]:
    """All leaks of a division; heard: (pairs, 2) rows that sound alike."""
    found = [Leak("group", ledger.group_name(int(rows[0])), rows) for rows in spanning(ledger.group, division.part)]
    # Where the group is the recording, it is told once.
    if not same(ledger.group, ledger.recording):
        found += [Leak("recording", "", rows) for rows in spanning(ledger.recording, division.part)]
    found += [Leak("bytes", "", rows) for rows in spanning(ledger.digest, division.part)]
    found += [Leak("overlap", _shared(ledger, pair), pair) for pair in overlapping(ledger, division.part)]
    if heard is not None:
        apart = heard[division.part[heard[:, 0]] != division.part[heard[:, 1]]]
        found += [Leak("sound", "", pair) for pair in apart]
    return found


def same(one: Numbers, other: Numbers) -> bool:
    """Whether two columns tie the same samples together."""
    pairs = np.unique(np.stack([one, other]), axis=1)
    return bool(len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1])


def spanning(code: Numbers, part: Numbers) -> list[Numbers]:
    """The rows of each number (-1: none) that is in more than one part, in order."""
    rows = np.flatnonzero(code >= 0)
    rows = rows[np.lexsort((rows, code[rows]))]
    if not len(rows):
        return []
    starts = np.flatnonzero(np.diff(code[rows], prepend=-1))
    least, most = np.minimum.reduceat(part[rows], starts), np.maximum.reduceat(part[rows], starts)
    ends = np.append(starts[1:], len(rows))
    return [rows[starts[number] : ends[number]] for number in np.flatnonzero(least != most)]


def overlapping(ledger: Ledger, part: Numbers) -> list[Pairs]:
    """Pairs of rows of one recording in different parts that share time; a row that has such a partner is in one."""
    pairs = set[tuple[int, int]]()
    for rows in spanning(ledger.recording, part):
        forward = rows[np.argsort(ledger.start[rows], kind="stable")].tolist()
        pairs |= set(_sweep(forward, part, ledger.start, ledger.end))
        # From the last on: each sample's partner that begins after it.
        pairs |= {(row, other) for other, row in _sweep(forward[::-1], part, -ledger.end, -ledger.start)}
    unique = {(min(pair), max(pair)) for pair in pairs}
    return [np.array(pair, np.int64) for pair in sorted(unique)]


def _sweep(
    rows: list[int], part: Numbers, bound: NDArray[np.float64], reach: NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """(best, row): of the rows before it, in other parts, the one that reaches farthest, if past the row's bound."""
    farthest: dict[int, int] = {}  # part -> its row that reaches farthest; the two best parts are enough
    for row in rows:
        own = int(part[row])
        others = [other for key, other in farthest.items() if key != own]
        best = max(others, key=lambda other: reach[other], default=None)
        if best is not None and reach[best] > bound[row] + SLACK:
            yield best, row
        if own not in farthest or reach[row] > reach[farthest[own]]:
            farthest[own] = row
            if len(farthest) > 2:
                del farthest[min(farthest, key=lambda key: reach[farthest[key]])]


def _shared(ledger: Ledger, pair: Pairs) -> str:
    first, last = ledger.start[pair].max(), ledger.end[pair].min()
    return f"{last - first:.2f} s in common" if np.isfinite(last) else "the whole recording in common"


def exposed(ledger: Ledger, division: Division, leaks: Iterable[Leak]) -> dict[str, NDArray[np.bool_]]:
    """Kind -> (N,) whether a tested sample has such a relative in what trains when it is tested."""
    found = {kind: np.zeros(len(ledger), np.bool_) for kind in KINDS}
    trained = {part: division.trains(part) for part in division.tested}
    for leak in leaks:
        parts = division.part[leak.rows]
        for part in set(parts.tolist()) & trained.keys():
            if trained[part][leak.rows].any():
                found[leak.kind][leak.rows[parts == part]] = True
    return found
