"""Figures, intervals, calibration, thresholds, ensembles, McNemar's test: by scikit-learn, SciPy and brute force."""

import csv
import math
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from dist_train import scored
from dist_train.scored import Scored
from dist_train.scoring import (
    calibration,
    classwise,
    ensemble,
    figures,
    intervals,
    listing,
    mcnemar,
    ranked,
    resampling,
    tallies,
    thresholds,
    unknown,
)
from dist_train.scoring.ranking import Ranking

if TYPE_CHECKING:
    from launches import Run

NAMES = ("犬", "<b>x</b>", "$y$", "a, b", 'say "no"', "مطر", "=1+1")


def made(clips: int, several: bool = False, seed: int = 0, classes: int = 5, bad: float = 0.05) -> Scored:
    """Scores of a model that is right more often than not; the last class is neither true nor guessed."""
    random = np.random.default_rng(seed)
    unreadable = random.random(clips) < bad
    if several:
        truth = (random.random((clips, classes)) < 0.3).astype(np.int64)
        truth[:, -1] = 0
        probability_NC = 1 / (1 + np.exp(1.2 - 2.4 * truth - random.normal(size=truth.shape) * 1.3))
        probability_NC = np.where(unreadable[:, None], truth == 0, probability_NC)
    else:
        truth = random.integers(0, classes - 1, clips)
        logits_NC = random.normal(size=(clips, classes)) + 1.7 * np.eye(classes)[truth]
        logits_NC[:, -1] -= 20
        probability_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(1, keepdims=True)
        unreadable &= truth < classes - 2
        probability_NC[unreadable] = np.eye(classes)[truth[unreadable] + 1]
    keys = np.array([f"clip{number:05d}" for number in range(clips)])
    return Scored(keys, NAMES[:classes], truth, probability_NC.astype(np.float64), unreadable)


def taken(part: Scored, ids: np.ndarray) -> Scored:
    return Scored(part.keys[ids], part.classes, part.truth[ids], part.probability_NC[ids], part.bad[ids])


@pytest.mark.parametrize("several", [False, True])
def test_figures_of_classes_are_those_of_scikit_learn(several: bool) -> None:
    part = made(300, several)
    found = figures.of(part)
    true_NC = part.truth if several else np.eye(5, dtype=int)[part.truth]
    said_NC = part.probability_NC > 0.5 if several else np.eye(5, dtype=int)[part.probability_NC.argmax(1)]
    theirs = metrics.precision_recall_fscore_support(true_NC, said_NC, zero_division=np.nan)
    for name, column in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        ours = [math.nan if value is None else value for value in found.classes[name]]
        np.testing.assert_allclose(ours, column, atol=1e-12, err_msg=name)
    for number in range(4):
        theirs_ap = metrics.average_precision_score(true_NC[:, number], part.probability_NC[:, number])
        assert found.classes["average_precision"][number] == pytest.approx(theirs_ap, abs=1e-12)
    assert found.classes["average_precision"][4] is None
    there = [value for value in found.classes["f1"] if value is not None]
    if not several:
        assert found.values["macro_f1"] == pytest.approx(np.mean(there), abs=1e-6)
        readable = ~part.bad
        mean = metrics.log_loss(part.truth[readable], part.probability_NC[readable], labels=range(5)) * readable.sum()
        assert found.values["loss"] == pytest.approx((mean + part.bad.sum() * math.log(5)) / 300, abs=1e-12)
    assert found.values["accuracy"] == figures.right(part).mean()


