"""Probabilities and truth of all clips -> scores. On rank 0, in float64, from exactly what scores.npz holds.

one class a clip     accuracy, balanced_accuracy, macro_f1, map_at_k, ece, cavg, loss
several labels       map, micro_map, auc, d_prime, macro_f1, micro_f1, accuracy, loss; and map and auc of each class

A bad clip counts as wrong: as sure of another class; or as sure of every label that it does not have. Its loss is that
of a uniform guess.
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dist_train.settings import Config

_SINGLE = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "cavg", "loss")
_SEVERAL = ("map", "micro_map", "auc", "d_prime", "macro_f1", "micro_f1", "accuracy", "loss")
_LOW = ("ece", "cavg", "loss")  # the lower the better
_BINS = 15  # of the calibration error

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """`values` by name; `confusion` (C, C), rows are the truth, or None; `classes`: figures of each class by name."""

    values: dict[str, float]
    confusion: Tensor | None
    clips: int
    bad: list[tuple[int, str]]
    probability_NC: Tensor = field(repr=False)
    truth: Tensor = field(repr=False)  # (N,) class, or (N, C) 1 for a label
    classes: dict[str, list[float | None]] = field(default_factory=dict, repr=False)


def metric(config: Config) -> str:
    """The name of the run's score. Errors: `ValueError` for one of the other task's."""
    name, several = config.evaluation.metric, config.objective.name == "bce"
    if several and config.evaluation.given("k"):
        raise ValueError("evaluation.k is for map_at_k, which clips of several labels (objective.name=bce) have not")
    if name is None:
        return "map" if several else "accuracy"
    names = _SEVERAL if several else (*_SINGLE, f"map_at_{config.evaluation.k}")
    if name not in names:
        task = "clips of several labels" if several else "clips of one class"
        raise ValueError(
            f"evaluation.metric={name} is not a score of {task} (objective.name={config.objective.name}); "
            f"take one of {', '.join(names)}"
        )
    return name


def better(name: str, value: float, best: float | None) -> bool:
    """Whether a score is better than the best so far; any is better than none, and than one that is no number."""
    if best is None or math.isnan(best):
        return True
    return value < best if name in _LOW else value > best


def single(logits_NC: Tensor, label_N: Tensor, bad: list[tuple[int, str]], k: int = 3) -> Scores:
    """Scores of float64 log-probabilities or logits `(N, C)` of one true class a clip; `bad`: (id, reason).

    balanced_accuracy: mean recall of the classes that have clips; map_at_k: mean of 1 / rank of the truth, 0 beyond
    rank k; ece: expected calibration error in 15 bins (Guo 2017, arXiv 1706.04599); cavg: see `average_cost`.
    """
    from torchmetrics.functional import classification as metrics  # a second of imports that only rank 0 needs

    clips, classes = logits_NC.shape
    good = torch.ones(clips, dtype=torch.bool)
    good[[number for number, _ in bad]] = False
    wrong_N = (label_N + 1) % classes
    guess_N = torch.where(good, logits_NC.argmax(1), wrong_N)
    probability_NC = logits_NC.double().softmax(1)
    probability_NC[~good] = nn.functional.one_hot(wrong_N[~good], classes).double()
    loss_N = nn.functional.cross_entropy(logits_NC, label_N, reduction="none")
    loss_N = torch.where(good, loss_N, torch.tensor(math.log(classes), dtype=loss_N.dtype))
    rank_N, right_N = _rank(logits_NC, label_N), (guess_N == label_N).double()
    values = {
        "accuracy": float(right_N.mean()),
        "balanced_accuracy": float(
            np.mean([right_N[label_N == label].mean() for label in np.unique(label_N).tolist()])
        ),
        "macro_f1": float(metrics.multiclass_f1_score(guess_N, label_N, classes, average="macro")),
        f"map_at_{k}": float(torch.where(good & (rank_N <= k), 1 / rank_N.double(), 0.0).mean()),
        "ece": float(metrics.multiclass_calibration_error(probability_NC, label_N, classes, n_bins=_BINS)),
        "cavg": average_cost(probability_NC.numpy(), label_N.numpy()),
        "loss": float(loss_N.mean()),
    }
    confusion = metrics.multiclass_confusion_matrix(guess_N[good], label_N[good], classes)
    return Scores(values, confusion, clips, bad, probability_NC, label_N)


def several(logits_NC: Tensor, target_NC: Tensor, bad: list[tuple[int, str]]) -> Scores:
    """Scores of float64 logits `(N, C)` of clips with any number of labels; `bad`: (id, reason).

    map: mean over classes that have a positive; auc: over those that have a negative too; d_prime: sqrt(2) times the
    normal quantile of auc; F1 at a probability of 1/2; accuracy: share of clips whose best guess is one of their
    labels.
    """
    truth_NC = target_NC.numpy() > 0
    good = np.ones(len(truth_NC), np.bool_)
    good[[number for number, _ in bad]] = False
    probability_NC: Floats = np.where(good[:, None], logits_NC.double().sigmoid().numpy(), ~truth_NC)
    loss_NC = nn.functional.binary_cross_entropy_with_logits(logits_NC, target_NC.double(), reduction="none")
    precisions = [average_precision(p, t) for p, t in zip(probability_NC.T, truth_NC.T, strict=True)]
    areas = [area(p, t) for p, t in zip(probability_NC.T, truth_NC.T, strict=True)]
    auc = _mean(areas)
    f1 = _f1(probability_NC > 0.5, truth_NC)
    # where a probability rounds to 1, the logit still tells which is best
    best_N = np.where(good, logits_NC.argmax(1).numpy(), (~truth_NC).argmax(1))
    values = {
        "map": _mean(precisions),
        "micro_map": average_precision(probability_NC.ravel(), truth_NC.ravel()) or 0.0,
        "auc": auc,
        "d_prime": d_prime(auc),
        **f1,
        "accuracy": float((truth_NC[np.arange(len(truth_NC)), best_N] & good).mean()),
        "loss": float(np.where(good, loss_NC.mean(1).numpy(), math.log(2)).mean()),
    }
    counts = truth_NC.sum(0).tolist()
    figures: dict[str, Any] = {"average_precision": precisions, "auc": areas, "positives": counts}
    return Scores(values, None, len(truth_NC), bad, torch.from_numpy(probability_NC), target_NC, figures)


def average_cost(probability_NC: Floats, label_N: NDArray[np.int64]) -> float:
    """Cavg of the NIST language recognition evaluations, with P_target 1/2: the mean over target languages of
    P_miss / 2 + sum over the other languages of P_fa / (2 (L - 1)), over the L languages that have clips.

    Detection is by Bayes' rule under a flat prior: a language is detected where its probability is over 1 / C.
    """
    present = np.unique(label_N)
    if len(present) < 2:
        return math.nan
    detected_NC = probability_NC > 1 / probability_NC.shape[1]
    rate_LC = np.stack([detected_NC[label_N == language].mean(0) for language in present])[:, present]
    hit_L = np.diag(rate_LC)
    alarm_L = (rate_LC.sum(0) - hit_L) / (len(present) - 1)
    return float(((1 - hit_L) / 2 + alarm_L / 2).mean())


def d_prime(auc: float) -> float:
    """Distance of two normal distributions of variance 1 that have this area under the curve."""
    if not 0 < auc < 1:
        return math.inf * (auc - 0.5)  # nan stays nan
    return math.sqrt(2) * NormalDist().inv_cdf(auc)


def operating_points(score_N: Floats, truth_N: Marks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hits and false alarms when everything of a score at least t is taken, for each t that there is, falling.

    Equal scores are taken together, so no order among them matters.
    """
    order = np.argsort(-score_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)
    hits = np.cumsum(truth_N[order])[last]
    return hits, last + 1 - hits


