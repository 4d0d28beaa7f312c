"""position -> sample: the order of training as pure arithmetic, a rank's share of it, and random numbers by position.

In: the sample counts of a view's shards and a few numbers (seed, lanes, window, micro_batch).
Out: for any position of one infinite stream the id of the sample that lies there; the groups of a step and the rank
they go to; uniform draws keyed by (seed, position, operation).

    position = epoch * N + offset
    line     the epoch's shards, shuffled, end to end      |--s7--|-s2-|---s0---|--s5--|-s1-|---s4---|
    lanes    the line cut in L equal parts                 |------ lane 0 -----|------- lane 1 ------|
    windows  runs of whole shards, each shuffled           |-- w0 --|--- w1 ---|---- w0 ---|-- w1 ---|
    offset   walks the lanes in turn, micro_batch samples at a time

Nothing here depends on ranks, threads or batch size, and no library's random generator is asked: the same numbers give
the same order on every machine and under every version. docs/order.md has the proof and the measured costs.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
UNMIX = tuple((shift, pow(factor, -1, 2**64)) for shift, factor in reversed(MIX))


def mix64(x: NDArray[np.uint64], key: int = 0) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 on `x + (key + 1) * golden` mod 2^64: a bijection of 64-bit numbers for every key.

    `mix64(0)` is the first output of splitmix64 with seed 0. Returns a new array of x's shape. Source: Steele, Lea and
    Flood, "Fast splittable pseudorandom number generators" (2014), with Stafford's constants (variant 13).
    """
    z = np.add(x, np.uint64((key + 1) * GOLDEN & MASK), dtype=np.uint64)
    spare = np.empty_like(z)
    for shift, factor in MIX:
        z ^= np.right_shift(z, np.uint64(shift), out=spare)
        z *= np.uint64(factor)
    z ^= np.right_shift(z, np.uint64(LAST_SHIFT), out=spare)
    return z


def unmix64(z: NDArray[np.uint64], key: int = 0) -> NDArray[np.uint64]:
    """The inverse of `mix64` under the same key; overwrites and returns z."""
    spare = np.empty_like(z)
    _unshift(z, LAST_SHIFT, spare)
    for shift, inverse in UNMIX:
        z *= np.uint64(inverse)
        _unshift(z, shift, spare)
    z -= np.uint64((key + 1) * GOLDEN & MASK)
    return z


def _unshift(z: NDArray[np.uint64], shift: int, spare: NDArray[np.uint64]) -> None:
    """Undo `z ^= z >> shift` in place: (1 + s)(1 + s)(1 + s^2) = 1 over GF(2), as s^4 shifts all 64 bits out."""
    z ^= np.right_shift(z, np.uint64(shift), out=spare)
    z ^= np.right_shift(z, np.uint64(2 * shift), out=spare)


def key(seed: int, *parts: int) -> int:
    """A 64-bit key from numbers: each part is mixed under the key of those before it. Negative parts count mod 2^64."""
    mixed = 0
    for part in (seed, *parts):
        mixed = int(mix64(np.array([part & MASK], dtype=np.uint64), mixed)[0])
    return mixed