def test_figures_of_a_run_are_its_result(finished: "Run") -> None:
    result, found = finished.result(), figures.of(scored.read(finished.folder))
    for name, value in found.values.items():
        assert value == pytest.approx(result[name], abs=1e-9), name
    assert found.confusion is not None and found.confusion.tolist() == result["confusion"]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_draw_is_the_score_of_the_clips_drawn(several: bool, grouped: bool) -> None:
    part = made(60, several, seed=0)
    assert part.bad.sum() > 2
    group_N = np.arange(60, dtype=np.uint64) // 3 if grouped else None  # group 0: three clips alone
    names = list(figures.of(part).values)
    drawn = intervals._drawn(part, names, 5, 7, resampling.units(group_N), paired=True)
    weights = np.concatenate(list(resampling.weights(60, 5, 7, resampling.units(group_N))))
    for draw, weight_N in enumerate(weights.astype(int)):
        values = figures.of(taken(part, np.repeat(np.arange(60), weight_N))).values
        for name in names:
            assert drawn[name][1][draw] == pytest.approx(values[name], abs=2e-6), name  # torchmetrics counts in float32
    assert {name: drawn[name][0] for name in names} == pytest.approx(figures.of(part).values, abs=2e-6)
    assert grouped or (weights.sum(1) == 60).all()


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    held, by_clip, by_group = 0, 0, 0
    for _ in range(150):
        right_N = random.random(120) < 0.8
        held += _holds(_guesses(right_N), None, 0.8)
        rates = random.choice([0.45, 1.0], 40, p=[0.4, 0.6])  # what a recording's clips have in common: .78 in the mean
        right_N = random.random(160) < np.repeat(rates, 4)
        groups = np.repeat(np.arange(1, 41), 4).astype(np.uint64)
        by_group += _holds(_guesses(right_N), groups, 0.78)
        by_clip += _holds(_guesses(right_N), None, 0.78)
    assert 0.90 <= held / 150 <= 0.99
    assert by_group / 150 >= 0.87
    assert by_clip / 150 <= 0.84  # clips of one recording say less than as many of others


def test_an_interval_has_a_width_where_draws_are_biased() -> None:
    """The calibration error of a model that is calibrated: that of every draw is larger."""
    random = np.random.default_rng(0)
    chance_NC = np.exp(random.normal(size=(80, 10)))
    chance_NC /= chance_NC.sum(1, keepdims=True)
    truth = (chance_NC.cumsum(1) > random.random((80, 1))).argmax(1)
    part = Scored(np.arange(80).astype(str), tuple("abcdefghij"), truth, chance_NC, np.zeros(80, np.bool_))
    value = figures.of(part).values["ece"]
    low, high = intervals.bootstrap(part, ["ece"])["ece"]
    assert 0 <= low < value < high and high - low > 0.05


def test_draws_equal_to_the_score_are_on_both_sides_of_it() -> None:
    low, high = intervals.bootstrap(_guesses(np.arange(20) % 2 == 0), ["accuracy"], 4000)["accuracy"]
    assert low + high == pytest.approx(1, abs=0.03)


def test_a_draw_without_a_class_of_both_kinds_is_left_out_in_silence() -> None:
    truth = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 0]])
    part = Scored(np.array([*"abcde"]), ("x", "y"), truth, 0.2 + 0.5 * truth, np.zeros(5, np.bool_))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert intervals.bootstrap(part, ["auc"]) == {"auc": (1.0, 1.0)}


def _guesses(right_N: np.ndarray) -> Scored:
    probability_NC = np.where(right_N[:, None], [0.7, 0.3], [0.3, 0.7])
    keys = np.arange(len(right_N)).astype(str)
    return Scored(keys, ("a", "b"), np.zeros(len(keys), np.int64), probability_NC, np.zeros(len(keys), np.bool_))


def test_pairs_are_drawn_alike_by_cells_and_by_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    first, second = (_guesses(random.random(400) < rate) for rate in (0.7, 0.8))
    cells = intervals.difference(first, second, ["accuracy"], 2000)["accuracy"]
    monkeypatch.setattr(intervals, "_kinds", lambda tally, unit_N: None)
    clips = intervals.difference(first, second, ["accuracy"], 2000)["accuracy"]
    assert cells == pytest.approx(clips, abs=0.01)


def _holds(part: Scored, groups: np.ndarray | None, value: float) -> bool:
    low, high = intervals.bootstrap(part, ["accuracy"], 400, groups=groups)["accuracy"]
    return low <= value <= high


@pytest.mark.parametrize("name", ["loss", "ece"])
def test_neighbours_in_value_are_as_good_as_each_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = made(2000, seed=5)
    low, high = intervals.bootstrap(part, [name], 400)[name]
    monkeypatch.setattr(tallies, "_ALONE", 100)
    monkeypatch.setattr(tallies, "_POOLED", 100)
    assert tallies.of(part, name).size < 1000
    assert intervals.bootstrap(part, [name], 400)[name] == pytest.approx((low, high), abs=(high - low) / 10)


