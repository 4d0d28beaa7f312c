"""Scores beside scikit-learn's and plain loops, on random probabilities with ties, bad clips, classes without clips."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from dist_train import config, scores

sklearn = pytest.importorskip("sklearn.metrics")


def _several(seed: int, clips: int = 60, classes: int = 5, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Logits that tell a little, some equal, and truth; each clip has a label."""
    random = np.random.default_rng(seed)
    truth_NC = random.uniform(size=(clips, classes)) < 0.3
    truth_NC[np.arange(clips), random.integers(0, classes, clips)] = True
    logits_NC = truth_NC + random.normal(size=(clips, classes))
    return (logits_NC.round(1) if ties else logits_NC), truth_NC


def _scored(logits_NC: np.ndarray, truth_NC: np.ndarray, bad: list[tuple[int, str]] | None = None) -> scores.Scores:
    return scores.several(torch.from_numpy(logits_NC), torch.from_numpy(truth_NC.astype(np.uint8)), bad or [])


@limits(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 7, 40]), st.booleans(), st.booleans())
def test_several_labels_as_scikit_learn_has_it(seed: int, clips: int, ties: bool, torn: bool) -> None:
    logits_NC, truth_NC = _several(seed, clips, 4, ties)
    found = _scored(logits_NC, truth_NC, [(1, "torn")] if torn else None)
    probability_NC, truth = found.probability_NC.numpy(), found.truth.numpy()
    held = truth.any(0)
    both = held & ~truth.all(0)
    average = sklearn.average_precision_score
    values = found.values
    assert values["map"] == pytest.approx(average(truth[:, held], probability_NC[:, held]), abs=1e-12)
    assert values["micro_map"] == pytest.approx(average(truth, probability_NC, average="micro"), abs=1e-12)
    if both.any():
        auc = np.mean([sklearn.roc_auc_score(truth[:, c], probability_NC[:, c]) for c in np.flatnonzero(both)])
        assert values["auc"] == pytest.approx(auc, abs=1e-12)
    for number, (precision, area) in enumerate(
        zip(found.classes["average_precision"], found.classes["auc"], strict=True)
    ):
        assert (precision is None) == (not held[number]) and (area is None) == (not both[number])
        if precision is not None:
            assert precision == pytest.approx(average(truth[:, number], probability_NC[:, number]), abs=1e-12)
    for kind in ("macro", "micro"):
        expected = sklearn.f1_score(truth, probability_NC > 0.5, average=kind, zero_division=0.0)
        assert values[f"{kind}_f1"] == pytest.approx(expected, abs=1e-12)
    good = np.delete(np.arange(clips), 1) if torn else np.arange(clips)
    losses = [sklearn.log_loss(truth[:, c], probability_NC[:, c], labels=[0, 1], normalize=False) for c in range(4)]
    if not torn:
        assert values["loss"] == pytest.approx(np.sum(losses) / clips / 4, abs=1e-12)
    right = truth_NC[np.arange(clips), logits_NC.argmax(1)][good].sum() / clips
    assert values["accuracy"] == pytest.approx(right)
    assert found.classes["positives"] == truth_NC.sum(0).tolist() and found.confusion is None


def test_d_prime() -> None:
    assert scores.d_prime(0.5) == pytest.approx(0)
    assert scores.d_prime(0.5 * (1 + math.erf(1 / 2))) == pytest.approx(1)  # normal(0, 1) against normal(1, 1)
    assert scores.d_prime(1.0) == math.inf and math.isnan(scores.d_prime(math.nan))


def test_a_bad_clip_of_several_labels_counts_as_wrong() -> None:
    logits_NC, truth_NC = _several(1, ties=False)
    logits_NC = np.where(truth_NC, 9.0, -9.0)
    assert _scored(logits_NC, truth_NC).values["map"] == 1
    found = _scored(logits_NC, truth_NC, [(4, "torn")])
    assert found.values["map"] < 1 and found.values["accuracy"] == pytest.approx(59 / 60)
    np.testing.assert_array_equal(found.probability_NC[4].numpy(), ~truth_NC[4])
    assert found.values["loss"] == pytest.approx((59 * math.log1p(math.exp(-9)) + math.log(2)) / 60)


