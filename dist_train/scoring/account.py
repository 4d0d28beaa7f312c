"""Evaluated runs -> all that is told of them, as plain values: scores with intervals, classes, calibration, notes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dist_train import scores
from dist_train.scored import Scored
from dist_train.scoring import calibration, classwise, ensemble, figures, intervals, resampling, thresholds
from dist_train.scoring.evaluated import Evaluated, Part

NAMED = 5  # unreadable clips that are named


@dataclass(frozen=True)
class Account:
    """part, valid: of the run, or of all runs together; told: what is shown and written as JSON."""

    part: Part
    valid: Part | None
    told: dict[str, Any]


def of(runs: Sequence[Evaluated], average: str, draws: int, level: float) -> Account:
    """`average`: of an ensemble; `draws`: of the bootstrap, 0 for no intervals. ValueError: runs of different clips."""
    first = runs[0]
    part = _joined([run.part for run in runs], average)
    valid = _valid(runs, average)
    found = figures.of(part.scored, first.config.evaluation.k)
    told: dict[str, Any] = {
        "runs": [_origin(run) for run in runs],
        "average": average if len(runs) > 1 else None,
        "set": part.name,
        "clips": len(part.scored.keys),
        "unreadable": int(part.scored.bad.sum()),
        "metric": scores.metric(first.config),
        "task": "several labels" if part.scored.several else "one class",
        **_values(part, found.values, draws, level),
        "classes": _classes(part, found.classes, draws, level),
        "confusion": found.confusion.tolist() if found.confusion is not None else None,
        "calibration": _calibration(part.scored, valid.scored if valid is not None else None),
    }
    if part.scored.several:
        told |= _thresholds(part, valid)
    return Account(part, valid, told | {"notes": _notes(runs, part)})


def _joined(parts: Sequence[Part], average: str) -> Part:
    first = parts[0]
    return replace(first, scored=ensemble.mean([part.scored for part in parts], average)) if parts[1:] else first


def _valid(runs: Sequence[Evaluated], average: str) -> Part | None:
    """The validation set, where all runs have the same."""
    parts = [run.valid for run in runs if run.valid is not None]
    if len(parts) < len(runs) or any(set(part.scored.keys) != set(parts[0].scored.keys) for part in parts):
        return None
    return _joined(parts, average)


def _origin(run: Evaluated) -> dict[str, Any]:
    return {"run": str(run.run), "checkpoint": str(run.path), "chosen_by": "valid" if run.best else "last"}


def _values(part: Part, values: dict[str, float], draws: int, level: float) -> dict[str, Any]:
    """Scores with their intervals, and what was drawn."""
    unit_N = resampling.units(part.group_N)
    found: dict[str, dict[str, float]] = {name: {"value": value} for name, value in values.items()}
    if draws:
        drawn = intervals.bootstrap(part.scored, list(values), draws, level=level, groups=part.group_N)
        for name, (low, high) in drawn.items():
            found[name] |= {"low": low, "high": high}
    how = {"draws": draws, "level": level, "drawn": "clips" if unit_N is None else "groups"}
    return {
        "scores": found,
        "intervals": how | {"units": resampling.count(unit_N, len(part.group_N))},
    }


def _classes(part: Part, columns: dict[str, figures.Column], draws: int, level: float) -> list[dict[str, Any]]:
    """A row a class, its figures and their intervals by name."""
    spans = classwise.of(part.scored, part.group_N, level) if draws else {}
    return [
        {"class": name, **{column: values[number] for column, values in columns.items()}}
        | ({"intervals": {column: values[number] for column, values in spans.items()}} if spans else {})
        for number, name in enumerate(part.scored.classes)
    ]


def _calibration(scored: Scored, valid: Scored | None) -> dict[str, Any] | None:
    """The table, and what a temperature chosen on the validation set would do."""
    found = calibration.of(scored)
    if found is None:
        return None
    told: dict[str, Any] = asdict(found)
    if valid is None or valid.bad.all():
        return told | {"temperature": None}
    power = calibration.temperature(valid)
    cooled = calibration.scaled(scored, power)
    after = calibration.of(cooled)
    assert after is not None
    before, loss = (float(figures.losses(one)[~one.bad].mean()) for one in (scored, cooled))
    return told | {"temperature": power, "ece_scaled": after.ece, "loss_before": before, "loss_scaled": loss}


def _thresholds(part: Part, valid: Part | None) -> dict[str, Any]:
    """Thresholds of the greatest F1 of each label, and F1 there."""
    chosen = thresholds.best((valid or part).scored)
    reached = thresholds.f1(part.scored, chosen)
    there = [value for value in reached if value is not None]
    return {
        "thresholds": {
            "set": (valid or part).name,
            "optimistic": valid is None,
            "macro_f1": float(np.mean(there)) if there else None,
            "classes": [{"threshold": one, "f1": value} for one, value in zip(chosen, reached, strict=True)],
        }
    }


def _notes(runs: Sequence[Evaluated], part: Part) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    for run in runs:
        if run.trained:
            notes.append(f"{run.run} was trained on {run.trained} of the {len(part.scored.keys)} clips: no test of it")
        if run.part.name == "valid" and run.best:
            notes.append(f"{run.run}: its checkpoint was chosen on these very clips: the scores are optimistic")
    bad = runs[0].bad
    notes += [f"{key} cannot be read and counts as wrong: {reason}" for key, reason in bad[:NAMED]]
    return notes + ([f"{len(bad) - NAMED} more clips cannot be read"] if len(bad) > NAMED else [])
