"""Some of N rows, and how often each is there, in a fraction of the memory of their numbers: a bit a row, and counts.

Subset    place among the chosen -> row: a bit a row and a count before every 64 rows, N / 4 bytes in all
Repeats   number with repeats -> place: a byte a place (wider where one is there more than 255 times)

Both look a number up by bisection among blocks of 64 and by counting inside one.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
BLOCK = 64
_AT_ONCE = 1 << 16  # numbers looked up at once: each takes a block of memory for the moment


class Subset:
    """The chosen rows, in order."""

    def __init__(self, total: int, masks: Iterable[NDArray[np.bool_]]) -> None:
        """`masks`: which of `total` rows are chosen, end to end; all but the last of a multiple of 64 rows."""
        packed = np.zeros(-(-total // BLOCK) * 8, np.uint8)
        begin = 0
        for mask in masks:
            bits = np.packbits(mask, bitorder="little")
            packed[begin : begin + len(bits)] = bits
            begin += len(bits)
        self.words = packed.view("<u8")
        self.before = np.zeros(len(self.words) + 1, np.int64)
        np.cumsum(np.bitwise_count(self.words), out=self.before[1:])

    def __len__(self) -> int:
        return int(self.before[-1])

    def rows(self, places: Ids) -> Ids:
        """(n,) rows of (n,) places among the chosen."""
        return _by_portions(self._rows, places)

    def _rows(self, places: Ids) -> Ids:
        word = np.searchsorted(self.before, places, "right") - 1
        bits = np.unpackbits(self.words[word].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        inside = (np.cumsum(bits, axis=1, dtype=np.uint8) <= (places - self.before[word])[:, None]).sum(1)
        return np.asarray(word * BLOCK + inside, np.int64)

    def below(self, rows: Ids) -> Ids:
        """(n,) how many of the chosen come before each of (n,) rows; a row may be the end."""
        word, bit = rows // BLOCK, (rows % BLOCK).astype(np.uint64)
        part = np.append(self.words, np.uint64(0))[word] & ((np.uint64(1) << bit) - np.uint64(1))
        return np.asarray(self.before[word] + np.bitwise_count(part), np.int64)

    def inside(self, begin: int, end: int) -> Ids:
        """The chosen rows in [begin, end)."""
        first = begin // BLOCK
        bits = np.unpackbits(self.words[first : -(-end // BLOCK)].view(np.uint8), bitorder="little")
        return np.flatnonzero(bits[begin - first * BLOCK : end - first * BLOCK]) + begin


class Repeats:
    """Places that are there once or more, side by side."""

    def __init__(self, places: int, times: Iterable[NDArray[np.int64]], most: int) -> None:
        """`times`: how often each of `places` is there, end to end, at least 1 and at most `most`."""
        self.times = np.zeros(-(-places // BLOCK) * BLOCK, np.min_scalar_type(most))
        begin = 0
        for some in times:
            self.times[begin : begin + len(some)] = some
            begin += len(some)
        self.before = np.zeros(len(self.times) // BLOCK + 1, np.int64)
        np.cumsum(self.times.reshape(-1, BLOCK).sum(1, dtype=np.int64), out=self.before[1:])

    def __len__(self) -> int:
        return int(self.before[-1])

    def places(self, numbers: Ids) -> Ids:
        """(n,) the places of (n,) numbers."""
        return _by_portions(self._places, numbers)

    def _places(self, numbers: Ids) -> Ids:
        block = np.searchsorted(self.before, numbers, "right") - 1
        ends = np.cumsum(self.times.reshape(-1, BLOCK)[block], axis=1, dtype=np.int64)
        inside = (ends <= (numbers - self.before[block])[:, None]).sum(1)
        return np.asarray(block * BLOCK + inside, np.int64)

    def below(self, places: Ids) -> Ids:
        """(n,) how many numbers come before each of (n,) places; a place may be the end."""
        block = places // BLOCK
        parts = [
            self.times[start * BLOCK : place].sum(dtype=np.int64) for start, place in zip(block, places, strict=True)
        ]
        return np.asarray(self.before[block] + np.array(parts, np.int64), np.int64)


def _by_portions(look_up: Callable[[Ids], Ids], numbers: Ids) -> Ids:
    parts = [look_up(numbers[begin : begin + _AT_ONCE]) for begin in range(0, len(numbers), _AT_ONCE)]
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])
