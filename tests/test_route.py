"""Routes against a walk through every position; plans along them."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from dist_train.order import Order, group_bounds, rank_groups
from dist_train.supply.route import Route


def walked(order: Order, consumed: int, total: int, batch_size: int, ranks: range, world: int) -> dict:
    """(epoch, shard) -> samples that some ranks read."""
    shard, read = np.repeat(np.arange(len(order.sizes)), order.sizes), defaultdict[tuple[int, int], int](int)
    bounds = group_bounds(batch_size, order.micro_batch)
    groups = [group for rank in ranks for group in rank_groups(len(bounds) - 1, rank, world)]
    for start in range(consumed, total, batch_size):
        for group in groups:
            first, last = (min(start + int(bound), total) for bound in bounds[group : group + 2])
            for position, one in enumerate(order.ids(first, last - first), first):
                read[position // len(order), int(shard[one])] += 1
    return read


def drawn(seed: int) -> tuple[Order, int, int, int, int, range, int]:
    """An order, consumed, total, batch size, a rank, its host's ranks, the world."""
    random = np.random.default_rng(seed)
    block, world = int(random.integers(1, 9)), int(random.integers(1, 5))
    sizes = random.integers(1, 40, random.integers(1, 30))
    window = int(random.choice([1, 20, 60, 10**6]))
    order = Order(sizes, seed, int(random.integers(1, 7)), window, block)
    batch = int(random.integers(1, 8)) * block - int(random.integers(0, block))
    rank = int(random.integers(0, world))
    host = range(int(random.integers(0, rank + 1)), rank + 1)
    return order, int(random.integers(0, 2 * len(order))), 3 * len(order), batch, rank, host, world


@pytest.mark.parametrize("seed", range(30))
def test_positions_are_the_inverse_of_the_stream(seed: int) -> None:
    order = drawn(seed)[0]
    line = order.line(1)
    found = {}
    for lane, (low, high) in enumerate(pairwise([cuts[0] for cuts in line.windows] + [len(order)])):
        places = np.arange(low, high)
        cuts = line.windows[lane]
        window = np.searchsorted(cuts, places, side="right") - 1
        positions = order.positions(1, lane, places).tolist()
        found |= {position: (lane, one) for position, one in zip(positions, window.tolist(), strict=True)}
    assert sorted(found) == list(range(len(order), 2 * len(order)))
    for position, (lane, window) in found.items():
        low, high = line.windows[lane][window : window + 2]
        assert order.ids(position, 1)[0] in line.span(low, high)


@pytest.mark.parametrize("seed", range(30))
def test_a_route_has_every_shard_that_its_rank_reads_and_the_share_that_its_host_does(seed: int) -> None:
    order, consumed, total, batch, rank, host, world = drawn(seed)
    route = Route(order, consumed, total, batch, rank, host, world)
    shares: dict[tuple[int, int], float] = {}
    spans = defaultdict[tuple[int, int], list[tuple[int, int]]](list)
    for lane in range(order.lanes):
        stops = list(route.stops(lane))
        assert [stop.begin for stop in stops] == sorted(stop.begin for stop in stops)
        for stop in stops:
            shares |= {(stop.begin // len(order), number): share for number, share in stop.shares.items()}
            for number in stop.shares:
                spans[stop.begin // len(order), number].append((stop.begin, stop.end))
    mine = walked(order, consumed, total, batch, range(rank, rank + 1), world)
    assert mine.keys() <= shares.keys()
    read = walked(order, consumed, total, batch, host, world)
    for epoch in range(consumed // len(order), 3):
        # windows are shuffled: what is known of a shard is its windows' mean, but all shards together are exact
        there = [number for one, number in shares if one == epoch]
        told = sum(shares[epoch, number] * order.sizes[number] for number in there)
        if len(host) == 1 and order.window == 1 and order.lanes == 1:
            assert told == pytest.approx(sum(read[epoch, number] for number in there))
    if len(host) == world:
        assert all(share == pytest.approx(1) for (epoch, _), share in shares.items() if epoch * len(order) >= consumed)