def test_the_interval_where_no_draw_differs() -> None:
    for rights in (np.ones(50, np.bool_), np.zeros(50, np.bool_)):
        found = intervals.bootstrap(_guesses(rights), ["accuracy"])["accuracy"]
        exact = stats.binomtest(int(rights.sum()), 50).proportion_ci(0.95, "exact")
        assert found == pytest.approx((exact.low, exact.high), abs=1e-12)
    pairs = np.repeat(np.arange(1, 26), 2).astype(np.uint64)
    exact = stats.binomtest(25, 25).proportion_ci(0.95, "exact")
    found = intervals.bootstrap(_guesses(np.ones(50, np.bool_)), ["accuracy"], groups=pairs)["accuracy"]
    assert found == pytest.approx((exact.low, 1.0), abs=1e-12)


def test_of_a_few_clips_or_groups_there_is_no_interval() -> None:
    """All draws of a single group are alike: that is no certainty."""
    part = _guesses(np.arange(40) % 3 > 0)
    for groups in (np.full(40, 7, np.uint64), np.arange(40, dtype=np.uint64) % 4 + 1):
        found = intervals.bootstrap(part, ["accuracy", "macro_f1"], groups=groups)
        assert np.isnan([*found["accuracy"], *found["macro_f1"]]).all()
        assert np.isnan(intervals.difference(part, part, ["accuracy"], groups=groups)["accuracy"]).all()
    low, high = intervals.bootstrap(part, ["accuracy"], groups=np.arange(40, dtype=np.uint64) % 5 + 1)["accuracy"]
    assert low < high
    one = intervals.bootstrap(_guesses(np.ones(1, np.bool_)), ["accuracy", "macro_f1"])
    assert one["accuracy"] == pytest.approx((0.025, 1.0)) and np.isnan(one["macro_f1"]).all()  # Clopper and Pearson's


