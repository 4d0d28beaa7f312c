"""Standings and results of a cross-validation -> tables and lines to show."""

import heapq
import signal
import statistics
from collections.abc import Sequence
from typing import Any

from dist_train.crossval.child import OWN
from dist_train.crossval.course import Standing
from dist_train.scoring.sheets import number
from dist_train.sheet import Sheet

_NAMED = 6  # pooled scores told


def row(standing: Standing) -> tuple[str, str, str, str, str]:
    """Seed and fold, state, epoch, loss, time: left while it runs, taken when it is over."""
    watch, turn = standing.watch, standing.turn
    epoch = f"{watch.epoch:.1f}/{watch.epochs}" if watch.epoch is not None and standing.state == "running" else ""
    loss = f"{watch.loss:.4f}" if watch.loss is not None and standing.state == "running" else ""
    if standing.state == "running":
        time = f"{clock(watch.left)} left" if watch.left is not None else ""
    else:
        time = clock(standing.seconds) if standing.seconds else ""
    place = f" on GPU {','.join(standing.place.gpus)}" if standing.place and standing.place.gpus else ""
    return turn.name, standing.state + (place if standing.state == "running" else ""), epoch, loss, time


def line(standing: Standing) -> str:
    """The same on one line."""
    name, state, epoch, loss, time = row(standing)
    return f"{name}: " + ", ".join(
        part for part in (state, epoch and f"epoch {epoch}", loss and f"loss {loss}", time) if part
    )


def failure(standing: Standing) -> list[str]:
    """Why a run failed, and where its log lies: in one line where it says so itself, else with its last lines."""
    name, log, code = standing.turn.name, standing.turn.beside(".log"), standing.code
    if code > 0 and standing.said and standing.said[0].startswith(OWN):
        return [f"crossval: {name} failed: {standing.said[0].removeprefix(OWN)} ({log})"]
    ended = f"failed with exit code {code}"
    if code < 0:
        number = -code
        ended = f"was killed by {signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'}"
        if number == getattr(signal, "SIGKILL", None):
            ended += ", as a system does that lacks memory (--jobs 1 takes the least)"
    return [f"crossval: {name} {ended}; {log} ends:", *(f"    {line}" for line in standing.said)]


def left(standings: Sequence[Standing]) -> float | None:
    """Seconds until all is done, by what the runs so far took; None while nothing is known."""
    running = [one for one in standings if one.state == "running"]
    waiting = sum(one.state == "waiting" for one in standings)
    ends = [one.watch.left for one in running if one.watch.left is not None]
    if not running or len(ends) < len(running):
        return None
    whole = [one.seconds for one in standings if one.state == "finished" and one.seconds]
    whole += [one.seconds / one.watch.share for one in running if one.watch.share > 0]
    heapq.heapify(ends)
    for _ in range(waiting):  # each begins where a place comes free first
        heapq.heapreplace(ends, ends[0] + statistics.fmean(whole))
    return max(ends)


def clock(seconds: float | None) -> str:
    """1:02:03."""
    whole = round(seconds or 0)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def table(results: dict[str, Any], best: bool = False) -> Sheet:
    """Folds by seeds, with means."""
    metric, folds, seeds = results["metric"], results["folds"], results["seeds"]
    values = {(one["seed"], one["fold"]): one["best" if best else "value"] for one in results["runs"]}

    def cells(fold: int) -> list[float | None]:
        return [values.get((seed, fold)) for seed in seeds]

    many = len(seeds) > 1
    head = ("fold", *(f"seed {seed}" for seed in seeds), *(("mean",) if many else ()))
    rows = [(str(fold), *map(number, cells(fold)), *((number(mean(cells(fold))),) if many else ())) for fold in folds]
    columns = [mean([values.get((seed, fold)) for fold in folds]) for seed in seeds]
    rows.append(("mean", *map(number, columns), *((number(mean(columns)),) if many else ())))
    what = "of the checkpoint that the validation set chose" if best else "of the final model"
    return Sheet(f"{metric} {what}, each fold held out once", head, rows)


def mean(values: Sequence[float | None]) -> float | None:
    """Of what is there."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def words(results: dict[str, Any]) -> list[str]:
    """What the table means."""
    lines = [sentence(results["metric"], results)]
    if results.get("best"):
        lines.append(sentence(f"best checkpoints' {results['metric']}", results["best"]))
    for one in results["pooled"]:
        lines.append(f"pooled over {one['clips']} clips, seed {one['seed']}: {_scores(one)}")
    if one := results.get("ensemble"):
        lines.append(f"the seeds' models as an ensemble, pooled over {one['clips']} clips: {_scores(one)}")
    if any(one.get("intervals") for one in results["pooled"]):
        lines.append("in brackets: 95 % bootstrap intervals over clips (by recording or speaker where these are known)")
    if results.get("worst"):
        lines.append("most confused:")
    for one in results.get("worst") or []:
        lines.append(f"  {one['truth']} taken for {one['guess']}: {one['clips']} of {one['of']}")
    lines.append(f"{clock(results['seconds'])} of training in all")
    if results["missing"]:
        pairs = ", ".join(f"seed {seed} fold {fold}" for seed, fold in results["missing"])
        lines.append(f"partial: not there are {pairs}")
    return lines


def _scores(one: dict[str, Any]) -> str:
    """Of pooled clips, with the intervals that are there."""
    names = [name for name in one if name not in ("seed", "clips", "intervals")][:_NAMED]
    spans = one.get("intervals") or {}
    return ", ".join(f"{name} {one[name]:.4f}{span(spans.get(name))}" for name in names if one[name] is not None)


def sentence(name: str, over: dict[str, Any]) -> str:
    """Mean, deviation, interval."""
    text = f"{name}: mean {over['mean']:.4f}"
    if over["deviation_over_folds"] is not None:
        text += f", standard deviation over folds {over['deviation_over_folds']:.4f}"
    if over["interval_over_seeds"] is not None:
        count = len(over["seed_means"])
        text += f", 95 % t interval over the {count} seeds' means{span(over['interval_over_seeds'])}"
    return text


def span(ends: Sequence[float] | None) -> str:
    """[low, high]."""
    return "" if ends is None else f" [{ends[0]:.4f}, {ends[1]:.4f}]"
