"""Cells and segments: against plain loops, and properties that hold whatever the probabilities are."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from dist_train.inference import segments
from dist_train.inference.segments import UNKNOWN, single, smoothed
from dist_train.inference.timeline import Cells, Way, drawn, windows

CLASSES = ("犬", "cat", "no")


@st.composite
def cells(draw: st.DrawFn, gaps: bool = True) -> np.ndarray:
    """(K, 3) rows that add up to 1, in stretches that repeat, with gaps."""
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        row = np.array(draw(st.lists(st.integers(1, 9), min_size=3, max_size=3)), float)
        row = np.full(3, np.nan) if gaps and draw(st.integers(0, 5)) == 0 else row / row.sum()
        rows += [row] * draw(st.integers(1, 6))
    return np.array(rows)


def _covered(blocks: list[np.ndarray], size: int, hop: int) -> list[tuple[int, np.ndarray]]:
    """The windows of the whole sound, by its length alone."""
    sound = np.concatenate(blocks)
    starts = list(range(0, len(sound) - size + 1, hop)) or [0]
    if starts[-1] + size < len(sound):
        starts.append(len(sound) - size)
    return [(start, sound[start : start + size]) for start in starts]


@limits(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 30), st.data())
def test_windows_of_blocks_are_those_of_the_whole(lengths: list[int], size: int, data: st.DataObject) -> None:
    hop = data.draw(st.integers(1, size))
    sound = np.arange(sum(lengths), dtype=np.int16)[:, None]
    blocks = np.split(sound, np.cumsum(lengths)[:-1])
    found, expected = list(windows(blocks, size, hop)), _covered(blocks, size, hop)
    assert [start for start, _ in found] == [start for start, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    heard = np.zeros(len(sound), bool)
    for start, frames_TC in found:
        heard[start : start + len(frames_TC)] = True
    assert heard.all()


@limits(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 30), st.data())
def test_cells_are_means_over_the_windows_that_cover_them(total: int, size: int, data: st.DataObject) -> None:
    hop = data.draw(st.integers(1, size))
    random = np.random.default_rng(total)
    grid, found = Cells(hop, 3), list(windows([np.zeros((total, 1), np.int16)], size, hop))
    sums, counts = np.zeros((total, 3)), np.zeros(total)
    for start, frames_TC in found:
        row, heard = random.dirichlet(np.ones(3)), random.random() < 0.8
        grid.add(start, len(frames_TC), heard, row)
        if heard:
            sums[start : start + len(frames_TC)] += row
            counts[start : start + len(frames_TC)] += 1
    made = grid.mean(total)
    assert len(made) == -(-total // hop)
    for number, row in enumerate(made):
        part = slice(number * hop, (number + 1) * hop)
        if counts[part].sum() == 0:
            assert np.isnan(row).all()
        else:
            np.testing.assert_allclose(row, sums[part].sum(0) / counts[part].sum(), atol=1e-12)


@limits(max_examples=40, deadline=None)
@given(cells(gaps=False), st.integers(0, 6))
def test_medians_and_exponentials_by_loops(row_KC: np.ndarray, width: int) -> None:
    half, count = -(-(width - 1) // 2) if width else 0, len(row_KC)
    half = min(half, count)
    picked = [[min(max(k + d, 0), count - 1) for d in range(-half, half + 1)] for k in range(count)]
    expected = np.array([np.median(row_KC[near], axis=0) for near in picked])
    np.testing.assert_allclose(smoothed(row_KC, "median", width), expected, atol=1e-12)
    assert smoothed(row_KC, "none", width) is row_KC
    made = smoothed(row_KC, "exponential", 2.5)
    kept, expected = np.exp(-1 / 2.5), row_KC.copy()
    for line in (range(1, count), range(count - 2, -1, -1)):
        for k in line:
            other = k - 1 if line.step == 1 else k + 1
            expected[k] = kept * expected[other] + (1 - kept) * expected[k]
    np.testing.assert_allclose(made, expected, atol=1e-12)
    np.testing.assert_allclose(made.sum(1), 1, atol=1e-9)
    assert made.min() >= row_KC.min() - 1e-12 and made.max() <= row_KC.max() + 1e-12


def test_smoothing_stays_between_gaps() -> None:
    row_KC = np.array([[1.0, 0], [1, 0], [np.nan, np.nan], [0, 1], [0, 1]])
    for kind in ("median", "exponential"):
        np.testing.assert_allclose(smoothed(row_KC, kind, 5), row_KC)


@limits(max_examples=80, deadline=None)
@given(cells(), st.sampled_from([None, 0.3, 0.5]), st.sampled_from([0.0, 0.1, 0.3]), st.integers(1, 8))
def test_runs_of_one_label_cover_all_that_is_heard(
    row_KC: np.ndarray, threshold: float | None, hysteresis: float, least: int
) -> None:
    runs, heard = single(row_KC, threshold, hysteresis, least), ~np.isnan(row_KC).any(1)
    covered = np.zeros(len(row_KC), int)
    for run in runs:
        covered[run.first : run.last] += 1
        assert 0 <= run.probability <= 1 and (run.label != UNKNOWN or threshold is not None)
    np.testing.assert_array_equal(covered, heard.astype(int))
    for one, other in itertools.pairwise(runs):
        assert one.last < other.first or (one.last == other.first and one.label != other.label)
    for run in runs:
        alone = (run.first == 0 or not heard[run.first - 1]) and (run.last == len(heard) or not heard[run.last])
        assert run.last - run.first >= least or alone


@limits(max_examples=60, deadline=None)
@given(cells(), st.sampled_from([None, 0.4]))
def test_without_hysteresis_the_best_label_is_said(row_KC: np.ndarray, threshold: float | None) -> None:
    expected = [
        None if np.isnan(row).any() else UNKNOWN if threshold is not None and row.max() < threshold else row.argmax()
        for row in row_KC
    ]
    said: list[int | None] = [None] * len(row_KC)
    for run in single(row_KC, threshold, 0.0, 1):
        said[run.first : run.last] = [run.label] * (run.last - run.first)
        if run.label != UNKNOWN:
            assert run.probability == pytest.approx(row_KC[run.first : run.last, run.label].mean())
    # Of two that are equal the one that was said before stays.
    for number, (one, other) in enumerate(zip(said, expected, strict=True)):
        equal = one is not None and one != UNKNOWN and row_KC[number, one] == np.nanmax(row_KC[number])
        assert one == other or equal


@limits(max_examples=60, deadline=None)
@given(cells(), st.sampled_from([0.2, 0.3, 0.5]), st.sampled_from([0.0, 0.15, 0.6]), st.integers(1, 4))
def test_runs_of_several_labels_by_a_loop(row_KC: np.ndarray, threshold: float, hysteresis: float, least: int) -> None:
    expected = []
    for label in range(3):
        begun: int | None = None
        for cell, value in enumerate([*row_KC[:, label], np.nan]):
            if begun is not None and (np.isnan(value) or value < threshold - hysteresis):
                if cell - begun >= least:
                    expected.append((begun, cell, label))
                begun = None
            if begun is None and value >= threshold:
                begun = cell
    found = segments.several(row_KC, threshold, hysteresis, least)
    assert [run[:3] for run in found] == sorted(expected)


@limits(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from(["median", "exponential", "none"]), st.floats(0, 9), st.booleans())
def test_a_constant_sound_is_one_segment(count: int, smooth: str, least: float, several: bool) -> None:
    way = Way(100, 100, hop=0.25, smooth=smooth, span=1.0, threshold=0.5 if several else None, min_duration=least)
    seconds = (count - 0.5) * 0.25
    found = drawn("x", seconds, np.tile([0.1, 0.7, 0.2], (count, 1)), CLASSES, several, way)
    if several and count * 0.25 < least:
        assert not len(found)
        return
    (one,) = found
    assert (one.start, one.end, one.label, one.known) == (0.0, seconds, "cat", True)
    assert one.probability == pytest.approx(0.7) and found.seconds == seconds


def test_hysteresis_holds_a_label_and_a_short_one_goes_to_the_likelier_neighbour() -> None:
    waver = np.array([[0.5, 0.4, 0.1], [0.45, 0.5, 0.05], [0.5, 0.45, 0.05], [0.1, 0.9, 0.0]])
    assert [run[:3] for run in single(waver, None, 0.1, 1)] == [(0, 3, 0), (3, 4, 1)]
    assert len(single(waver, None, 0.0, 1)) == 4
    spike = np.array([[0.9, 0.1, 0]] * 4 + [[0.1, 0.3, 0.6]] + [[0.1, 0.8, 0.1]] * 4)
    assert [run[:3] for run in single(spike, None, 0.1, 2)] == [(0, 4, 0), (4, 9, 1)]
    falls = np.array([[0.6, 0.4], [0.45, 0.4], [0.35, 0.3], [0.45, 0.4], [0.55, 0.4]])
    assert [run[:3] for run in single(falls, 0.5, 0.1, 1)] == [(0, 2, 0), (2, 4, UNKNOWN), (4, 5, 0)]
    doubt = np.array([[0.3, 0.3]] * 3 + [[0.2, 0.6]] + [[0.9, 0.1]] * 3)  # nothing is less probable than unknown
    assert [run[:3] for run in single(doubt, 0.5, 0.1, 2)] == [(0, 3, UNKNOWN), (3, 7, 0)]
    turns = np.array([[0.6, 0.3], [0.2, 0.45], [0.1, 0.5]])  # what is new begins at the threshold, not under it
    assert [run[:3] for run in single(turns, 0.5, 0.1, 1)] == [(0, 1, 0), (1, 2, UNKNOWN), (2, 3, 1)]


def test_options_that_make_no_sense() -> None:
    for options, said in (
        ({"hop": 0.0}, "give a hop over 0, up to the window of 1 s"),
        ({"hop": 1.5}, "give a hop over 0, up to the window of 1 s"),
        ({"smooth": "mean"}, "smooth='mean': is none of median, exponential, none"),
        ({"min_duration": -1.0}, "min_duration=-1: give a number from 0 up"),
        ({"span": float("nan")}, "span=nan: give a number from 0 up"),
    ):
        with pytest.raises(ValueError, match=said):
            Way(100, 100, **options)