def _single(seed: int, clips: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    label_N = random.integers(0, classes, clips)
    return random.normal(size=(clips, classes)) + 2 * np.eye(classes)[label_N], label_N


def test_a_class_without_clips_has_no_recall_to_average() -> None:
    logits_NC, label_N = _single(1, 60)
    logits_NC[:10], label_N = np.eye(5)[4], label_N % 4
    found = scores.single(torch.from_numpy(logits_NC), torch.from_numpy(label_N), [])
    guess_N = logits_NC.argmax(1)
    expected = np.mean([(guess_N == label_N)[label_N == label].mean() for label in range(4)])
    assert (guess_N == 4).any() and found.values["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


@limits(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_one_label_as_scikit_learn_has_it(seed: int, k: int, torn: bool) -> None:
    logits_NC, label_N = _single(seed, 80)
    found = scores.single(torch.from_numpy(logits_NC), torch.from_numpy(label_N), [(3, "torn")] if torn else [], k)
    probability_NC = found.probability_NC.numpy()
    guess_N = probability_NC.argmax(1)
    assume(len(np.unique(label_N)) == 5)
    assert found.values["accuracy"] == pytest.approx(sklearn.accuracy_score(label_N, guess_N))
    assert found.values["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(label_N, guess_N))
    assert found.values["macro_f1"] == pytest.approx(sklearn.f1_score(label_N, guess_N, average="macro"))
    credit = []
    for row, label in enumerate(label_N):
        order = np.argsort(-logits_NC[row]).tolist()[:k]
        credit.append(1 / (order.index(label) + 1) if label in order and not (torn and row == 3) else 0)
    assert found.values[f"map_at_{k}"] == pytest.approx(np.mean(credit), abs=1e-12)
    if not torn:
        assert found.values["loss"] == pytest.approx(sklearn.log_loss(label_N, probability_NC), abs=1e-12)


def test_calibration_error_by_bins() -> None:
    logits_NC, label_N = _single(3, 500, 4)
    found = scores.single(torch.from_numpy(logits_NC), torch.from_numpy(label_N), [])
    sure_N, right_N = found.probability_NC.numpy().max(1), logits_NC.argmax(1) == label_N
    error = 0.0
    for number in range(15):
        inside = (sure_N > number / 15) & (sure_N <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right_N[inside].mean() - sure_N[inside].mean())
    assert found.values["ece"] == pytest.approx(error, abs=1e-6)


def test_average_cost_by_pairs() -> None:
    logits_NC, label_N = _single(5, 300, 4)
    label_N[label_N == 2] = 1  # a language without clips
    probability_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(1, keepdims=True)
    costs = []
    for target in (0, 1, 3):
        miss = (probability_NC[label_N == target, target] <= 1 / 4).mean()
        alarms = [(probability_NC[label_N == other, target] > 1 / 4).mean() for other in (0, 1, 3) if other != target]
        costs.append(0.5 * miss + sum(0.5 / 2 * alarm for alarm in alarms))
    assert scores.average_cost(probability_NC, label_N) == pytest.approx(np.mean(costs), abs=1e-12)
    assert scores.average_cost(np.eye(4)[label_N], label_N) == 0
    assert math.isnan(scores.average_cost(probability_NC[:1], label_N[:1]))


def test_the_metric_fits_the_task() -> None:
    def name(**given: Any) -> str:
        return scores.metric(config.check(given, "test"))

    assert name() == "accuracy" and name(objective={"name": "bce"}) == "map"
    assert name(evaluation={"metric": "map_at_3"}) == "map_at_3" and name(evaluation={"metric": "cavg"}) == "cavg"
    with pytest.raises(ValueError, match=r"metric=map is not a score of clips of one class .*softmax.*map_at_3$"):
        name(evaluation={"metric": "map"})
    with pytest.raises(ValueError, match=r"metric=ece is not a score of clips of several labels"):
        name(evaluation={"metric": "ece"}, objective={"name": "bce"})
    with pytest.raises(ValueError, match=r"evaluation.k is for map_at_k"):
        name(evaluation={"k": 5}, objective={"name": "bce"})


def test_what_is_better() -> None:
    assert scores.better("accuracy", 0.5, 0.4) and not scores.better("map", 0.4, 0.5)
    assert scores.better("loss", 0.4, 0.5) and not scores.better("cavg", 0.5, 0.4) and scores.better("ece", 0.1, 0.2)
    assert scores.better("auc", 0.1, None) and scores.better("auc", 0.1, math.nan)
    assert not scores.better("auc", math.nan, 0.1) and not scores.better("loss", math.nan, 0.1)
