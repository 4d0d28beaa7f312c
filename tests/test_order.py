"""The order: a bijection an epoch, the same for every history of ranks, batch sizes and restarts; it never changes."""

import hashlib
import threading
import tracemalloc
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.order import (
    Order,
    group_bounds,
    key,
    least_group,
    mix64,
    rank_groups,
    shuffle,
    step_size,
    stream_hash,
    uniform,
    unmix64,
)

FAST = settings(max_examples=120, deadline=None)
WORDS = st.integers(0, 2**64 - 1)
# Shards without a sample, of one sample and of many: folds leave such sizes behind.
SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


@st.composite
def orders(draw):
    sizes = draw(SIZES)
    lanes, window, micro_batch = (draw(st.integers(1, top)) for top in (6, 60, 9))
    return Order(np.array(sizes), draw(st.integers(0, 2**40)), lanes, window, micro_batch)


def reference(order, epoch):
    """An epoch's ids by the rules word for word: lists, no cleverness."""
    sizes, total = order.sizes.tolist(), len(order)
    mixed = mix64(np.arange(len(sizes), dtype=np.uint64), key(order.seed, epoch, 1))
    starts = np.cumsum([0, *sizes]).tolist()
    line = [(shard, starts[shard] + i) for shard in np.argsort(mixed, kind="stable") for i in range(sizes[shard])]
    lanes = []
    for lane in range(order.lanes):
        part = line[total * lane // order.lanes : total * (lane + 1) // order.lanes]
        runs = [[]]
        for i, (shard, sample) in enumerate(part):
            if len(runs[-1]) >= order.window and shard != part[i - 1][0]:
                runs.append([])
            runs[-1].append(sample)
        if len(runs) > 1 and len(runs[-1]) < order.window:
            runs[-2:] = [runs[-2] + runs[-1]]
        walk = []
        for number, run in enumerate(runs):
            ids = np.array(run, dtype=np.int64)
            mixed = mix64(ids.view(np.uint64), key(order.seed, epoch, 2, lane, number))
            walk += ids[np.argsort(mixed, kind="stable")].tolist()
        lanes.append(walk)
    block = order.micro_batch
    rounds = min(len(lane) for lane in lanes) // block
    turns = [lane[block * i : block * (i + 1)] for i in range(rounds) for lane in lanes]
    return list(chain(*turns, *(lane[block * rounds :] for lane in lanes)))


def test_mix64_is_splitmix64():
    """The published outputs of splitmix64 with seed 1234567, and seed 0."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * golden
    assert mix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mix64(np.zeros(1, dtype=np.uint64)).tolist() == [0xE220A8397B1DCDAF]


@FAST
@given(st.lists(WORDS, min_size=1, max_size=20), WORDS)
def test_mix64_is_undone(words, number):
    x = np.array(words, dtype=np.uint64)
    assert unmix64(mix64(x, number), number).tolist() == words


@FAST
@given(st.sets(st.integers(0, 2**63 - 1), min_size=1, max_size=50), WORDS)
def test_shuffle_is_a_stable_argsort(ids, number):
    ids = np.array(sorted(ids))
    expected = ids[np.argsort(mix64(ids.view(np.uint64), number), kind="stable")]
    assert shuffle(ids, number).tolist() == expected.tolist()


@FAST
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=2, max_size=30, unique_by=tuple))
def test_keys_of_different_numbers_differ(parts):
    assert len({key(0, *part) for part in parts}) == len(parts)


@FAST
@given(orders(), st.integers(0, 3))
def test_an_epoch_is_the_rules_word_for_word(order, epoch):
    ids = order.ids(epoch * len(order), len(order)).tolist()
    assert ids == reference(order, epoch)
    assert sorted(ids) == list(range(len(order)))


@FAST
@given(orders(), st.data())
def test_any_cut_of_the_stream_is_the_stream(order, data):
    total = 3 * len(order)
    stream = order.ids(0, total)
    assert stream.dtype == np.int64
    begin = data.draw(st.integers(0, total))
    count = data.draw(st.integers(0, total - begin))
    fresh = Order(order.sizes, order.seed, order.lanes, order.window, order.micro_batch)
    assert fresh.ids(begin, count).tolist() == stream[begin : begin + count].tolist()


@FAST
@given(orders(), st.data())
def test_every_history_is_the_same_run(order, data):
    """Ranks and batch size change at each restart: the union of the ranks' groups is the one order, step for step."""
    total, micro_batch = 2 * len(order) + 5, order.micro_batch
    reference_ids = order.ids(0, total)
    consumed, hashed, seen = 0, 0, []
    while consumed < total:
        world, batch = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 5)) * micro_batch
        for _ in range(data.draw(st.integers(1, 4))):
            size = step_size(consumed, total, batch, micro_batch)
            bounds = consumed + group_bounds(size, micro_batch)
            for rank in range(world):
                for group in rank_groups(len(bounds) - 1, rank, world):
                    begin, end = bounds[group : group + 2].tolist()
                    ids = order.ids(begin, end - begin)
                    seen.append(ids)
                    hashed += stream_hash(ids, np.arange(begin, end))
            consumed += size
    assert consumed == total
    assert np.concatenate(seen).tolist() == reference_ids.tolist()
    assert hashed % 2**64 == stream_hash(reference_ids, np.arange(total))


