"""Several runs' scores of the same clips -> those of all together: the mean of probabilities or of logits."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dist_train.scored import Scored
from dist_train.scores import Floats
from dist_train.scoring.figures import log_odds

_LEAST = np.finfo(np.float64).tiny


def mean(parts: Sequence[Scored], average: str = "probabilities") -> Scored:
    """The ensemble's scores, in the first one's order of clips and classes. average: probabilities, logits.

    Of logits it is the geometric mean of probabilities (or odds, of several labels). A clip that some could not read
    is the mean of the others. ValueError: other clips, classes, truth or task.
    """
    assert average in ("probabilities", "logits") and parts
    first = parts[0]
    alike = [first, *(matched(first, part) for part in parts[1:])]
    readable_PN = ~np.stack([part.bad for part in alike])
    weight_PN = readable_PN / np.maximum(readable_PN.sum(0), 1)
    total_NC = np.zeros_like(first.probability_NC)
    for part, weight_N in zip(alike, weight_PN, strict=True):
        total_NC += weight_N[:, None] * _spoken(part, average)
    bad = np.asarray(~readable_PN.any(0))
    found_NC = total_NC if average == "probabilities" else _probabilities(total_NC, first.several)
    return replace(first, probability_NC=np.where(bad[:, None], first.probability_NC, found_NC), bad=bad)


def matched(first: Scored, second: Scored) -> Scored:
    """The second with its clips and classes in the first one's order. ValueError where they are not the same."""
    if set(first.classes) != set(second.classes) or first.several != second.several:
        raise ValueError(
            f"runs of different classes or tasks ({len(first.classes)} classes and {len(second.classes)}) cannot be "
            "compared clip by clip; name runs of one data set"
        )
    place = places(first.keys, second.keys)
    if not len(first.keys) == len(second.keys) == len(place):
        strange = sorted(set(first.keys.tolist()) ^ set(second.keys.tolist()))
        example = f", e.g. {strange[0]}" if strange else ""
        raise ValueError(
            f"the runs are scored on different clips ({len(first.keys)} and {len(second.keys)}{example}): give both "
            "the same set by --shards, --folds or --split"
        )
    number = {name: index for index, name in enumerate(second.classes)}
    column = np.array([number[name] for name in first.classes])
    probability_NC = second.probability_NC[place[:, None], column[None, :]]
    back = np.argsort(column)
    truth = second.truth[place][:, column] if second.several else back[second.truth[place]]
    if not np.array_equal(truth > 0 if second.several else truth, first.truth > 0 if first.several else first.truth):
        raise ValueError("the runs' clips have other labels, though the same keys: name runs of one data set")
    bad = second.bad[place]
    if not second.several:  # as sure of the next class, by the order of now
        probability_NC[bad] = np.eye(len(column))[(first.truth[bad] + 1) % len(column)]
    return Scored(first.keys, first.classes, first.truth, probability_NC, bad)


def places(keys: NDArray[np.str_], among: NDArray[np.str_]) -> NDArray[np.int64]:
    """Where each key lies among others; shorter where some are not there, or are there twice."""
    order = np.argsort(among, kind="stable")
    place = np.searchsorted(among[order], keys)
    there = place < len(among)
    found = order[place[there]]
    found = found[among[found] == keys[there]]
    return np.asarray(found if len(np.unique(found)) == len(found) else found[:0])


def _spoken(part: Scored, average: str) -> Floats:
    if average == "probabilities":
        return part.probability_NC
    return log_odds(part.probability_NC) if part.several else np.log(np.maximum(part.probability_NC, _LEAST))


def _probabilities(logits_NC: Floats, several: bool) -> Floats:
    if several:
        return np.asarray(1 / (1 + np.exp(-logits_NC)))
    found_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return np.asarray(found_NC / found_NC.sum(1, keepdims=True))