def uniform(seed: int, positions: NDArray[np.int64], operation: str) -> NDArray[np.float32]:
    """One draw from [0, 1) for each position, the top 24 bits of `mix64` times 2^-24, so exact in float32.

    A draw depends on seed, position and the operation's name only: not on rank, thread or batch.
    """
    draws = mix64(_unsigned(positions), key(seed, _name_hash(operation)))
    return (draws >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


@lru_cache(maxsize=256)
def _name_hash(name: str) -> int:
    """FNV-1a, 64 bits. Python's own `hash` of a string differs between processes."""
    mixed = 0xCBF29CE484222325
    for byte in name.encode():
        mixed = (mixed ^ byte) * 0x100000001B3 & MASK
    return mixed


def _unsigned(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(numbers, dtype=np.int64).view(np.uint64)


def shuffle(ids: NDArray[np.int64], key: int) -> NDArray[np.int64]:
    """Distinct ids in the order of their `mix64`: equal to `ids[argsort(mix64(ids, key))]`.

    `mix64` is a bijection, so there are no ties and every sort gives this order; and the sorted values can be turned
    back into ids, which spares the argsort.
    """
    mixed = mix64(_unsigned(ids), key)
    mixed.sort()
    return unmix64(mixed, key).view(np.int64)


@dataclass(frozen=True)
class Line:
    """One epoch's shards end to end: `ids[i]` is the first id of the i-th shard, which begins at `bounds[i]`."""

    first: NDArray[np.int64]
    bounds: NDArray[np.int64]
    windows: tuple[list[int], ...]  # for each lane the line offsets where its windows begin, and the lane's end

    def span(self, begin: int, end: int) -> NDArray[np.int64]:
        """The ids at the line's offsets [begin, end), shard by shard."""
        low, high = np.searchsorted(self.bounds, (begin, end - 1), side="right") - (1, 0)
        edges = np.clip(self.bounds[low : high + 1], begin, end)
        shift = self.first[low:high] - self.bounds[low:high]
        return np.arange(begin, end) + np.repeat(shift, np.diff(edges))


def lay_out(sizes: NDArray[np.int64], seed: int, lanes: int, window: int, epoch: int) -> Line:
    """The line of an epoch: shards permuted, cut in lanes, each lane cut in windows of whole shards."""
    shards = shuffle(np.arange(len(sizes)), key(seed, epoch, 1))
    first = (np.cumsum(sizes) - sizes)[shards]
    bounds = np.concatenate(([0], np.cumsum(sizes[shards])))
    total, edges = int(bounds[-1]), bounds.tolist()
    windows = tuple(_windows(edges, begin, end, window) for begin, end in pairwise(lane_cuts(total, lanes)))
    return Line(first, bounds, windows)


def lane_cuts(total: int, lanes: int) -> list[int]:
    """The line's offsets where lanes begin, and its end."""
    return [total * lane // lanes for lane in range(lanes + 1)]


def _windows(edges: list[int], begin: int, end: int, window: int) -> list[int]:
    """Cut [begin, end) at shard edges in runs of at least `window` samples; a runt joins the run before it."""
    cuts = [begin]
    while cuts[-1] + window <= end:
        cuts.append(min(edges[bisect_left(edges, cuts[-1] + window)], end))
    if len(cuts) == 1:
        return [begin, end]
    cuts[-1] = end
    return cuts


def _shuffled(line: Callable[[int], Line], seed: int, epoch: int, lane: int, window: int) -> NDArray[np.int64]:
    """The ids of a window in their shuffled order."""
    span = line(epoch)
    ids = span.span(*span.windows[lane][window : window + 2])
    return shuffle(ids, key(seed, epoch, 2, lane, window))


@dataclass(frozen=True, eq=False)
class Order:
    """The infinite stream of sample ids over a view of N = sum(sizes) samples in shards of `sizes` samples.

    lanes        parts of the line that are walked side by side
    window       samples, at least, that are shuffled together
    micro_batch  samples that are taken from a lane before the next lane's turn

    `ids` may be called from several threads. The memory is that of `lanes` + 2 windows (8 bytes a sample) and of the
    shards of two epochs.
    """

    sizes: NDArray[np.int64]
    seed: int
    lanes: int = 1
    window: int = 2**20
    micro_batch: int = 32
    _cuts: list[int] = field(init=False, repr=False)
    _line: Callable[[int], Line] = field(init=False, repr=False)
    _window: Callable[[int, int, int], NDArray[np.int64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = np.array(self.sizes, dtype=np.int64)
        sizes.setflags(write=False)
        assert sizes.ndim == 1 and sizes.sum() > 0 and sizes.min() >= 0, "a view has samples"
        assert min(self.lanes, self.window, self.micro_batch) >= 1
        # The caches are closures over plain values, not over self: no reference cycle keeps windows alive.
        line = lru_cache(maxsize=2)(partial(lay_out, sizes, self.seed, self.lanes, self.window))
        shuffled = lru_cache(maxsize=self.lanes + 2)(partial(_shuffled, line, self.seed))
        cuts = lane_cuts(int(sizes.sum()), self.lanes)
        for name, value in (("sizes", sizes), ("_cuts", cuts), ("_line", line), ("_window", shuffled)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Samples an epoch, N."""
        return self._cuts[-1]

    def ids(self, position: int, count: int) -> NDArray[np.int64]:
        """The ids (int64, `count` of them) at positions [position, position + count), across epochs if need be."""
        assert position >= 0 and count >= 0
        total, stop, pieces = len(self), position + count, [np.empty(0, dtype=np.int64)]
        while position < stop:
            epoch, offset = divmod(position, total)
            lane, at, run = self._walk(offset)
            cuts = self._line(epoch).windows[lane]
            window = bisect_right(cuts, at) - 1
            run = min(run, cuts[window + 1] - at, stop - position)
            begin = at - cuts[window]
            pieces.append(self._window(epoch, lane, window)[begin : begin + run])
            position += run
        return np.concatenate(pieces)

    def line(self, epoch: int) -> Line:
        """The shards of an epoch, lanes and windows."""
        return self._line(epoch)

    @property
    def rounds(self) -> int:
        """Full turns through all lanes in an epoch; one lane needs none: all of it is what it has left."""
        return len(self) // self.lanes // self.micro_batch if self.lanes > 1 else 0

    def positions(self, epoch: int, lane: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where places of the line, all in one lane, come in the stream: the inverse of what `ids` walks."""
        block, rounds = self.micro_batch, self.rounds
        turn, inside = np.divmod(places - self._cuts[lane], block)
        after = places + (self.lanes - lane - 1) * rounds * block  # behind the rounds and what earlier lanes had left
        return epoch * len(self) + np.where(turn < rounds, (turn * self.lanes + lane) * block + inside, after)

    def _walk(self, offset: int) -> tuple[int, int, int]:
        """An epoch's offset -> its lane, its place on the line, and how many samples the lane goes on from there."""
        lanes, block, cuts = self.lanes, self.micro_batch, self._cuts
        rounds = self.rounds  # the shortest lane has N // lanes samples
        if offset < rounds * lanes * block:
            index, inside = divmod(offset, block)
            turn, lane = divmod(index, lanes)
            return lane, cuts[lane] + turn * block + inside, block - inside
        done = rounds * block
        # What lane l and those before it still have left ends at cuts[l + 1] - (l + 1) * done.
        left = offset - rounds * lanes * block
        ends = [cuts[lane + 1] - (lane + 1) * done for lane in range(lanes)]
        lane = bisect_right(ends, left)
        return lane, cuts[lane + 1] - (ends[lane] - left), ends[lane] - left


def step_size(consumed: int, total: int, batch_size: int, micro_batch: int) -> int:
    """Positions that the next step takes, 0 when all `total` are consumed.

    The last step may be smaller, but what is left under `micro_batch` joins the step before it; what is left of whole
    steps never does, though they be smaller than that.
    """
    left = max(total - consumed, 0)
    return left if left < batch_size + min(micro_batch, batch_size) else batch_size


def group_bounds(size: int, micro_batch: int) -> NDArray[np.int64]:
    """The k + 1 bounds `size * i // k` that cut a step in k = ceil(size / micro_batch) groups of nearly equal size."""
    groups = -(-size // micro_batch)
    return np.arange(groups + 1, dtype=np.int64) * size // max(groups, 1)


def least_group(total: int, batch_size: int, micro_batch: int) -> int:
    """Clips of the smallest group of a run of `total` positions."""
    steps = max(0, (total - min(micro_batch, batch_size)) // batch_size)  # whole ones before the last
    sizes = ([batch_size] if steps else []) + [total - steps * batch_size]
    return min(int(np.diff(group_bounds(size, micro_batch)).min()) for size in sizes)


def rank_groups(groups: int, rank: int, world: int) -> range:
    """The groups of a step that go to `rank` of `world`: contiguous, at most one more than another rank's."""
    return range(groups * rank // world, groups * (rank + 1) // world)


def stream_hash(ids: NDArray[np.int64], positions: NDArray[np.int64]) -> int:
    """The sum of `mix64(id XOR mix64(position))` mod 2^64: a sum over any split of the positions gives the same."""
    return int(mix64(_unsigned(ids) ^ mix64(_unsigned(positions))).sum(dtype=np.uint64))
