"""What a comparison tells -> tables and sentences for a terminal."""

import math
from collections.abc import Sequence
from typing import Any

from dist_train.scoring import curves
from dist_train.scoring.history import Curve, History
from dist_train.scoring.sheets import number
from dist_train.sheet import Sheet

Told = dict[str, Any]


def panels(runs: Sequence[History], metric: str) -> list[tuple[str, list[Curve]]]:
    """The curves that there are: training loss, and the metric on each set that was scored."""
    asked = [("train loss", "train", "loss"), (f"eval {metric}", "eval", metric), (f"valid {metric}", "valid", metric)]
    found = [(title, [run.curve(kind, name) for run in runs]) for title, kind, name in asked]
    return [(title, lines) for title, lines in found if any(lines)]


def settings(told: Told) -> list[Sheet]:
    """Settings that differ."""
    names = [run["name"] for run in told["runs"]]
    rows = [(key, *("-" if one is None else str(one) for one in row)) for key, row in told["settings"].items()]
    title = "settings that differ" if rows else "no setting differs"
    return [Sheet(title, ("setting", *names), rows)] if rows else [Sheet(title, ("",), [])]


def lines(runs: Sequence[History], metric: str) -> list[Sheet]:
    """Curves as lines of blocks, and side by side at epochs that all have."""
    rows, sheets = [], []
    for title, found in panels(runs, metric):
        values = [value for curve in found for _, value in curve]
        for run, curve in zip(runs, found, strict=True):
            if curve:
                ends = number(curve[0][1]), number(curve[-1][1])
                rows.append((title, run.name, curves.spark(curve, min(values), max(values)), *ends))
        if table := [(f"{epoch:g}", *map(number, line)) for epoch, line in curves.at(found)]:
            sheets.append(Sheet(f"{title} by epoch", ("epoch", *(run.name for run in runs)), table))
    return [Sheet("curves", ("", "run", "over epochs", "first", "last"), rows), *sheets] if rows else []


def scores(told: Told) -> Sheet:
    """Every score, a column a run, with its interval."""
    names = list(told["scores"][0])
    head = ("score", *(run["name"] for run in told["runs"]))
    rows = [(name, *(_span(one.get(name)) for one in told["scores"])) for name in names]
    how = f", {100 * told['level']:g} % intervals" if told["draws"] else ""
    return Sheet(f"scores, each run on the clips of its own{how}", head, rows)


def pairs(told: Told, most: int) -> list[Sheet]:
    """Clip by clip, against the first; `most`: clips that are named."""
    return [sheet for pair in told["pairs"] if pair["clips"] for sheet in _pair(pair, told, most)]


def sentences(told: Told) -> list[str]:
    """What to make of it."""
    return [_sentence(pair) for pair in told["pairs"]]


def _pair(pair: Told, told: Told, most: int) -> list[Sheet]:
    test, one, two = pair["mcnemar"], pair["first"], pair["second"]
    rows = [
        ("both right", str(test["both"])),
        (f"only {one} right", str(test["first"])),
        (f"only {two} right", str(test["second"])),
        ("neither right", str(test["neither"])),
        (f"McNemar p ({test['method']})", f"{test['p']:.4g}"),
    ]
    for name, value in pair.get("differences", {}).items():
        rows.append((f"difference of {name}, {100 * told['level']:g} % by {pair['drawn']}", _span(value)))
    sheets = [Sheet(f"{two} against {one} on {pair['clips']} clips that both scored", ("", ""), rows)]
    clips = pair["clips_that_differ"]
    if clips and most:
        shown = [(clip["key"], clip["truth"], clip["first"], clip["second"]) for clip in clips[:most]]
        title = f"clips where they differ, {len(shown)} of {len(clips)}"
        sheets.append(Sheet(title, ("clip", "truth", one, two), shown))
    return sheets


def _sentence(pair: Told) -> str:
    one, two = pair["first"], pair["second"]
    if not pair["clips"]:
        return f"{two} and {one} have no clip in common: compare their scores only"
    test = pair["mcnemar"]
    gained = test["second"] - test["first"]
    more = f"{two} is right on {abs(gained)} clips {'more' if gained > 0 else 'fewer'} than {one}" if gained else ""
    more = more or f"{two} is right on as many clips as {one}"
    if pair["differ"]:
        return f"{more}: more than chance would make of two equally good models (p = {test['p']:.2g})"
    return f"{more}: {pair['clips']} clips do not show that one is better (p = {test['p']:.2g})"


def _span(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    if not math.isfinite(value.get("low", math.nan)):
        return number(value["value"])
    return f"{number(value['value'])} [{number(value['low'])}, {number(value['high'])}]"
