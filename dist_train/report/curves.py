"""Lines of metrics.jsonl of one run or many -> charts: how it learned, and how fast it went."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from dist_train.report import measures
from dist_train.report.chart import Chart, Series, draw
from dist_train.report.folder import Run
from dist_train.report.lines import Table

_SETS = {"eval": "evaluation set", "valid": "validation set"}
_MOST = 30  # runs whose lines are drawn


def learning(runs: Sequence[Run], metric: str) -> list[Chart]:
    """Loss, the run's score, accuracy and learning rate by epoch."""
    names = ["loss", *dict.fromkeys([metric, "accuracy"])]
    charts = [_scores(runs, name) for name in names if name]
    rate = _train(runs[:1], "lr", "lr", "Learning rate", lambda value: f"{value:.2g}", 0.0)
    return [one for one in (*charts, rate) if one is not None]


def speed(runs: Sequence[Run]) -> list[Chart]:
    """Clips a second, time waited for data, memory, the slowest rank, the gradient's length, by epoch."""
    found = [
        _train(runs, "rate", "clips_per_second", "Clips a second", lambda value: f"{value:,.4g}", 0.0),
        _train(runs, "wait", "data_wait", "Time waited for data", _percent, 0.0),
        _train(runs, "memory", "peak_memory", "Peak memory, GB", lambda value: f"{value:.3g}", 0.0),
        _train(runs, "slow", "slowest_by", "Slowest rank behind the others", _percent, 0.0),
        _train(runs, "gradient", "grad_norm", "Length of the gradient", lambda value: f"{value:.3g}", 0.0),
    ]
    return [one for one in found if one is not None]


def waited(runs: Sequence[Run]) -> tuple[float, float] | None:
    """Clips a second and the share of time waited for data over whole runs; None where nobody measured."""
    clips = seconds = waiting = 0.0
    for run in runs:
        table = run.lines.train
        if not {"clips_per_second", "data_wait", "consumed"} <= table.keys():
            continue
        count, rate = np.diff(table["consumed"], prepend=0.0), table["clips_per_second"]
        good = (rate > 0) & (count > 0) & np.isfinite(table["data_wait"])
        spent = count[good] / rate[good]
        clips, seconds = clips + float(count[good].sum()), seconds + float(spent.sum())
        waiting += float((spent * table["data_wait"][good]).sum())
    return (clips / seconds, waiting / seconds) if seconds else None


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _scores(runs: Sequence[Run], name: str) -> Chart | None:
    """A score in training and on each set."""
    title = measures.words(name)[0]
    bounded = name not in ("loss", "d_prime")
    series = list(chain.from_iterable(_of(run, name, len(runs) > 1) for run in runs[:_MOST]))
    form: Callable[[float], str] = (lambda value: f"{value:.3g}") if bounded else (lambda value: f"{value:.4g}")
    return draw(name, title[:1].upper() + title[1:], series, "epoch", form, 0.0 if bounded else None)


def _of(run: Run, name: str, many: bool) -> list[Series]:
    tables: dict[str, Table] = {"training": run.lines.train}
    if many:  # a line a run: the set that tells how good it is, or the training where there is none
        kind = next((one for one in ("eval", "valid") if name in run.lines.scored.get(one, {})), None)
        tables = {run.path.name: run.lines.scored[kind] if kind and name != "loss" else run.lines.train}
    else:
        tables |= {_SETS.get(kind, kind): table for kind, table in run.lines.scored.items()}
    return [
        Series(said, table["epoch"], table[name])
        for said, table in tables.items()
        if name in table and "epoch" in table
    ]


def _train(
    runs: Sequence[Run], name: str, column: str, title: str, form: Callable[[float], str], low: float
) -> Chart | None:
    series = [
        Series(run.path.name if len(runs) > 1 else "training", run.lines.train["epoch"], run.lines.train[column])
        for run in runs[:_MOST]
        if column in run.lines.train and "epoch" in run.lines.train
    ]
    return draw(name, title, series, "epoch", form, low)
