"""Subset and Repeats beside the plain arrays that they stand for."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.subset import Repeats, Subset

FAST = settings(max_examples=80, deadline=None)


@FAST
@given(st.integers(1, 700), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_subset_is_its_rows(total, share, seed):
    mask = np.random.default_rng(seed).random(total) < share
    subset, rows = Subset(total, (mask[begin : begin + 128] for begin in range(0, total, 128))), np.flatnonzero(mask)
    assert len(subset) == len(rows)
    assert np.array_equal(subset.rows(np.arange(len(rows))), rows)
    ends = np.arange(total + 1)
    assert np.array_equal(subset.below(ends), np.searchsorted(rows, ends))
    begin, end = sorted(np.random.default_rng(seed).integers(0, total + 1, 2).tolist())
    assert np.array_equal(subset.inside(begin, end), rows[(rows >= begin) & (rows < end)])


@FAST
@given(st.lists(st.integers(1, 400), min_size=1, max_size=300), st.integers(1, 99))
def test_repeats_are_their_ends(times, size):
    listed, ends = np.array(times), np.cumsum(times)
    parts = (listed[begin : begin + size] for begin in range(0, len(listed), size))
    repeats = Repeats(len(listed), parts, int(listed.max()))
    assert len(repeats) == ends[-1]
    numbers = np.arange(ends[-1])
    assert np.array_equal(repeats.places(numbers), np.searchsorted(ends, numbers, "right"))
    places = np.arange(len(listed) + 1)
    assert np.array_equal(repeats.below(places), np.concatenate([[0], ends]))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_ten_million_rows_take_a_quarter_byte_each(share):
    total, step = 10_000_000, 1 << 20
    random = np.random.default_rng(0)
    tracemalloc.start()
    subset = Subset(total, (random.random(min(step, total - begin)) < share for begin in range(0, total, step)))
    held, peak = tracemalloc.get_traced_memory()
    found = subset.rows(np.arange(len(subset) - 1000, len(subset)))
    tracemalloc.stop()
    assert held < 0.26 * total and peak < 20 << 20
    assert (np.diff(found) > 0).all() and total - 20_000 < found[0] and found[-1] < total