@pytest.mark.parametrize("clips", [200_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_a_million_clips_take_little_memory(clips: int) -> None:
    part = _guesses(np.random.default_rng(0).random(clips) < 0.9)
    tracemalloc.start()
    groups = np.arange(clips, dtype=np.uint64) // 4 + 1
    plain, grouped = (intervals.bootstrap(part, ["accuracy"], groups=one)["accuracy"] for one in (None, groups))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 * clips
    half = 1.96 * math.sqrt(0.9 * 0.1 / clips)
    moved = np.random.default_rng(1).permutation(clips)
    other = replace(part, probability_NC=part.probability_NC[moved])
    low, high = intervals.difference(part, other, ["accuracy"], groups=groups)["accuracy"]
    assert (high - low) / 2 == pytest.approx(math.sqrt(2) * half, rel=0.15)
    for low, high in (plain, grouped):  # groups of clips that have nothing in common are as good as clips
        assert (high - low) / 2 == pytest.approx(half, rel=0.15)


def test_labels_ranked_together_are_as_many_at_once_as_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    part = made(40, several=True, classes=5)
    whole = intervals.bootstrap(part, ["micro_map"])
    monkeypatch.setattr(resampling, "CHUNK", 1 << 14)
    tracemalloc.start()
    found = intervals.bootstrap(part, ["micro_map"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 8 * resampling.CHUNK
    assert found == whole


@pytest.mark.parametrize("kind", ["precision", "area"])
def test_influences_are_derivatives(kind: str) -> None:
    part = made(40, True, seed=2)
    score_N = part.probability_NC[:, 0].round(1)  # with equal ones
    ranking = Ranking(score_N, part.truth[:, 0] > 0)
    value = ranking.average_precision if kind == "precision" else ranking.area
    found = ranking.precision_influence() if kind == "precision" else ranking.area_influence()
    step = 1e-6
    high, low = (value(np.ones((40, 40)) + sign * step * np.eye(40)) for sign in (1, -1))
    np.testing.assert_allclose(found, (high - low) / (2 * step), atol=1e-8)
    assert found.sum() == pytest.approx(0, abs=1e-12)  # twice each clip changes nothing


def test_intervals_of_rankings_without_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    part = made(500, True, seed=4)
    groups = np.arange(500, dtype=np.uint64) // 2 + 1
    names = ["map", "micro_map", "auc", "d_prime"]
    drawn = intervals.bootstrap(part, names, 600, groups=groups)
    monkeypatch.setattr(ranked, "_MOST", 0)
    linear = intervals.bootstrap(part, names, 600, groups=groups)
    for name in names:
        widths = [high - low for low, high in (drawn[name], linear[name])]
        assert widths[1] == pytest.approx(widths[0], rel=0.15), name
        assert linear[name] == pytest.approx(drawn[name], abs=0.25 * widths[0]), name


def test_differences_of_rankings_without_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(500, True, seed=4)
    noise_NC = np.random.default_rng(6).normal(size=first.probability_NC.shape)
    logits_NC = (figures.log_odds(first.probability_NC) + noise_NC).clip(-30, 30)
    second = replace(first, probability_NC=1 / (1 + np.exp(-logits_NC)))
    groups = np.arange(500, dtype=np.uint64) // 2 + 1
    names = ["map", "micro_map", "auc", "d_prime"]
    drawn = intervals.difference(first, second, names, 600, groups=groups)
    monkeypatch.setattr(ranked, "_MOST", 0)
    linear = intervals.difference(first, second, names, 600, groups=groups)
    for name in names:
        widths = [high - low for low, high in (drawn[name], linear[name])]
        assert widths[1] == pytest.approx(widths[0], rel=0.15), name
        assert linear[name] == pytest.approx(drawn[name], abs=0.25 * widths[0]), name
    assert intervals.difference(first, first, ["map", "d_prime"]) == {"map": (0, 0), "d_prime": (0, 0)}


@pytest.mark.parametrize("several", [False, True])
def test_differences_are_drawn_in_pairs(several: bool) -> None:
    first = made(200, several, seed=5)
    name = "map" if several else "accuracy"
    same = intervals.difference(first, first, [name])
    assert same[name] == (0.0, 0.0)
    noise = np.exp(np.random.default_rng(6).normal(size=first.probability_NC.shape) * 0.7)
    second = replace(first, probability_NC=np.clip(first.probability_NC * noise, 0, 1))
    low, high = intervals.difference(first, second, [name, "loss"])[name]
    gain = figures.of(second).values[name] - figures.of(first).values[name]
    assert low <= gain <= high
    alone = intervals.bootstrap(first, [name])[name]
    assert high - low < alone[1] - alone[0]  # what makes a clip hard it does to both
    if not several:
        one, two = figures.right(first), figures.right(second)
        variance = np.var(two.astype(float) - one.astype(float)) / 200
        assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=0.2)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("power", [2, 0.5])
def test_calibration_and_its_mending(several: bool, power: float) -> None:
    random = np.random.default_rng(8)
    logits_NC = random.normal(size=(6000, 3)) * 2
    if several:
        truth = (random.random((6000, 3)) < 1 / (1 + np.exp(-logits_NC))).astype(np.int64)
        said_NC = 1 / (1 + np.exp(-power * logits_NC))
    else:
        odds = np.exp(logits_NC)
        truth = (random.random((6000, 1)) > (odds / odds.sum(1, keepdims=True)).cumsum(1)).sum(1).clip(0, 2)
        said_NC = odds**power / (odds**power).sum(1, keepdims=True)
    keys = np.arange(6000).astype(str)
    part = Scored(keys, ("a", "b", "c"), truth, said_NC, np.zeros(6000, np.bool_))
    found = calibration.of(part)
    assert found is not None and sum(one.cases for one in found.bins) == (18000 if several else 6000)
    if not several:
        assert found.ece == pytest.approx(figures.of(part).values["ece"], abs=1e-5)
    assert (found.over > 0) == (power > 1)
    chosen = calibration.temperature(part)
    assert chosen == pytest.approx(power, rel=0.06)  # the model is twice as sure as it may be, or half
    mended = calibration.scaled(part, chosen)
    after = calibration.of(mended)
    assert after is not None and after.ece < found.ece / 3
    np.testing.assert_array_equal(mended.probability_NC.argmax(1), said_NC.argmax(1))
    # unreadable clips, as sure as can be, have no part in it
    broken = replace(part, bad=np.arange(6000) % 2 == 0)
    broken.probability_NC[broken.bad] = np.eye(3)[0]
    assert calibration.temperature(broken) == pytest.approx(power, rel=0.1)


def test_thresholds_of_labels_are_the_best_there_are() -> None:
    part = made(200, True, seed=9, bad=0)
    found = thresholds.best(part)
    assert found[4] is None and thresholds.f1(part, found)[4] is None
    for number, reached in enumerate(thresholds.f1(part, found)[:4]):
        truth_N, score_N = part.truth[:, number], part.probability_NC[:, number]
        said = [score_N >= one for one in score_N]
        best = max(2 * (one & (truth_N > 0)).sum() / (one.sum() + truth_N.sum()) for one in said)
        assert reached == pytest.approx(best, abs=1e-12)
        assert found[number] not in score_N  # between two: another machine's last bit changes nothing


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("precision", [0.7, 0.9])
@pytest.mark.parametrize("digits", [1, 16])
def test_unknown_keeps_as_many_as_have_the_precision(several: bool, precision: float, digits: int) -> None:
    part = made(300, several, seed=10)
    part = replace(part, probability_NC=part.probability_NC.round(digits))  # with equal ones, or without
    found = unknown.choose(part, precision, "valid", False)
    said_N, right_N = part.probability_NC.max(1)[~part.bad], figures.right(part)[~part.bad]
    kept = said_N >= found.threshold
    assert right_N[kept].mean() == pytest.approx(found.reached) and found.reached >= precision
    assert kept.mean() == pytest.approx(found.kept) and found.clips == len(said_N)
    lower = [one for one in said_N if one < found.threshold]
    assert all(right_N[said_N >= one].mean() < precision for one in lower)


def test_unknown_is_written_and_read(tmp_path: Path) -> None:
    assert unknown.read(tmp_path) is None
    part = made(100, bad=0)
    unknown.write(tmp_path, chosen := unknown.choose(part, 0.9, "evaluation", True))
    assert unknown.read(tmp_path) == chosen.threshold
    everything = unknown.choose(part, 0.01, "evaluation", True)
    assert everything.threshold == 0 and everything.kept == 1
    for text in ("", "[]", '{"threshold": 2}', '{"threshold": true}', '{"threshold": null}'):
        (tmp_path / "unknown.json").write_text(text)
        with pytest.raises(ValueError, match=r"unknown\.json: .*choose it again"):
            unknown.read(tmp_path)
    wrong = _guesses(np.zeros(20, np.bool_))
    with pytest.raises(ValueError, match=r"no threshold has precision 0.9 on 20 clips of the valid set"):
        unknown.choose(wrong, 0.9, "valid", False)
    with pytest.raises(ValueError, match="between 0 and 1"):
        unknown.choose(part, 95, "valid", False)


@pytest.mark.parametrize("several", [False, True])
def test_ensembles(several: bool) -> None:
    first, second = made(50, several, seed=1, bad=0), made(50, several, seed=1, bad=0)
    noise = np.random.default_rng(0).uniform(0.2, 1, second.probability_NC.shape)
    second = replace(second, probability_NC=second.probability_NC * noise)
    if not several:
        second.probability_NC[:] /= second.probability_NC.sum(1, keepdims=True)
    clips, columns = np.random.default_rng(1).permutation(50), np.array([3, 0, 4, 1, 2])
    truth = second.truth[clips][:, columns] if several else np.argsort(columns)[second.truth[clips]]
    moved = Scored(
        second.keys[clips],
        tuple(second.classes[one] for one in columns),
        truth,
        second.probability_NC[clips][:, columns],
        second.bad[clips],
    )
    found = ensemble.mean([first, moved])
    np.testing.assert_allclose(found.probability_NC, (first.probability_NC + second.probability_NC) / 2, atol=1e-15)
    by_logits = ensemble.mean([first, moved], "logits").probability_NC
    if several:
        odds = [one.probability_NC / (1 - one.probability_NC) for one in (first, second)]
        np.testing.assert_allclose(by_logits / (1 - by_logits), np.sqrt(odds[0] * odds[1]), rtol=1e-9)
    else:
        product = np.sqrt(first.probability_NC * second.probability_NC)
        np.testing.assert_allclose(by_logits, product / product.sum(1, keepdims=True), atol=1e-12)
    half = replace(moved, bad=np.arange(50) < 10)  # what one cannot read the other says alone
    alone = clips[:10]
    np.testing.assert_array_equal(ensemble.mean([first, half]).probability_NC[alone], first.probability_NC[alone])
    with pytest.raises(ValueError, match="different clips"):
        ensemble.mean([first, taken(second, np.arange(49))])
    with pytest.raises(ValueError, match="other labels"):
        ensemble.mean([first, replace(second, truth=1 - second.truth if several else (second.truth + 1) % 5)])
    with pytest.raises(ValueError, match="different classes"):
        ensemble.mean([first, replace(second, classes=("v", "w", "x", "y", "z"))])


@pytest.mark.parametrize(
    ("one", "two"), [(0, 0), (5, 0), (3, 9), (10, 10), (40, 61), (499, 501), (700, 800), (2000, 2001)]
)
def test_mcnemar(one: int, two: int) -> None:
    first = np.array([True] * (7 + one) + [False] * (two + 4))
    second = np.array([True] * 7 + [False] * one + [True] * two + [False] * 4)
    found = mcnemar.test(first, second)
    assert (found.both, found.first, found.second, found.neither) == (7, one, two, 4)
    if one + two <= 1000:
        exact = stats.binomtest(one, one + two).pvalue if one + two else 1.0
        assert found.p == pytest.approx(exact, rel=1e-9) and found.method == "exact binomial"
    else:
        statistic = (abs(one - two) - 1) ** 2 / (one + two)
        assert found.p == pytest.approx(stats.chi2.sf(statistic, 1), rel=1e-9)
        assert found.p == pytest.approx(stats.binomtest(one, one + two).pvalue, rel=0.05)


@pytest.mark.parametrize("several", [False, True])
def test_the_listing_holds_names_of_any_kind(several: bool, tmp_path: Path) -> None:
    part = made(40, several, classes=7)
    listing.write(tmp_path / "s.csv", part, 0.6)
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == part.keys.tolist() and tuple(rows[0])[5:] == NAMES
    for number, row in enumerate(rows):
        if part.bad[number]:
            assert row["guess"] == row[NAMES[0]] == "" and row["right"] == "false"
            continue
        assert [float(row[name]) for name in NAMES] == part.probability_NC[number].tolist()
        assert row["right"] == str(bool(figures.right(part)[number])).lower()
        sure = part.probability_NC[number].max() >= 0.6
        assert row["known"] == str(bool(sure)).lower() and (row["guess"] == "unknown") != sure


def test_a_class_of_many_independent_clips_has_wilsons_interval() -> None:
    part = made(6000)
    found = classwise.of(part)
    hits, said, true = figures.counts(part)
    for number in range(4):
        for name, whole in (("recall", true), ("precision", said)):
            theirs = stats.binomtest(int(hits[number]), int(whole[number])).proportion_ci(method="wilson")
            span = found[name][number]
            assert span is not None
            np.testing.assert_allclose(span, (theirs.low, theirs.high), atol=5e-4)
    assert [found[name][4] for name in ("recall", "precision", "f1", "average_precision")] == [None] * 4


@pytest.mark.parametrize("several", [False, True])
def test_copies_of_a_clip_in_its_group_make_no_class_surer(several: bool) -> None:
    part = made(80, several)
    alone = classwise.of(part, np.arange(1, 81, dtype=np.uint64))
    copied = classwise.of(taken(part, np.tile(np.arange(80), 5)), np.tile(np.arange(1, 81, dtype=np.uint64), 5))
    careless = classwise.of(taken(part, np.tile(np.arange(80), 5)))
    for name, spans in alone.items():
        for number, span in enumerate(spans[:4]):
            value, loose, other = figures.of(part).classes[name][number], careless[name][number], copied[name][number]
            assert span is not None and loose is not None and other is not None and value is not None
            np.testing.assert_allclose(span, other, atol=1e-9, err_msg=name)
            assert span[0] <= value <= span[1] and loose[1] - loose[0] < 0.65 * (span[1] - span[0])


def test_intervals_of_classes_hold_the_truth_as_often_as_they_say() -> None:
    random, inside = np.random.default_rng(0), dict[str, list[bool]]()

    def drawn(recordings: int) -> tuple[Scored, np.ndarray]:
        """Four clips a recording, each recording as hard as it is."""
        truth = np.repeat(random.integers(0, 3, recordings), 4)
        right = random.random(4 * recordings) < np.repeat(random.beta(0.8, 0.2, recordings), 4)
        guess = np.where(right, truth, (truth + random.integers(1, 3, len(truth))) % 3)
        probability_NC = 0.1 + 0.7 * np.eye(3)[guess] + 0.01 * random.random((len(truth), 3))
        keys = np.arange(len(truth)).astype(str)
        return Scored(keys, NAMES[:3], truth, probability_NC, right & False), np.repeat(np.arange(1, recordings + 1), 4)

    true = figures.of(drawn(50_000)[0]).classes
    for _ in range(150):
        for name, spans in classwise.of(*drawn(60)).items():
            low, high = spans[0] or (2.0, 2.0)
            inside.setdefault(name, []).append(low <= (true[name][0] or 0.0) <= high)
    for name, there in inside.items():
        assert 0.88 < float(np.mean(there)) < 1, name
