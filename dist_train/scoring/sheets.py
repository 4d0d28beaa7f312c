"""What an account tells -> tables of text for a terminal."""

import math
from collections.abc import Sequence
from typing import Any

from dist_train.scoring.classwise import MAIN
from dist_train.scoring.intervals import FEWEST
from dist_train.sheet import Sheet

WRITTEN = 20  # classes up to which the whole confusion matrix is written
MIXED = 15  # pairs of classes that are named beyond that

Told = dict[str, Any]


def of(told: Told) -> list[Sheet]:
    """Scores, classes, confusion, calibration."""
    return [scores(told), classes(told), *confusion(told), *calibration(told)]


def scores(told: Told) -> Sheet:
    """Each score and its interval; the run's own first."""
    how = told["intervals"]
    names = sorted(told["scores"], key=lambda name: name != told["metric"])
    title = f"scores of {told['clips']} clips ({told['set']})"
    if not how["draws"]:
        return Sheet(title, ("score", "value"), [(name, number(told["scores"][name]["value"])) for name in names])
    title += f", {100 * how['level']:g} % intervals of {how['draws']} bootstrap draws of {how['units']} {how['drawn']}"
    title = title.removesuffix("s") if how["units"] == 1 else title
    if how["units"] < FEWEST:
        title += ": too few for most"
    rows = [(name, *(number(told["scores"][name][key]) for key in ("value", "low", "high"))) for name in names]
    return Sheet(title, ("score", "value", "low", "high"), rows)


def classes(told: Told) -> Sheet:
    """Figures of each class."""
    columns = [name for name in ("precision", "recall", "f1", "average_precision", "auc") if name in told["classes"][0]]
    chosen = told.get("thresholds")
    head = ("class", "clips", *(name.replace("average_precision", "AP") for name in columns))
    rows = [(row["class"], str(row["support"]), *(number(row[name]) for name in columns)) for row in told["classes"]]
    title = "classes"
    if "intervals" in told["classes"][0]:
        main = MAIN[told["confusion"] is None]
        place = 3 + columns.index(main)
        spans = [span(row["intervals"][main]) for row in told["classes"]]
        head = (*head[:place], f"{100 * told['intervals']['level']:g} %", *head[place:])
        rows = [(*row[:place], one, *row[place:]) for row, one in zip(rows, spans, strict=True)]
    if chosen is not None:
        head = (*head, "threshold", "f1 there")
        pairs = [(number(one["threshold"]), number(one["f1"])) for one in chosen["classes"]]
        rows = [(*row, *pair) for row, pair in zip(rows, pairs, strict=True)]
        how = "chosen on these clips: optimistic" if chosen["optimistic"] else f"chosen on the {chosen['set']} set"
        title += f"; thresholds of the greatest F1 ({how}): macro_f1 {number(chosen['macro_f1'])}"
    return Sheet(title, head, rows)


def confusion(told: Told) -> list[Sheet]:
    """The matrix where it is small, else what is mixed up most."""
    matrix = told["confusion"]
    if matrix is None:
        return []
    names = [row["class"] for row in told["classes"]]
    if len(names) <= WRITTEN:
        heads = [str(one) for one in range(1, len(names) + 1)]
        rows = [
            (f"{head} {name}", *(str(count) if count else "." for count in row))
            for head, name, row in zip(heads, names, matrix, strict=True)
        ]
        return [Sheet("confusion: rows are the truth, columns the guess", ("", *heads), rows)]
    pairs = [
        (count, names[true], names[said])
        for true, row in enumerate(matrix)
        for said, count in enumerate(row)
        if count and true != said
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [(true, said, str(count)) for count, true, said in pairs[:MIXED]]
    return [Sheet(f"confusion: the {len(rows)} most frequent of {len(pairs)}", ("truth", "guess", "clips"), rows)]


def calibration(told: Told) -> list[Sheet]:
    """Whether the probabilities are right."""
    found = told["calibration"]
    if found is None:
        return []
    way = "too sure" if found["over"] > 0 else "not sure enough"
    title = f"calibration: ECE {number(found['ece'])}, {way} by {number(abs(found['over']))} on average"
    if found["temperature"] is not None:
        title += (
            f"; logits over a temperature of {found['temperature']:.3f} (of the validation set): "
            f"ECE {number(found['ece_scaled'])}, loss {number(found['loss_before'])} -> {number(found['loss_scaled'])}"
        )
    rows = [
        (f"{row['low']:.2f} - {row['high']:.2f}", str(row["cases"]), number(row["confidence"]), number(row["right"]))
        for row in found["bins"]
    ]
    return [Sheet(title, ("probability", "cases", "mean", "right"), rows)]


def number(value: float | None) -> str:
    """Four digits; `-` for what means nothing."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def span(ends: Sequence[float] | None) -> str:
    """An interval."""
    return "-" if ends is None else f"{ends[0]:.2f} - {ends[1]:.2f}"


def origin(told: Told) -> Sequence[str]:
    """A line a run: which checkpoint."""
    said = {"valid": "the best by the validation set", "last": "the last"}
    return [f"{run['run']}: {run['checkpoint']} ({said[run['chosen_by']]})" for run in told["runs"]]


def unknown(told: Told) -> Sequence[str]:
    """What the threshold for "unknown" does."""
    found = told.get("unknown")
    if found is None:
        return []
    lines = [
        f"unknown under {found['threshold']:.4f}: keeps {100 * found['kept']:.1f} % of the {found['clips']} clips of "
        f"the {found['set']} set, {100 * found['reached']:.1f} % of them right; written to {found['file']}"
    ]
    if found["optimistic"]:
        lines.append(
            "the threshold was chosen on the very clips that are scored here: on others the precision is lower"
        )
    return lines
