"""Scored clips of several labels -> from which probability each label is best taken as said."""

import numpy as np

from dist_train.scored import Scored
from dist_train.scores import Floats, Marks, operating_points


def best(scored: Scored) -> list[float | None]:
    """Of each class the threshold of the greatest F1 on these clips; None for one without a positive.

    Lies between two probabilities that were seen. Unreadable clips are left out.
    """
    readable = ~scored.bad
    return [
        _best(scored.probability_NC[readable, one], scored.truth[readable, one] > 0)
        for one in range(len(scored.classes))
    ]


def f1(scored: Scored, thresholds: list[float | None]) -> list[float | None]:
    """F1 of each class at its threshold; None where that is None, or no clip has the class or is taken for it."""
    found: list[float | None] = []
    for one, threshold in enumerate(thresholds):
        truth_N = scored.truth[:, one] > 0
        guess_N = scored.probability_NC[:, one] >= (2.0 if threshold is None else threshold)
        whole = int(truth_N.sum() + guess_N.sum())
        found.append(float(2 * (truth_N & guess_N).sum() / whole) if whole and threshold is not None else None)
    return found


def _best(score_N: Floats, truth_N: Marks) -> float | None:
    if not truth_N.any():
        return None
    hits, alarms = operating_points(score_N, truth_N)
    value = 2 * hits / (hits + alarms + int(truth_N.sum()))
    place = int(value.argmax())
    levels = np.unique(score_N)[::-1]
    return float(levels[place] + levels[place + 1]) / 2 if place + 1 < len(levels) else 0.0
