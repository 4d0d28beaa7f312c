"""A folder's scores -> every metric with its interval, in words, and the figures of each class.

Of several seeds a metric is the mean of the seeds', and so are the ends of its interval: what other clips would change.
Sets that are too big for all of it keep what the run itself wrote down, and intervals of what counts alone tell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dist_train import scored as scores_file
from dist_train.report.clips import Groups
from dist_train.report.folder import Folder
from dist_train.scored import Scored
from dist_train.scoring import classwise, figures, intervals
from dist_train.scoring.classwise import Span

LOW = {"ece", "cavg", "loss"}  # the lower the better
CELLS = 1e7  # clips times classes from which only what is cheap is computed
_CHEAP = ("accuracy", "balanced_accuracy", "macro_f1")
_WORDS = {
    "accuracy": ("accuracy", "share of clips whose likeliest class is right"),
    "balanced_accuracy": ("balanced accuracy", "mean over classes of the share that is found"),
    "macro_f1": ("macro F1", "mean over classes of F1, precision and recall in one"),
    "micro_f1": ("micro F1", "F1 of all labels together, at a probability of 1/2"),
    "ece": ("calibration error", "how far probabilities lie from the share that is right"),
    "cavg": ("Cavg", "cost of misses and false alarms, detected class by class"),
    "loss": ("loss", "cross-entropy, in nats"),
    "map": ("mAP", "mean over classes of average precision"),
    "micro_map": ("micro AP", "average precision of all labels ranked together"),
    "auc": ("AUC", "mean over classes of the area under the receiver operating characteristic"),
    "d_prime": ("d′", "the AUC as a distance of two normal distributions"),
}
_SEVERAL = {"accuracy": ("top-1 accuracy", "share of clips whose likeliest class is one of their labels")}


@dataclass(frozen=True)
class Metric:
    """`low`, `high`: the interval, None where there is none; `main`: the run's own choice."""

    name: str
    title: str
    meaning: str
    value: float
    low: float | None
    high: float | None
    main: bool

    @property
    def bounded(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.name not in ("loss", "d_prime")

    @property
    def falling(self) -> bool:
        """Whether lower is better."""
        return self.name in LOW


@dataclass(frozen=True)
class Measures:
    """`classes`: columns by name, None where a figure means nothing; `spans`: the interval of each class, or
    nothing; `note`: what was left out, and why."""

    metrics: list[Metric]
    classes: dict[str, list[float | None]]
    spans: list[Span]
    note: str


def words(name: str, several: bool = False) -> tuple[str, str]:
    """What a metric is called, and means."""
    if name.startswith("map_at_"):
        k = name.removeprefix("map_at_")
        return f"MAP@{k}", f"mean of 1 / rank of the truth among the first {k} guesses"
    return (_SEVERAL if several else {}).get(name) or _WORDS.get(name, (name.replace("_", " "), ""))


def of(folder: Folder, groups: Groups) -> Measures:
    """`groups`: of the clips, which are drawn together."""
    scored = folder.pooled
    assert scored is not None
    main = next((run.result["metric"] for run in folder.runs if run.result), "")
    k = folder.runs[0].config.evaluation.k
    if scored.probability_NC.size > CELLS:
        return _big(folder, scored, main, groups)
    parts = _seeds(folder.path) if folder.summary is not None else []
    parts = parts if len(parts) > 1 else [scored]
    made = [figures.of(part, k) for part in parts]
    names = list(made[0].values)
    ends = [intervals.bootstrap(part, names, groups=groups.of(part)) for part in parts]
    values = {name: float(np.mean([one.values[name] for one in made])) for name in names}
    spans = {name: (float(np.mean([one[name][0] for one in ends])), _high(ends, name)) for name in names}
    classes = figures.of(scored, k).classes if len(parts) > 1 else made[0].classes
    note = f"Means of {len(parts)} seeds, intervals too." if len(parts) > 1 else ""
    return Measures(_metrics(values, spans, main, scored.several), classes, _spans(scored, groups), note)


def _spans(scored: Scored, groups: Groups) -> list[Span]:
    return classwise.of(scored, groups.of(scored), ranked=scored.several)[classwise.MAIN[scored.several]]


def _high(ends: Sequence[dict[str, tuple[float, float]]], name: str) -> float:
    return float(np.mean([one[name][1] for one in ends]))


def _seeds(root: Path) -> list[Scored]:
    return [scores_file.read(path) for path in sorted(root.glob("seed-*/scores.npz"))]


def _big(folder: Folder, scored: Scored, main: str, groups: Groups) -> Measures:
    """What the run wrote down, intervals of _CHEAP, and figures of classes but for those that need a ranking."""
    values = _written(folder)
    spans = {}
    if not scored.several:
        spans = intervals.bootstrap(scored, [name for name in _CHEAP if name in values], groups=groups.of(scored))
    hits, said, true = (column.tolist() for column in figures.counts(scored))
    classes: dict[str, list[float | None]] = {
        "precision": [_share(hit, count) for hit, count in zip(hits, said, strict=True)],
        "recall": [_share(hit, count) for hit, count in zip(hits, true, strict=True)],
        "f1": [_share(2 * hit, a + b) for hit, a, b in zip(hits, said, true, strict=True)],
        "support": true,
    }
    if scored.several and len(folder.runs) == 1:
        kept = (folder.runs[0].result or {}).get("per_class", {})
        classes["average_precision"] = [kept.get(name, {}).get("average_precision") for name in scored.classes]
    note = f"{len(scored.keys):,} clips of {len(scored.classes):,} classes: values as the run wrote them down."
    ends = [] if scored.several else _spans(scored, groups)
    return Measures(_metrics(values, spans, main, scored.several), classes, ends, note)


def _written(folder: Folder) -> dict[str, float]:
    known = {*_WORDS} | {f"map_at_{folder.runs[0].config.evaluation.k}"}
    results = [run.result for run in folder.runs if run.result]
    names = [name for name in (results[0] if results else {}) if name in known]
    return {name: float(np.mean([_float(one.get(name)) for one in results])) for name in names}


def written(folder: Folder) -> list[Metric]:
    """The metrics of result.json, without intervals: of a run whose scores are not there."""
    main = next((run.result["metric"] for run in folder.runs if run.result), "")
    several = str(folder.runs[0].config.objective.name) == "bce"
    return _metrics(_written(folder), {}, main, several)


def _metrics(values: dict[str, float], spans: dict[str, tuple[float, float]], main: str, several: bool) -> list[Metric]:
    made = []
    for name in sorted(values, key=lambda name: name != main):
        low, high = spans.get(name, (math.nan, math.nan))
        there = math.isfinite(low) and math.isfinite(high)
        title, meaning = words(name, several)
        ends = (low if there else None, high if there else None)
        made.append(Metric(name, title, meaning, values[name], ends[0], ends[1], name == main))
    return [one for one in made if math.isfinite(one.value)]


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
