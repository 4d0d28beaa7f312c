"""Scored clips -> cells of clips that are alike to some scores, and those scores from counts of the cells.

A draw of the bootstrap is then a count a cell, not a weight a clip: the accuracy of a million clips of ten classes has
a hundred cells. Clips of values that hardly two share (a loss) are pooled with their neighbours in value, _POOLED
cells at most.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.scored import Scored
from dist_train.scores import Floats
from dist_train.scoring.figures import losses, right

_POOLED = 10_000  # pooled neighbours differ by so little that the width of an interval changes by some 0.1 %
_BINS = 15  # of the calibration error, as scores has it

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """cell_N: each clip's; size: cells; values: counts (D, size) -> scores (D,) by name."""

    cell_N: Ids
    size: int
    values: Callable[[Floats], dict[str, Floats]]


def of(scored: Scored, name: str) -> Tally:
    """The cells of a score that is no ranking. Scores of the same cells come together."""
    if name == "loss":
        return _mean(name, losses(scored))
    if name == "accuracy" and scored.several:
        return _mean(name, right(scored).astype(np.float64))
    if name.startswith("map_at_"):
        return _mean(name, _reciprocal(scored, int(name.removeprefix("map_at_"))))
    if name == "ece":
        return _calibration(scored)
    if name == "cavg":
        return _detection(scored)
    return _labels(scored) if scored.several else _confusion(scored)


def summed(counts_DK: Floats, key_K: Ids, size: int) -> Floats:
    """Counts of cells -> (D, size) sums over the cells of each key."""
    rows = np.arange(len(counts_DK))[:, None] * size
    sums = np.bincount((key_K + rows).ravel(), counts_DK.ravel(), len(counts_DK) * size)
    return np.asarray(sums.reshape(-1, size), np.float64)


def _mean(name: str, value_N: Floats) -> Tally:
    cell_N, mean_K = _alike(value_N)
    return Tally(cell_N, len(mean_K), lambda counts_DK: {name: counts_DK @ mean_K / counts_DK.sum(1)})


def _alike(value_N: Floats) -> tuple[Ids, Floats]:
    """Cells of equal values, or of neighbours where there are too many; and the mean of each."""
    distinct, cell_N = np.unique(value_N, return_inverse=True)
    if len(distinct) <= _POOLED:
        return cell_N, distinct
    cell_N = np.empty(len(value_N), np.int64)
    cell_N[np.argsort(value_N, kind="stable")] = np.arange(len(value_N)) * _POOLED // len(value_N)
    return cell_N, np.bincount(cell_N, value_N) / np.bincount(cell_N)


def _reciprocal(scored: Scored, k: int) -> Floats:
    """(N,) 1 / rank of the truth, 0 beyond rank k; of equal probabilities the first class comes first."""
    clips = np.arange(len(scored.truth))
    own_N1 = scored.probability_NC[clips, scored.truth][:, None]
    before = np.arange(len(scored.classes)) < scored.truth[:, None]
    rank_N = 1 + ((scored.probability_NC > own_N1) | ((scored.probability_NC == own_N1) & before)).sum(1)
    return np.where(~scored.bad & (rank_N <= k), 1 / rank_N, 0.0)


def _confusion(scored: Scored) -> Tally:
    """accuracy, balanced_accuracy, macro_f1: cells of a truth and a guess."""
    width = len(scored.classes)
    code_N = scored.truth.astype(np.int64) * width + scored.probability_NC.argmax(1)
    codes, cell_N = np.unique(code_N, return_inverse=True)
    truth_K, guess_K = codes // width, codes % width

    def values(counts_DK: Floats) -> dict[str, Floats]:
        hits = summed(counts_DK * (truth_K == guess_K), truth_K, width)
        true, said = summed(counts_DK, truth_K, width), summed(counts_DK, guess_K, width)
        return {
            "accuracy": hits.sum(1) / counts_DK.sum(1),
            "balanced_accuracy": _over(hits, true),
            "macro_f1": _over(2 * hits, true + said),
        }

    return Tally(cell_N, len(codes), values)


