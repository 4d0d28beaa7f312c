"""Scored clips -> every score of the task, and the figures of each class. In: what scores.npz holds.

An unreadable clip counts as `scores` has it: as surely of another class, or of every label that it does not have.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import scores
from dist_train.scored import Scored
from dist_train.scores import Floats, Marks, Scores

_LEAST = np.finfo(np.float64).tiny  # a probability of 0 would have a loss without end
_MOST = 1 - 2.0**-53  # the last number under 1
HALF = 0.5  # from where a label is taken as said

Column = list[float | None]


def of(scored: Scored, k: int = 3) -> Scores:
    """Every score of the task, and of each class precision, recall, f1, support and average_precision.

    `k`: guesses that count in map_at_k. Of several labels the guess is a probability over 1/2. A figure of a class is
    None where it means nothing: precision where nothing is guessed, recall and average_precision without a clip, f1
    where both. Means of f1 and recall are macro_f1 and balanced_accuracy (of one class a clip).
    """
    bad = [(number, "unreadable") for number in np.flatnonzero(scored.bad).tolist()]
    kept = torch.tensor(scored.probability_NC, dtype=torch.float64)
    if scored.several:
        found = scores.several(torch.from_numpy(log_odds(scored.probability_NC)), torch.tensor(scored.truth), bad)
    else:
        logits_NC = torch.from_numpy(np.log(np.maximum(scored.probability_NC, _LEAST)))
        found = scores.single(logits_NC, torch.tensor(scored.truth, dtype=torch.int64), bad, k)
    return replace(found, probability_NC=kept, classes=by_class(scored, found.classes))


def by_class(scored: Scored, known: dict[str, Column]) -> dict[str, Column]:
    """Figures of each class; `known`: those that are there already."""
    hits, said, true = counts(scored)
    classes = range(len(scored.classes))
    found: dict[str, Column] = {
        "precision": [_share(hits[one], said[one]) for one in classes],
        "recall": [_share(hits[one], true[one]) for one in classes],
        "f1": [_share(2 * hits[one], said[one] + true[one]) for one in classes],
        "support": true.tolist(),
    }
    if "average_precision" not in known:
        columns = scored.probability_NC.T
        found["average_precision"] = [
            scores.average_precision(columns[one], truth_of(scored, one)) if true[one] else None for one in classes
        ]
    return known | found


def counts(scored: Scored) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(C,) right guesses, guesses and clips of each class."""
    width = len(scored.classes)
    if scored.several:
        truth_NC, guess_NC = scored.truth > 0, scored.probability_NC > HALF
        return (truth_NC & guess_NC).sum(0), guess_NC.sum(0), truth_NC.sum(0)
    guess_N = scored.probability_NC.argmax(1)
    hits = np.bincount(scored.truth[guess_N == scored.truth], minlength=width)
    return hits, np.bincount(guess_N, minlength=width), np.bincount(scored.truth, minlength=width)


def right(scored: Scored) -> Marks:
    """(N,) whether the best guess is the clip's class, or one of its labels; never of an unreadable clip."""
    guess_N = scored.probability_NC.argmax(1)
    if scored.several:
        return np.asarray((scored.truth[np.arange(len(guess_N)), guess_N] > 0) & ~scored.bad)
    return np.asarray((guess_N == scored.truth) & ~scored.bad)


def truth_of(scored: Scored, number: int) -> Marks:
    """(N,) whether a clip has a class."""
    return scored.truth[:, number] > 0 if scored.several else scored.truth == number


def log_odds(probability: Floats) -> Floats:
    """Logits of probabilities, finite at 0 and 1 too."""
    inside = np.clip(probability, _LEAST, _MOST)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def losses(scored: Scored) -> Floats:
    """(N,) cross-entropy of each clip, mean over the labels of several; an unreadable one's is of a uniform guess."""
    width = len(scored.classes)
    if scored.several:
        inside = np.clip(scored.probability_NC, _LEAST, _MOST)
        loss_N = -np.where(scored.truth > 0, np.log(inside), np.log1p(-inside)).mean(1)
        return np.asarray(np.where(scored.bad, np.log(2), loss_N))
    own_N = scored.probability_NC[np.arange(len(scored.truth)), scored.truth]
    return np.asarray(np.where(scored.bad, np.log(width), -np.log(np.maximum(own_N, _LEAST))))


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
