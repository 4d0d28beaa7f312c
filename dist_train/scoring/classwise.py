"""Scored clips -> in which interval the figures of each class lie. In: what scores.npz holds; no draws.

A class has few clips, often of fewer recordings, and of eight right ones each draw of a bootstrap is right. So:

    variance of the figure over groups (linearised) --> how many independent clips it is worth --> Wilson's interval

Sources: Wilson 1927; Korn and Graubard 1998, section 2, for the worth and its correction for few groups; the influence
of a clip on an average precision: ranking.py.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dist_train.scored import Scored
from dist_train.scores import Floats
from dist_train.scoring import intervals, resampling, student
from dist_train.scoring.figures import HALF, truth_of
from dist_train.scoring.ranking import Ranking

LEVEL = intervals.LEVEL
MAIN = {False: "recall", True: "average_precision"}  # by several labels: the figure whose interval tables show
_MANY = 200  # degrees of freedom from which Student's quantile is the normal one within 1 %

Span = tuple[float, float] | None


def of(
    scored: Scored, groups: NDArray[np.unsignedinteger] | None = None, level: float = LEVEL, ranked: bool = True
) -> dict[str, list[Span]]:
    """Intervals of precision, recall, f1 and, if `ranked`, average_precision of each class; None where it has none.

    `groups`: (N,) the group of each clip, 0 for none, as in the index; None: clips are independent.
    """
    unit_N = resampling.units(groups)
    unit_N = np.arange(len(scored.keys)) if unit_N is None else unit_N
    table = _Table(scored, unit_N)
    found = {
        "precision": _shares(table.hits, table.said, table, level),
        "recall": _shares(table.hits, table.true, table, level),
        "f1": _shares(2.0 * table.hits, table.said + table.true, table, level),
    }
    if ranked:
        found["average_precision"] = [_precision(scored, one, unit_N, level) for one in range(len(scored.classes))]
    return found


class _Table:
    """Right guesses, guesses and clips of a class in a unit, for each pair (class, unit) that has any."""

    def __init__(self, scored: Scored, unit_N: NDArray[np.int64]) -> None:
        self.width = len(scored.classes)
        (true_M, own_M), (said_M, guess_M) = _marks(scored)
        codes = np.concatenate([unit_N[true_M] * self.width + own_M, unit_N[said_M] * self.width + guess_M])
        pairs, place = np.unique(codes, return_inverse=True)
        self.class_P = pairs % self.width
        self.true = np.bincount(place[: len(true_M)], minlength=len(pairs)).astype(np.float64)
        self.said = np.bincount(place[len(true_M) :], minlength=len(pairs)).astype(np.float64)
        right = np.isin(true_M * self.width + own_M, said_M * self.width + guess_M)
        self.hits = np.bincount(place[: len(true_M)], right, len(pairs)).astype(np.float64)

    def sums(self, values_P: Floats) -> Floats:
        """(C,) of each class."""
        return np.bincount(self.class_P, values_P, self.width).astype(np.float64)


def _marks(scored: Scored) -> tuple[tuple[NDArray[np.int64], ...], tuple[NDArray[np.int64], ...]]:
    """(clip, class) of what is true, and of what is guessed."""
    if scored.several:
        return np.nonzero(scored.truth > 0), np.nonzero(scored.probability_NC > HALF)
    clips = np.arange(len(scored.truth))
    return (clips, scored.truth.astype(np.int64)), (clips, scored.probability_NC.argmax(1))


def _shares(part_P: Floats, whole_P: Floats, table: _Table, level: float) -> list[Span]:
    """Of each class, the interval of the sum of parts over the sum of wholes."""
    part_C, whole_C = table.sums(part_P), table.sums(whole_P)
    share_C = part_C / np.maximum(whole_C, 1)
    moved_P = (part_P - share_C[table.class_P] * whole_P) / np.maximum(whole_C, 1)[table.class_P]
    units_C, spread_C = table.sums((whole_P > 0).astype(np.float64)), table.sums(moved_P**2)
    rows = zip(share_C.tolist(), whole_C.tolist(), units_C.tolist(), spread_C.tolist(), strict=True)
    return [_span(*row, level) if row[1] else None for row in rows]


def _precision(scored: Scored, number: int, unit_N: NDArray[np.int64], level: float) -> Span:
    truth_N = truth_of(scored, number)
    if not truth_N.any():
        return None
    ranking = Ranking(scored.probability_NC[:, number], truth_N)
    value = float(ranking.average_precision(np.ones((1, len(truth_N))))[0])
    spread = float((np.bincount(unit_N, ranking.precision_influence()) ** 2).sum())
    units = float(len(np.unique(unit_N[truth_N])))
    return _span(value, units, units, spread, level)


def _span(share: float, count: float, units: float, spread: float, level: float) -> tuple[float, float]:
    """Wilson's interval. `count`: the most clips that it is worth; `spread`: sum of squares by which units move it."""
    normal = NormalDist().inv_cdf((1 + level) / 2)
    worth, square = units, normal**2
    if 1e-12 < share < 1 - 1e-12 and spread > 0 and units > 1:
        wide = student.quantile(int(units) - 1, level) if units <= _MANY else normal
        worth = share * (1 - share) * (units - 1) / (spread * units) * (normal / wide) ** 2
    worth = min(max(worth, 1.0), count)
    middle = (share + square / (2 * worth)) / (1 + square / worth)
    half = normal / (1 + square / worth) * math.sqrt(share * (1 - share) / worth + square / (4 * worth**2))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))
