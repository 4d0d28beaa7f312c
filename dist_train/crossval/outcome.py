"""The finished runs of a cross-validation -> its figures: by fold and seed, and of all clips together.

deviation   sample standard deviation over folds, of each fold's mean over seeds
interval    95 % by Student's t over the seeds' means: how far another set of seeds would move the mean
pooled      scores of all clips at once, each by the model that had not heard it; a seed at a time
"""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_train import disk, feed, scored, view
from dist_train.crossval import book
from dist_train.crossval.child import spent
from dist_train.crossval.plan import Plan, Turn
from dist_train.scored import Scored
from dist_train.scores import Scores
from dist_train.scoring import figures, intervals, student

WORST = 10  # confusions that are told
TOLD = {False: ("accuracy", "macro_f1"), True: ("map", "auc")}  # beside the run's own score, with an interval


@dataclass(frozen=True)
class Done:
    """A finished run. value: of the final model; best: of the checkpoint that the validation fold chose, if one did."""

    turn: Turn
    value: float
    best: float | None
    result: dict[str, Any]
    scored: Scored


def found(plan: Plan) -> list[Done]:
    """All finished runs of the name, whatever job trained them. ValueError for one of other settings or clips."""
    runs = []
    for folder in sorted(plan.root.glob("seed-*/fold-*/")):
        seed, fold = folder.parent.name.removeprefix("seed-"), folder.name.removeprefix("fold-")
        if not (seed.isdecimal() and fold.isdecimal() and int(fold) in plan.folds):
            continue
        turn = plan.turn(int(seed), int(fold))
        if book.finished(turn):
            runs.append(_done(turn, plan.metric))
    return sorted(runs, key=lambda one: (one.turn.seed, one.turn.fold))


