"""Several runs -> how they differ, as plain values: settings, curves, scores, and clip by clip against the first.

Clip by clip only those count that both scored. McNemar's test takes clips as independent; the interval of the
difference draws groups of clips, where the index has groups.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train import scores
from dist_train.scored import Scored
from dist_train.scoring import ensemble, figures, intervals, mcnemar, resampling
from dist_train.scoring.history import HELD, History, groups_of

LEVEL = 0.05  # p under which a difference is called one


def of(runs: Sequence[History], draws: int, level: float) -> dict[str, Any]:
    """`draws`: of the bootstrap, 0 for no intervals. ValueError: runs of different classes or tasks."""
    metric = _metric(runs[0])
    return {
        "runs": [{"name": one.name, "path": str(one.path)} for one in runs],
        "metric": metric,
        "settings": differing(runs),
        "scores": _scores(runs, draws, level),
        "level": level,
        "draws": draws,
        "pairs": [_pair(runs, one, metric, draws, level) for one in runs[1:]],
    }


def differing(runs: Sequence[History]) -> dict[str, list[Any]]:
    """Settings by key that are not the same in all runs that have any; None for a run without.

    What each run of a cross-validation holds out is no setting of the whole.
    """
    told = [one.settings() for one in runs]
    keys = dict.fromkeys(key for one in told for key in one)
    rows = {key: [one.get(key) for one in told] for key in keys if key not in HELD or not any(r.pooled for r in runs)}
    there = [number for number, one in enumerate(told) if one]
    return {key: row for key, row in rows.items() if any(row[number] != row[there[0]] for number in there)}


def common(first: Scored, second: Scored) -> tuple[Scored, Scored]:
    """The clips that both scored, in the first one's order. ValueError: other classes, or other labels of a clip."""
    kept = np.isin(first.keys, second.keys)
    one = _taken(first, kept)
    return one, ensemble.matched(one, _taken(second, np.isin(second.keys, first.keys)))


def _taken(part: Scored, kept: NDArray[np.bool_]) -> Scored:
    return Scored(part.keys[kept], part.classes, part.truth[kept], part.probability_NC[kept], part.bad[kept])


def _metric(run: History) -> str:
    if run.config is not None:
        return scores.metric(run.config)
    return "map" if run.scored.several else "accuracy"


def _scores(runs: Sequence[History], draws: int, level: float) -> list[dict[str, Any]]:
    """Every score of each run, on the clips of its own."""
    found = []
    for run in runs:
        k = run.config.evaluation.k if run.config is not None else 3
        values = figures.of(run.scored, k).values
        group_N = groups_of(run.scored.keys.tolist(), [run]) if draws else None
        drawn = intervals.bootstrap(run.scored, list(values), draws, level=level, groups=group_N) if draws else {}
        ends = {name: {"low": low, "high": high} for name, (low, high) in drawn.items()}
        found.append({name: {"value": value, **ends.get(name, {})} for name, value in values.items()})
    return found


def _pair(runs: Sequence[History], second: History, metric: str, draws: int, level: float) -> dict[str, Any]:
    """The second against the first."""
    first = runs[0]
    if not np.isin(first.scored.keys, second.scored.keys).any():
        return {"first": first.name, "second": second.name, "clips": 0}
    one, two = common(first.scored, second.scored)
    right_N, other_N = figures.right(one), figures.right(two)
    test = mcnemar.test(right_N, other_N)
    told: dict[str, Any] = {"first": first.name, "second": second.name, "clips": len(one.keys)}
    told |= {"mcnemar": asdict(test), "differ": test.p < LEVEL}
    guess_N, guessed_N = one.probability_NC.argmax(1), two.probability_NC.argmax(1)
    told["clips_that_differ"] = [
        {
            "key": str(one.keys[number]),
            "truth": truth(one, number),
            "first": one.classes[guess_N[number]] if not one.bad[number] else "",
            "second": one.classes[guessed_N[number]] if not two.bad[number] else "",
            "first_right": bool(right_N[number]),
            "second_right": bool(other_N[number]),
        }
        for number in np.flatnonzero((guess_N != guessed_N) | (right_N != other_N)).tolist()
    ]
    if not draws:
        return told
    group_N = groups_of(one.keys.tolist(), [first, second])
    names = list(dict.fromkeys([metric, "accuracy"]))
    spans = intervals.difference(one, two, names, draws, level=level, groups=group_N)
    k = int(metric.removeprefix("map_at_")) if metric.startswith("map_at_") else 3
    values = [figures.of(part, k).values for part in (one, two)]
    told["drawn"] = "clips" if resampling.units(group_N) is None else "groups"
    told["differences"] = {
        name: {"value": values[1][name] - values[0][name], "low": spans[name][0], "high": spans[name][1]}
        for name in names
    }
    return told


def truth(part: Scored, number: int) -> str:
    """The class of a clip; several labels are joined by `;`."""
    if not part.several:
        return part.classes[int(part.truth[number])]
    return ";".join(name for name, there in zip(part.classes, part.truth[number].tolist(), strict=True) if there > 0)