def average_precision(score_N: Floats, truth_N: Marks) -> float | None:
    """Sum over thresholds of precision times the recall gained there; None without a positive."""
    if not truth_N.any():
        return None
    hits, alarms = operating_points(score_N, truth_N)
    return float((np.diff(hits, prepend=0) / hits[-1] * hits / (hits + alarms)).sum())


def area(score_N: Floats, truth_N: Marks) -> float | None:
    """Area under the receiver operating characteristic, by trapezoids; None without a positive or a negative."""
    if truth_N.all() or not truth_N.any():
        return None
    hits, alarms = operating_points(score_N, truth_N)
    heights = hits + np.concatenate([[0], hits[:-1]])
    return float((np.diff(alarms, prepend=0) * heights).sum() / (2 * int(hits[-1]) * int(alarms[-1])))


def _mean(values: list[float | None]) -> float:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else math.nan


def _f1(guess_NC: Marks, truth_NC: Marks) -> dict[str, float]:
    """Of a class 0 where it is neither guessed nor true, as scikit-learn has it."""
    hit_C, sum_C = (guess_NC & truth_NC).sum(0), guess_NC.sum(0) + truth_NC.sum(0)
    f1_C = 2 * hit_C / np.maximum(sum_C, 1)
    return {"macro_f1": float(f1_C.mean()), "micro_f1": float(2 * hit_C.sum() / max(1, sum_C.sum()))}


def _rank(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """Place of the truth among the guesses, from 1; of equal ones the first class comes first, as in argmax."""
    own_N1 = logits_NC.gather(1, label_N[:, None])
    before_NC = torch.arange(logits_NC.shape[1]) < label_N[:, None]
    return 1 + ((logits_NC > own_N1) | ((logits_NC == own_N1) & before_NC)).sum(1)