def _over(part_DC: Floats, whole_DC: Floats) -> Floats:
    """Mean of the shares of those classes that have a whole."""
    return np.asarray((part_DC / np.maximum(whole_DC, 1)).sum(1) / np.maximum((whole_DC > 0).sum(1), 1))


def _calibration(scored: Scored) -> Tally:
    confidence_N = scored.probability_NC.max(1).astype(np.float32)  # and its bounds: as torchmetrics has them
    bounds = np.linspace(0, 1, _BINS + 1, dtype=np.float32)
    bin_N = np.searchsorted(bounds, confidence_N, "right") - 1
    pooled_N, _ = _alike(confidence_N.astype(np.float64))
    code_N = (pooled_N * 2 + right(scored)) * (_BINS + 1) + bin_N
    codes, cell_N = np.unique(code_N, return_inverse=True)
    counts = np.bincount(cell_N)
    gap_K = np.bincount(cell_N, confidence_N.astype(np.float64) - right(scored)) / counts
    bin_K = codes % (_BINS + 1)

    def values(counts_DK: Floats) -> dict[str, Floats]:
        return {"ece": np.abs(summed(counts_DK * gap_K, bin_K, _BINS + 1)).sum(1) / counts_DK.sum(1)}

    return Tally(cell_N, len(codes), values)


def _detection(scored: Scored) -> Tally:
    """cavg: cells of a truth and a set of detected classes (see scores.average_cost)."""
    detected_NC = scored.probability_NC > 1 / len(scored.classes)
    first, cell_N = _patterns(np.column_stack([detected_NC, _bits(scored.truth, len(scored.classes))]))
    truth_K, detected_KC = scored.truth[first], detected_NC[first].astype(np.float64)

    def values(counts_DK: Floats) -> dict[str, Floats]:
        width = len(scored.classes)
        true_DC = summed(counts_DK, truth_K, width)
        hits, alarms = np.zeros_like(true_DC), np.zeros_like(true_DC)
        for one in np.unique(truth_K).tolist():
            rate_DC = counts_DK[:, truth_K == one] @ detected_KC[truth_K == one]
            rate_DC /= np.maximum(true_DC[:, one], 1)[:, None]
            hits[:, one] = rate_DC[:, one]
            rate_DC[:, one] = 0
            alarms += rate_DC
        there = true_DC > 0
        languages = there.sum(1)
        cost_DC = (1 - hits) / 2 + alarms / np.maximum(languages - 1, 1)[:, None] / 2
        mean = (cost_DC * there).sum(1) / np.maximum(languages, 1)
        return {"cavg": np.where(languages > 1, mean, np.nan)}

    return Tally(cell_N, len(first), values)


def _labels(scored: Scored) -> Tally:
    """macro_f1, micro_f1 of several labels: cells of a set of labels and a set of guesses."""
    truth_NC, guess_NC = scored.truth > 0, scored.probability_NC > 0.5
    first, cell_N = _patterns(np.column_stack([truth_NC, guess_NC]))
    truth_KC, guess_KC = truth_NC[first], guess_NC[first]
    hit_KC, sum_KC = (truth_KC & guess_KC).astype(np.float64), truth_KC.astype(np.float64) + guess_KC

    def values(counts_DK: Floats) -> dict[str, Floats]:
        hits, sums = 2 * (counts_DK @ hit_KC), counts_DK @ sum_KC
        micro = hits.sum(1) / np.maximum(sums.sum(1), 1)
        return {"macro_f1": (hits / np.maximum(sums, 1)).mean(1), "micro_f1": micro}

    return Tally(cell_N, len(first), values)


def _patterns(marks_NM: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """The first row of each distinct one, and which of them each row is."""
    packed = np.packbits(marks_NM, axis=1)
    _, first, cell_N = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    return first, cell_N.reshape(-1)


def _bits(number_N: NDArray[np.int64], limit: int) -> NDArray[np.bool_]:
    return (number_N[:, None] >> np.arange(max(1, limit.bit_length())) & 1).astype(np.bool_)