def _done(turn: Turn, metric: str) -> Done:
    try:
        result = json.loads((turn.folder / "result.json").read_text(encoding="utf-8"))
        value, kind = result["value"], result["set"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{turn.folder / 'result.json'}: damaged ({error}); take the folder away and go on") from None
    clips = scored.read(turn.folder)
    if kind != "eval" or len(clips.keys) != turn.clips:
        raise ValueError(
            f"{turn.folder}: scores {len(clips.keys)} clips, fold {turn.fold} has {turn.clips}; take the folder away "
            "and go on"
        )
    best = result["best"].get(metric) if "best" in result else None
    return Done(turn, math.nan if value is None else value, best, result, clips)


def pooled(runs: list[Done]) -> dict[int, Scored]:
    """The clips of each seed's folds as one."""
    seeds = sorted({one.turn.seed for one in runs})
    return {seed: scored.pool([one.scored for one in runs if one.turn.seed == seed]) for seed in seeds}


def groups(plan: Plan) -> dict[str, int]:
    """The recording or speaker of each clip by its key, 0 for none: what is resampled together."""
    whole = view.choose(feed.opened(plan.config, plan.config.data.shards))
    ids = np.arange(len(whole))
    return dict(zip((whole.key(number) for number in ids.tolist()), whole.rows(ids)["group"].tolist(), strict=True))


def summary(plan: Plan, runs: list[Done]) -> dict[str, Any]:
    """What crossval.json tells of the results; `missing`: [seed, fold] of what is not there."""
    seeds = sorted({one.turn.seed for one in runs} | set(plan.seeds))
    there = {(one.turn.seed, one.turn.fold): one for one in runs}
    clips = pooled(runs)
    k = plan.config.evaluation.k
    whole = {seed: figures.of(part, k) for seed, part in clips.items()}
    known = groups(plan)
    spans = {seed: _spans(plan, part, known) for seed, part in clips.items()}
    return {
        "metric": plan.metric,
        "seeds": seeds,
        "folds": list(plan.folds),
        "missing": [[seed, fold] for seed in seeds for fold in plan.folds if (seed, fold) not in there],
        **over(plan.folds, {key: one.value for key, one in there.items()}),
        "best": over(plan.folds, {key: one.best for key, one in there.items() if one.best is not None}) or None,
        "pooled": [
            {"seed": seed, "clips": one.clips, **one.values, "intervals": spans[seed]} for seed, one in whole.items()
        ],
        "ensemble": _ensemble(plan, clips, known),
        **_confused(whole, next(iter(clips.values())).classes if clips else ()),
        "seconds": sum(spent(one.turn) for one in runs),
        "runs": [_row(one) for one in runs],
    }


def _ensemble(plan: Plan, clips: dict[int, Scored], known: dict[str, int]) -> dict[str, Any] | None:
    """All clips, each by the mean of the probabilities of all seeds' models that had not heard it; None of one seed."""
    if len(clips) < 2:
        return None
    whole = together(list(clips.values()))
    values = figures.of(whole, plan.config.evaluation.k).values
    return {"clips": len(whole.keys), **values, "intervals": _spans(plan, whole, known)}


def _spans(plan: Plan, clips: Scored, known: dict[str, int]) -> dict[str, list[float]]:
    """95 % bootstrap intervals, where they mean something, over clips or their recordings or speakers where known."""
    names = list(dict.fromkeys([plan.metric, *TOLD[clips.several]]))
    group_N = np.array([known[key] for key in clips.keys.tolist()], np.uint64)
    found = intervals.bootstrap(clips, names, groups=group_N)
    return {name: list(ends) for name, ends in found.items() if all(map(math.isfinite, ends))}


def over(folds: tuple[int, ...], values: dict[tuple[int, int], float]) -> dict[str, Any]:
    """Mean over folds and seeds of `values` by (seed, fold), and how they differ. Of a seed only what is there counts.

    {} where there is nothing.
    """
    if not values:
        return {}
    by_fold = [[value for (_, there), value in values.items() if there == fold] for fold in folds]
    by_seed: dict[int, list[float]] = {}
    for (seed, _), value in values.items():
        by_seed.setdefault(seed, []).append(value)
    fold_means = [statistics.fmean(column) for column in by_fold if column]
    seed_means = {seed: statistics.fmean(column) for seed, column in by_seed.items()}
    return {
        "mean": statistics.fmean(seed_means.values()),
        "deviation_over_folds": _deviation(fold_means) if len(fold_means) > 1 else None,
        "seed_means": {str(seed): mean for seed, mean in seed_means.items()},
        "interval_over_seeds": interval(list(seed_means.values())),
    }


def interval(values: list[float], level: float = 0.95) -> list[float] | None:
    """Low and high end by Student's t; None of fewer than two values."""
    if len(values) < 2:
        return None
    half = student.quantile(len(values) - 1, level) * _deviation(values) / math.sqrt(len(values))
    return [statistics.fmean(values) - half, statistics.fmean(values) + half]


def _deviation(values: list[float]) -> float:
    """Of a sample; NaN where a fold's score means nothing, of which `statistics.stdev` makes an AttributeError."""
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def worst(matrix_CC: Any, classes: tuple[str, ...], most: int = WORST) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for one another most, the most clips first."""
    counts = np.asarray(matrix_CC)
    totals = counts.sum(1)
    pairs = [(int(counts[row, column]), row, column) for row, column in np.argwhere(counts) if row != column]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {"truth": classes[row], "guess": classes[column], "clips": count, "of": int(totals[row])}
        for count, row, column in pairs[:most]
    ]


def _confused(whole: dict[int, Scores], classes: tuple[str, ...]) -> dict[str, Any]:
    """The confusion matrices of all seeds added, and what is worst in it; of several labels each class's precision."""
    matrices = [one.confusion for one in whole.values() if one.confusion is not None]
    if matrices:
        matrix_CC = torch.stack(matrices).sum(0).tolist()
        return {"classes": list(classes), "confusion": matrix_CC, "worst": worst(matrix_CC, classes)}
    return {"classes": list(classes), "confusion": None}


def _row(one: Done) -> dict[str, Any]:
    turn = one.turn
    return {
        "seed": turn.seed,
        "fold": turn.fold,
        "value": one.value,
        "best": one.best,
        "clips": turn.clips,
        "seconds": spent(turn),
        "run": str(turn.folder),
    }


def save(plan: Plan) -> dict[str, Any]:
    """Pool what is finished and write crossval.json, scores.npz, confusion.png; what crossval.json holds of it.

    ValueError where nothing is finished.
    """
    with book.exclusive(plan.root):  # two that end at once: the second finds what the first had too
        runs = found(plan)
        if not runs:
            raise ValueError(f"{plan.root}: no fold is finished yet; nothing to pool")
        results = summary(plan, runs)
        clips = pooled(runs)
        for seed, part in clips.items():
            scored.write(plan.root / f"seed-{seed}" / "scores.npz", part)
        scored.write(plan.root / "scores.npz", together(list(clips.values())))
        _draw(plan.root, results, clips)
        book.write(plan, results)
    return results


def together(parts: list[Scored]) -> Scored:
    """Each clip once: the mean of its probabilities over seeds, which is what an ensemble of their models would say."""
    if len(parts) == 1:
        return parts[0]
    keys, first, whose = np.unique(
        np.concatenate([part.keys for part in parts]), return_index=True, return_inverse=True
    )
    probability_MC = np.concatenate([part.probability_NC for part in parts])
    total_NC = np.zeros((len(keys), probability_MC.shape[1]))
    np.add.at(total_NC, whose, probability_MC)
    bad = np.concatenate([part.bad for part in parts])[first]
    truth = np.concatenate([part.truth for part in parts])[first]
    return Scored(keys, parts[0].classes, truth, total_NC / np.bincount(whose)[:, None], bad)


def _draw(root: Path, results: dict[str, Any], clips: dict[int, Scored]) -> None:
    """confusion.png, of all seeds; of several labels precision.png."""
    from dist_train import picture

    classes = results["classes"]
    if results["confusion"] is not None:
        name, figure = "confusion", picture.confusion(torch.tensor(results["confusion"]), classes)
    else:
        name, figure = "precision", picture.precisions(_precision(together(list(clips.values()))), classes)
    disk.replace(root / f"{name}.png", lambda file: file.write(picture.png(figure)))


def _precision(clips: Scored) -> dict[str, list[float | None]]:
    return figures.of(clips).classes
