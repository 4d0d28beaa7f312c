"""Probabilities on a grid of time -> segments: smoothing, hysteresis, minimum duration, merging. Numbers only.

    cells_KC  (K, C) probabilities of equal stretches of time, one after another; NaN: a gap, nothing was heard there
    Run       cells [first, last) of one label

A sound of one label at a time gives runs that cover all cells but the gaps, once each; one of several labels gives runs
of each label that may overlap.
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.float64]
UNKNOWN = -1


class Run(NamedTuple):
    """Cells [first, last) of class number `label`, or UNKNOWN; probability: its mean there (UNKNOWN: of the best)."""

    first: int
    last: int
    label: int
    probability: float


def smoothed(cells_KC: Cells, kind: str, width: float) -> Cells:
    """Class by class, between gaps: `median` of `width` cells (an odd number at least that) around each, or
    `exponential` of time constant `width` cells, forwards and backwards, so that nothing is late; `none`."""
    if kind == "none" or width <= 0:
        return cells_KC
    out_KC = cells_KC.copy()
    for first, last in _stretches(_heard(cells_KC)):
        part_KC = cells_KC[first:last]
        out_KC[first:last] = _median(part_KC, width) if kind == "median" else _exponential(part_KC, width)
    return out_KC


def _heard(cells_KC: Cells) -> NDArray[np.bool_]:
    """(K,) False in gaps."""
    return np.asarray(~np.isnan(cells_KC).any(axis=1))


def _median(part_KC: Cells, width: float) -> Cells:
    half = min(int(np.ceil((width - 1) / 2)), len(part_KC))
    padded_KC = np.pad(part_KC, ((half, half), (0, 0)), "edge")
    columns = (np.lib.stride_tricks.sliding_window_view(one_K, 2 * half + 1) for one_K in padded_KC.T)
    return np.stack([np.median(windows, axis=1) for windows in columns], axis=1)


def _exponential(part_KC: Cells, width: float) -> Cells:
    kept = float(np.exp(-1 / width))
    out_KC = part_KC.copy()
    for turned_KC in (out_KC, out_KC[::-1]):
        for number in range(1, len(turned_KC)):
            turned_KC[number] = kept * turned_KC[number - 1] + (1 - kept) * turned_KC[number]
    return out_KC


def single(cells_KC: Cells, threshold: float | None, hysteresis: float, least: int) -> list[Run]:
    """Runs of one label at a time.

    A label stays until another's probability is more than `hysteresis` above its own. It becomes UNKNOWN where its
    probability falls `hysteresis` under `threshold`, and is known again where a label reaches it. A run of fewer than
    `least` cells goes to the neighbour whose label is more probable in it, the shortest first.
    """
    runs = list[tuple[int, int, int]]()
    heard = _heard(cells_KC)
    prefix_KC = np.concatenate([np.zeros((1, cells_KC.shape[1])), np.cumsum(np.nan_to_num(cells_KC), 0)])
    for first, last in _stretches(heard):
        labels_K = _labels(cells_KC[first:last], threshold, hysteresis)
        bounds = [0, *(np.flatnonzero(np.diff(labels_K)) + 1).tolist(), last - first]
        part = [(a + first, b + first, int(labels_K[a])) for a, b in itertools.pairwise(bounds)]
        for size in range(1, min(least, last - first)):
            part = _without(part, size, prefix_KC)
        runs += part
    best_K = np.where(heard, np.nan_to_num(cells_KC).max(1), 0.0)
    return [Run(first, last, label, _mean(prefix_KC, best_K, first, last, label)) for first, last, label in runs]


def several(cells_KC: Cells, threshold: float, hysteresis: float, least: int) -> list[Run]:
    """Runs of any number of labels, in the order of their starts. Each begins where its label reaches `threshold`, ends
    where it falls `hysteresis` under it, and has `least` cells at least."""
    found = list[Run]()
    for label, one_K in enumerate(cells_KC.T):
        heard_K = np.nan_to_num(one_K, nan=-1.0)
        on_K, off_K = heard_K >= threshold, heard_K < max(threshold - hysteresis, 0.0)
        event_K = np.maximum.accumulate(np.where(on_K | off_K, np.arange(len(one_K)), 0))
        for first, last in _stretches(on_K[event_K]):
            if last - first >= least:
                found.append(Run(first, last, label, float(one_K[first:last].mean())))
    return sorted(found)


def _labels(part_KC: Cells, threshold: float | None, hysteresis: float) -> NDArray[np.int64]:
    """(K,) class numbers, or UNKNOWN."""
    limit = -np.inf if threshold is None else threshold
    best_K, found_K = part_KC.argmax(1).tolist(), np.empty(len(part_KC), np.int64)
    current, known = best_K[0], False
    for cell, best in enumerate(best_K):
        row_C = part_KC[cell]
        if row_C[best] > row_C[current] + hysteresis or not known:
            known = known and current == best
            current = best
        known = bool(row_C[current] >= (limit - hysteresis if known else limit))
        found_K[cell] = current if known else UNKNOWN
    return found_K


def _without(runs: list[tuple[int, int, int]], size: int, prefix_KC: Cells) -> list[tuple[int, int, int]]:
    """Runs of more than `size` cells: shorter ones went to a neighbour. All runs touch."""
    kept, waiting = list[tuple[int, int, int]](), runs[::-1]
    while waiting:
        first, last, label = waiting.pop()
        if kept and kept[-1][2] == label:
            kept[-1] = (kept[-1][0], last, label)
        elif last - first > size or not (kept or waiting):
            kept.append((first, last, label))
        else:
            before = _sum(prefix_KC, first, last, kept[-1][2]) if kept else -np.inf
            after = _sum(prefix_KC, first, last, waiting[-1][2]) if waiting else -np.inf
            if not kept or (waiting and after > before):
                _, end, label = waiting.pop()
                waiting.append((first, end, label))
            else:
                kept[-1] = (kept[-1][0], last, kept[-1][2])
    return kept


def _sum(prefix_KC: Cells, first: int, last: int, label: int) -> float:
    """Of a label's probability over cells; nothing is less probable than UNKNOWN."""
    return -1.0 if label == UNKNOWN else float(prefix_KC[last, label] - prefix_KC[first, label])


def _mean(prefix_KC: Cells, best_K: Cells, first: int, last: int, label: int) -> float:
    if label == UNKNOWN:
        return float(best_K[first:last].mean())
    return float(np.clip(_sum(prefix_KC, first, last, label) / (last - first), 0.0, 1.0))


def _stretches(inside_K: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[first, last) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside_K, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
