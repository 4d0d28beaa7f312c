"""Scored clips -> whether a probability of .8 is right eight times in ten; and the temperature that mends it.

Unreadable clips have no probability and are left out. Of several labels each label of each clip is a case.
"""

from dataclasses import dataclass, replace

import numpy as np

from dist_train.scored import Scored
from dist_train.scores import Floats, Marks
from dist_train.scoring.figures import log_odds, losses, right

BINS = 15
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Bin:
    """Cases of a probability from `low` up to `high`: how many, their mean probability, and the share that is right."""

    low: float
    high: float
    cases: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """ece: expected calibration error; most: the largest gap of a bin; over: mean probability of the guesses minus the
    share that is right, where of several labels each label's yes or no is a guess."""

    ece: float
    most: float
    over: float
    bins: tuple[Bin, ...]


def of(scored: Scored, bins: int = BINS) -> Calibration | None:
    """Bins of equal width (Guo 2017, arXiv 1706.04599); those without a case are left out. None without a case."""
    said, true = _cases(scored)
    if not len(said):
        return None
    place = np.minimum((said * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    mean, share = (np.bincount(place, part, bins) / np.maximum(count, 1) for part in (said, true))
    rows = [
        Bin(one / bins, (one + 1) / bins, int(count[one]), float(mean[one]), float(share[one]))
        for one in np.flatnonzero(count).tolist()
    ]
    gaps = np.abs(mean - share)
    ece = float((gaps * count).sum() / len(said))
    if scored.several:
        said, true = np.maximum(said, 1 - said), (said > 0.5) == true
    return Calibration(ece, float(gaps[count > 0].max()), float(said.mean() - true.mean()), tuple(rows))


def temperature(scored: Scored) -> float:
    """What logits are to be divided by for the least loss on these clips, .05 to 20. Not for the clips to be scored.

    The loss is convex in 1 / temperature, so the golden section finds it.
    """
    readable = _readable(scored)

    def loss(power: float) -> float:
        return float(losses(scaled(readable, 1 / power)).mean())

    low, high = np.log(1 / 20), np.log(20.0)
    for _ in range(60):
        left, right_ = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right_) if loss(np.exp(left)) < loss(np.exp(right_)) else (left, high)
    return float(np.exp(-(low + high) / 2))


def scaled(scored: Scored, temperature: float) -> Scored:
    """The same with logits divided by a temperature: no guess changes. Rows of unreadable clips stay."""
    if scored.several:
        probability_NC = 1 / (1 + np.exp(-log_odds(scored.probability_NC) / temperature))
    else:
        logits_NC = np.log(np.maximum(scored.probability_NC, np.finfo(np.float64).tiny)) / temperature
        probability_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
        probability_NC /= probability_NC.sum(1, keepdims=True)
    return replace(scored, probability_NC=np.where(scored.bad[:, None], scored.probability_NC, probability_NC))


def _cases(scored: Scored) -> tuple[Floats, Marks]:
    """What was said of each case, and whether it is so."""
    readable = _readable(scored)
    if scored.several:
        return readable.probability_NC.ravel(), readable.truth.ravel() > 0
    return readable.probability_NC.max(1), right(readable)


def _readable(scored: Scored) -> Scored:
    kept = ~scored.bad
    return Scored(scored.keys[kept], scored.classes, scored.truth[kept], scored.probability_NC[kept], scored.bad[kept])
