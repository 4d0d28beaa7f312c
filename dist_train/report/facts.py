"""A run -> what a reader wants to know of it before any figure, and what would repeat it. All plain text."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dist_train import config as configuration
from dist_train.feed import Views
from dist_train.report.folder import Folder, Run
from dist_train.settings import Config
from dist_train.view import View

_OWN = ("run.name", "run.dir", "data.shards", "compile", "graphs")  # told elsewhere, or set by reading
_ROWS = 1 << 16

Fact = tuple[str, str]


@dataclass(frozen=True)
class Command:
    """A line for a shell, and what it is for."""

    why: str
    line: str


def data(run: Run, views: Views | None, reason: str) -> list[Fact]:
    """What it was trained on, and what held out."""
    settings = run.config.data
    found = [("Shards", ", ".join(settings.shards))]
    if views is None:
        return [*found, ("Not there now", reason)]
    found.append(("Trained on", _clips(views.train)))
    for name, kind, view in (
        ("Evaluated on", "eval", views.evaluation),
        ("Best checkpoint chosen on", "valid", views.valid),
    ):
        if view is not None:
            found.append((name, f"{_clips(view)}: {_choice(run.config, kind)}"))
    found.append(("Classes", f"{len(views.train.classes):,}"))
    if views.train.left_out:
        found.append(("Left out as too short", f"{views.train.left_out:,} clips"))
    prints = dict.fromkeys(one.fingerprint[:16] for one in views.train.sets)
    return [*found, ("Fingerprint", ", ".join(prints))]


def _clips(view: View) -> str:
    seconds = 0.0
    for start in range(0, len(view), _ROWS):
        rows = view.rows(np.arange(start, min(start + _ROWS, len(view))))
        seconds += float((rows["frames"] / np.maximum(rows["rate"], 1)).sum())
    return f"{len(view):,} clips, {duration(seconds)}"


def _choice(config: Config, kind: str) -> str:
    settings = config.data
    if shards := getattr(settings, f"{kind}_shards"):
        return ", ".join(shards)
    if folds := getattr(settings, f"{kind}_folds"):
        return f"fold {', '.join(map(str, folds))}, held out"
    return f"split {getattr(settings, f'{kind}_split')}"


def model(run: Run, parameters: int | None) -> list[Fact]:
    """Network, front end, training."""
    config = run.config
    count = f", {parameters:,} parameters" if parameters else ""
    features, audio = config.features, config.audio
    front = {
        "packed": "features made in advance",
        "waveform": "samples as they are",
        "hf": "a pretrained encoder's features",
    }.get(str(features.name), f"{features.name}, {features.bins} bins every {features.frame_shift:g} ms")
    optim, length = config.optim, _length(run)
    return [
        ("Network", f"{config.model.name}{count}"),
        ("Hears", f"{audio.seconds:g} s windows at {audio.sample_rate:,} Hz"),
        ("Front end", f"{front}, norm {features.norm}"),
        ("Objective", str(config.objective.name)),
        ("Optimizer", f"{optim.name}, rate {optim.lr:g}, {optim.schedule}; batch {config.data.batch_size}"),
        ("Length", length),
    ]


def _length(run: Run) -> str:
    table, config = run.lines.train, run.config.run
    if not len(table.get("step", ())):
        return "no step recorded yet"
    whole = f" of {config.epochs:g}" if run.result is None and config.max_steps is None else ""
    return f"{table['epoch'][-1]:.4g}{whole} epochs, {table['step'][-1]:,.0f} steps"


def machine(run: Run) -> list[Fact]:
    """Where and how long."""
    said = run.environment
    gpus = said.get("gpus") or []
    device = f"{len(gpus)} × {gpus[0]}" if gpus else f"{said.get('device', 'cpu')}, {said.get('cores', '?')} cores"
    found = [
        ("Machine", device),
        ("Ranks", f"{said.get('ranks', '?')} by {said.get('launcher', '?')}, {said.get('precision', '?')}"),
        ("Started", str(said.get("started", "?"))),
    ]
    return [*found, ("Trained for", duration(run.lines.seconds))] if run.lines.seconds else found


def changed(config: Config) -> list[Fact]:
    """Settings that differ from the defaults."""
    default = dict(configuration.flat(configuration.plain(configuration.check({}, "defaults"))))
    flat = configuration.flat(configuration.plain(config))
    return [(key, _text(value)) for key, value in flat if default.get(key) != value and key not in _OWN]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def versions(run: Run) -> list[Fact]:
    """Software, by name."""
    said = run.environment
    packages = said.get("packages")
    found = [("Python", str(said.get("python", "?"))), ("Platform", str(said.get("platform", "?")))]
    found += [("CUDA", str(said["cuda"]))] if said.get("cuda") else []
    return found + [(str(name), str(version)) for name, version in (packages or {}).items()]


def commands(folder: Folder) -> list[Command]:
    """What repeats the run, in order."""
    run = folder.runs[0]
    said = run.environment
    lines = []
    if commit := said.get("commit"):
        note = ", and changes that were not committed: their results may differ" if said.get("changed") else ""
        lines.append(Command(f"the source that it ran on{note}", f"git checkout {shlex.quote(str(commit))}"))
    for shards in dict.fromkeys([*run.config.data.shards, *run.config.data.eval_shards]):
        lines.append(Command("the shards are whole", f"python tools/make_shards.py check {shlex.quote(shards)}"))
    if folder.summary is not None:
        lines.append(Command("all folds", _crossval(folder)))
    else:
        lines.append(Command("the run, as it was started", started(said)))
        again = f"python -m dist_train {shlex.quote(str(run.path / 'config.yaml'))} run.name={shlex.quote(run.name)}-2"
        lines.append(Command("the same from its settings alone", again))
    lines.append(Command("this page", f"python tools/report.py {shlex.quote(str(folder.path))}"))
    return lines


def started(environment: dict[str, Any]) -> str:
    """The launcher's line. Of several hosts it is that of each, but for the address where they meet."""
    command = environment.get("command")
    words: Sequence[str] = [str(word) for word in command[1:]] if isinstance(command, list) else []
    ranks, local = environment.get("ranks", 1), environment.get("local_ranks", 1)
    many = isinstance(ranks, int) and isinstance(local, int) and ranks > 1 and local > 0
    begin = "python -m dist_train"
    if environment.get("launcher") == "accelerate":
        begin = f"accelerate launch --num_processes {ranks} -m dist_train"
    elif many:
        nodes = f"--nnodes={ranks // local} " if ranks > local else ""
        begin = f"torchrun {nodes}--nproc_per_node={local} -m dist_train"
    return " ".join([begin, *map(shlex.quote, words)])


def _crossval(folder: Folder) -> str:
    summary = folder.summary or {}
    seeds = summary.get("seeds") or []
    more = f" --seeds {','.join(map(str, seeds))}" if len(seeds) > 1 else ""
    more += " --validate" if summary.get("validate") else ""
    return f"python tools/crossval.py {shlex.quote(str(summary.get('file') or 'CONFIG'))}{more}"


def duration(seconds: float) -> str:
    """`43 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
