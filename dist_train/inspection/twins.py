"""Prints of many sounds -> pairs that sound alike.

    sketches (entry, row), sorted by entry --> rows with an equal entry --> pairs with two of them --> prints compared

What is kept of a sound is its sketch, at most 64 entries of 8 + 4 bytes; the prints of candidates are taken anew. An
entry that very many share (a hum, a beep) ties each row to the next one only, so that nothing grows with the square.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dist_train.inspection.prints import ALIKE, Print, distance

COMMON = 2  # entries that a pair shares
CROWD = 16  # rows of an entry, from where on only neighbours are paired
SLICES = 64  # of the entries: the pairs of one at a time are in memory
TOGETHER = 4096  # rows
CANDIDATES = 1 << 20  # at most; those with the most entries in common first

Pairs = NDArray[np.int64]


class Sketches:
    """Entries as they come, row by row; every so many rows are laid together, sorted by entry."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, NDArray[np.uint64]]] = []
        self.laid: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []

    def add(self, row: int, sketch: NDArray[np.uint64]) -> None:
        """Keep a sound's sketch."""
        self.waiting.append((row, sketch))
        if len(self.waiting) >= TOGETHER:
            self._lay()

    def _lay(self) -> None:
        if not self.waiting:
            return
        entries = np.concatenate([sketch for _, sketch in self.waiting])
        rows = np.repeat([row for row, _ in self.waiting], [len(sketch) for _, sketch in self.waiting])
        order = np.argsort(entries, kind="stable")
        self.laid.append((entries[order], rows[order].astype(np.int32)))
        self.waiting = []

    def candidates(self, apart: Callable[[Pairs], NDArray[np.bool_]]) -> Pairs:
        """(P, 2) pairs, smaller row first, that share COMMON entries and for which `apart` holds."""
        self._lay()
        coded = [_pairs(*self._slice(number), apart) for number in range(SLICES)]
        unique, count = np.unique(np.concatenate(coded), return_counts=True)
        often = count >= COMMON
        unique, count = unique[often], count[often]
        unique = np.sort(unique[np.argsort(-count, kind="stable")[:CANDIDATES]])
        return np.stack([unique >> 32, unique & 0xFFFFFFFF], axis=1)

    def _slice(self, number: int) -> tuple[NDArray[np.uint64], Pairs]:
        """Entries of one of SLICES equal ranges, sorted, and their rows."""
        low = np.uint64(number * (1 << 64) // SLICES)
        high = np.uint64((number + 1) * (1 << 64) // SLICES - 1)
        parts = []
        for entries, rows in self.laid:
            first, last = np.searchsorted(entries, low), np.searchsorted(entries, high, side="right")
            parts.append((entries[first:last], rows[first:last]))
        entries = np.concatenate([np.empty(0, np.uint64), *(part for part, _ in parts)])
        rows = np.concatenate([np.empty(0, np.int32), *(part for _, part in parts)])
        order = np.lexsort((rows, entries))
        return entries[order], rows[order].astype(np.int64)


def _pairs(entries: NDArray[np.uint64], rows: Pairs, apart: Callable[[Pairs], NDArray[np.bool_]]) -> Pairs:
    """Pairs, as one number each, of a sorted slice: step by step a row and the one so many places behind it."""
    starts = np.flatnonzero(np.diff(entries, prepend=entries[:1] ^ np.uint64(1)))
    sizes = np.diff(np.append(starts, len(entries)))
    crowd = np.repeat(sizes > CROWD, sizes)
    found = [np.empty(0, np.int64)]
    for step in range(1, CROWD):
        same = (entries[step:] == entries[:-step]) & ((step == 1) | ~crowd[step:])
        if not same.any():
            break
        pairs = np.stack([rows[:-step][same], rows[step:][same]], axis=1)
        pairs = pairs[apart(pairs)]
        found.append(pairs[:, 0] << 32 | pairs[:, 1])
    return np.concatenate(found)


def alike(pairs: Pairs, take: Callable[[int], Print], tick: Callable[[int, int], None]) -> Iterator[tuple[int, int]]:
    """The pairs whose prints agree; take(row): its print, taken anew, asked for row by row in order."""
    print_of = lru_cache(maxsize=512)(take)
    for done, (one, other) in enumerate(pairs.tolist(), 1):
        if distance(print_of(one), print_of(other))[0] <= ALIKE:
            yield one, other
        tick(done, len(pairs))