@FAST
@given(st.integers(0, 500), st.integers(1, 80), st.integers(1, 40))
def test_steps_cover_the_run_without_small_ones(total, batch, micro_batch):
    consumed, sizes, least = 0, [], min(batch, micro_batch)
    while size := step_size(consumed, total, batch, micro_batch):
        sizes.append(size)
        consumed += size
    assert consumed == total and all(size == batch for size in sizes[:-1])
    assert all(least <= size < batch + least for size in sizes[1:])
    assert total % batch or len(sizes) == total // batch  # run.max_steps makes as many


@FAST
@given(st.integers(1, 500), st.integers(1, 80), st.integers(1, 40))
def test_smallest_group_of_a_run(total, batch, micro_batch):
    consumed, least = 0, total
    while size := step_size(consumed, total, batch, micro_batch):
        least = min(least, np.diff(group_bounds(size, micro_batch)).min())
        consumed += size
    assert least_group(total, batch, micro_batch) == least


@FAST
@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 9))
def test_groups_are_even_and_all_given_out(size, micro_batch, world):
    bounds = group_bounds(size, micro_batch)
    widths = np.diff(bounds)
    assert bounds.dtype == np.int64 and (bounds[0], bounds[-1]) == (0, size)
    assert len(widths) == -(-size // micro_batch)
    assert not len(widths) or (widths.max() <= micro_batch and widths.max() - widths.min() <= 1)
    shares = [rank_groups(len(widths), rank, world) for rank in range(world)]
    assert [group for share in shares for group in share] == list(range(len(widths)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_lanes_than_samples():
    order = Order(np.array([2, 0, 1]), seed=3, lanes=8, micro_batch=4)
    assert sorted(order.ids(0, 3).tolist()) == [0, 1, 2]


def test_epochs_and_seeds_differ():
    order, other = Order(np.full(4, 50), 0), Order(np.full(4, 50), 1)
    first = order.ids(0, 200)
    assert (first == order.ids(200, 200)).mean() < 0.05
    assert (first == other.ids(0, 200)).mean() < 0.05


def test_lanes_keep_groups_to_their_own_shards():
    """With as many lanes as groups a step, the i-th group of every step reads the shards of lane i only."""
    order = Order(np.full(8, 64), seed=5, lanes=4, window=64, micro_batch=16)
    shards = order.ids(0, 512).reshape(8, 4, 16) // 64
    assert [len(np.unique(shards[:, lane])) for lane in range(4)] == [2, 2, 2, 2]


def test_one_window_is_a_uniform_shuffle():
    """Batches of 64 of a set sorted by 50 classes hold as many classes as independent draws would."""
    order, classes = Order(np.full(200, 100), 0), np.arange(20_000) // 400
    batches = classes[order.ids(0, 19_968)].reshape(-1, 64)
    mean = np.mean([len(np.unique(batch)) for batch in batches])
    assert abs(mean - 50 * (1 - 0.98**64)) < 0.4
    rank = np.corrcoef(order.ids(0, 20_000), np.arange(20_000))[0, 1]
    assert abs(rank) < 4 / np.sqrt(20_000)


@pytest.mark.parametrize(
    ("order", "digest"),
    [
        (Order(np.full(10, 137), 0), "2755b2457e5cfe614f663aba04d3e690"),
        (Order(np.full(10, 137), 0, lanes=3, window=200, micro_batch=8), "19f74fd45ce07dbeab1ac1241e5c65ec"),
        (Order(np.arange(60), 2**63 + 5, lanes=4, window=150, micro_batch=32), "2caf254007943d6629d3beb9065143ee"),
    ],
    ids=["default", "lanes", "uneven"],
)
def test_the_order_never_changes(order, digest):
    """A run of an older version resumes only if these stay."""
    assert hashlib.sha256(order.ids(0, 1000).astype("<i8").tobytes()).hexdigest()[:32] == digest


def test_a_cold_seek_sorts_one_window_only():
    """Into the middle of ten million samples: memory of a few windows, whatever N; then the window is kept."""
    order = Order(np.full(1000, 10_000), 0)
    tracemalloc.start()
    try:
        order.ids(5_000_000, 256)
        seek = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for step in range(50):
            order.ids(5_000_000 + 256 * step, 256)
        walk = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert seek < 6 * 8 * 2**20 < 10_000_000 * 8
    assert walk < 100_000


def test_memory_stays_that_of_a_few_windows():
    order = Order(np.full(400, 500), 0, lanes=3, window=5_000)
    tracemalloc.start()
    try:
        peaks = []
        for epoch in range(6):
            order.ids(epoch * len(order), 1)
            for position in range(epoch * len(order), (epoch + 1) * len(order), 4096):
                order.ids(position, 4096)
            peaks.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(peaks[1:]) < 1.1 * peaks[0] + 50_000


def test_threads_read_the_same_order():
    order, plain = Order(np.full(30, 33), 7, lanes=2, window=100), Order(np.full(30, 33), 7, lanes=2, window=100)
    seen = {}

    def walk(rank):
        seen[rank] = [order.ids(position, 61).tolist() for position in range(rank, 3000, 50)]

    threads = [threading.Thread(target=walk, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {rank: [plain.ids(p, 61).tolist() for p in range(rank, 3000, 50)] for rank in range(4)}


def test_uniform_is_uniform():
    draws = uniform(0, np.arange(200_000), "gain")
    assert draws.dtype == np.float32 and draws.min() >= 0 and draws.max() < 1
    counts = np.bincount((draws * 100).astype(int), minlength=100)
    assert ((counts - 2000) ** 2 / 2000).sum() < 160  # chi squared, 99 degrees of freedom: p = 1e-4
    others = [uniform(0, np.arange(200_000), "shift"), uniform(1, np.arange(200_000), "gain"), np.roll(draws, 1)]
    assert all(abs(np.corrcoef(draws, other)[0, 1]) < 0.01 for other in others)


@FAST
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(-(2**63), 2**64), st.text(max_size=9))
def test_uniform_depends_on_its_position_alone(positions, seed, name):
    batch = uniform(seed, np.array(positions), name)
    assert batch.tolist() == [float(uniform(seed, np.array([one]), name)[0]) for one in positions]


def test_uniform_never_changes():
    draws = uniform(7, np.array([0, 1, 2, 10**12]), "speed")
    assert (draws * 2**24).astype(np.int64).tolist() == [1102774, 16527725, 11193634, 3065614]


@FAST
@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_stream_hash_adds_up_over_any_split(ids, cuts):
    ids, positions = np.array(ids), 100 + np.arange(len(ids))
    edges = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    parts = sum(stream_hash(ids[a:b], positions[a:b]) for a, b in pairwise(edges))
    assert parts % 2**64 == stream_hash(ids, positions)
    swapped = ids[::-1]
    assert stream_hash(swapped, positions) != stream_hash(ids, positions) or ids.tolist() == swapped.tolist()
