"""An order and who takes which groups of a step -> the shards that a rank reads, from when to when, and how much.

In: order.Order, where the run stands, the batch size, the rank and its host's ranks. Out: stops, one for each window of
a lane that the rank reads a part of. Pure arithmetic, as the order is.

    position   |.......................|...................|......
    lane 0     |---- stop ----|---------- stop ------------|        a rank's stops lie in its own lanes and, where a
    lane 1     (another rank's)                                     step's groups straddle two, in one more
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.order import Line, Order, group_bounds, rank_groups

Span = tuple[int, int]  # begin and end inside of a step


@dataclass(frozen=True)
class Stop:
    """A window of a lane.

    begin, end: position of its first sample, and the one behind its last
    shares: by the number of each of its shards, how much of the shard the rank's host reads in this epoch, 0 to 1
    """

    begin: int
    end: int
    shares: dict[int, float]


class Route:
    """What a rank reads from position `consumed` to `total` in steps of `batch_size`."""

    def __init__(
        self, order: Order, consumed: int, total: int, batch_size: int, rank: int, host: range, world: int
    ) -> None:
        """`host`: the ranks of this one's host."""
        self.order, self.consumed, self.total, self.batch_size = order, consumed, total, batch_size
        bounds = group_bounds(batch_size, order.micro_batch).tolist()
        mine, theirs = (
            [rank_groups(len(bounds) - 1, one, world) for one in (some.start, some.stop - 1)]
            for some in (range(rank, rank + 1), host)
        )
        self.mine: Span = bounds[mine[0].start], bounds[mine[1].stop]
        self.host: Span = bounds[theirs[0].start], bounds[theirs[1].stop]
        firsts = np.cumsum(order.sizes) - order.sizes
        # closures over values, not over self: no cycle keeps them alive
        self._numbers: Any = lru_cache(maxsize=2)(
            lambda epoch: np.searchsorted(firsts, order.line(epoch).first, side="right") - 1
        )

    def stops(self, lane: int) -> Iterator[Stop]:
        """The windows of a lane that the rank reads a part of, from `consumed` on, epoch after epoch."""
        samples = len(self.order)
        for epoch in range(self.consumed // samples, -(-self.total // samples)):
            line = self.order.line(epoch)
            for low, high in itertools.pairwise(line.windows[lane]):
                begin, end = self.order.positions(epoch, lane, np.array([low, high - 1])).tolist()
                if end >= self.consumed and begin < self.total and self._read(epoch, lane, low, high, self.mine):
                    yield Stop(begin, end + 1, self._shares(line, epoch, lane, low, high))

    def _shares(self, line: Line, epoch: int, lane: int, low: int, high: int) -> dict[int, float]:
        first, last = (int(one) for one in np.searchsorted(line.bounds, (low, high - 1), side="right") - (1, 0))
        numbers: list[int] = self._numbers(epoch)[first:last].tolist()
        shares = dict.fromkeys(numbers, self._read(epoch, lane, low, high, self.host) / (high - low))
        for place in {first, last - 1}:  # a lane's end may cut these
            shares[numbers[place - first]] = self._whole(line, epoch, place)
        return shares

    def _whole(self, line: Line, epoch: int, place: int) -> float:
        """The host's share of the line's shard number `place`, over all windows that have a part of it."""
        begin, end = int(line.bounds[place]), int(line.bounds[place + 1])
        read = 0.0
        for lane, cuts in enumerate(line.windows):
            if cuts[-1] > begin and cuts[0] < end:
                for low, high in itertools.pairwise(cuts):
                    overlap = min(high, end) - max(low, begin)
                    if overlap > 0:
                        read += overlap * self._read(epoch, lane, low, high, self.host) / (high - low)
        return read / (end - begin)

    def _read(self, epoch: int, lane: int, low: int, high: int, span: Span) -> int:
        """How many of the line's places [low, high), which lie in one lane, go to a span of each step."""
        start, block = self.order.line(epoch).windows[lane][0], self.order.micro_batch
        # pieces of neighbouring places that are neighbouring positions: blocks in the rounds, then all that is left
        rounds = start + self.order.rounds * block
        edges = np.arange(low - (low - start) % block, min(high, rounds) + 1, block)
        places = np.unique(np.concatenate([edges, (low, high, min(max(rounds, low), high))]).clip(low, high))
        begins = self.order.positions(epoch, lane, places[:-1])
        return int((self._before(begins + np.diff(places), span) - self._before(begins, span)).sum())

    def _before(self, positions: NDArray[np.int64], span: Span) -> NDArray[np.int64]:
        """How many positions before each go to a span of each step."""
        steps, inside = np.divmod(positions.clip(self.consumed, self.total) - self.consumed, self.batch_size)
        return np.asarray(steps * (span[1] - span[0]) + (inside - span[0]).clip(0, span[1] - span[0]))
