"""A folder of runs -> everything that its page says, as plain values; `page` lays them out.

What is not there is left out, and `notes` say why: an unfinished run, no evaluation set, shards that were moved away.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dist_train import packed, world
from dist_train.report import clips, curves, facts, folder, guesses, measures, plane
from dist_train.report import rows as class_rows
from dist_train.report.chart import Chart
from dist_train.report.clips import Found
from dist_train.report.facts import Command, Fact
from dist_train.report.folder import Folder
from dist_train.report.guesses import Matrix, Mistake
from dist_train.report.measures import Measures, Metric
from dist_train.report.media import Media
from dist_train.report.plane import Plane
from dist_train.report.rows import Row
from dist_train.scored import Scored
from dist_train.scoring import calibration, unknown

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
LISTED = 300  # mistakes in the table of all


@dataclass(frozen=True)
class Options:
    """mistakes: how many are shown; audible: with sounds; overrides: settings that replace the run's."""

    mistakes: int = 20
    audible: bool = True
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Shown:
    """A mistake and its media, or the reason why there are none."""

    mistake: Mistake
    media: Media | None
    reason: str


@dataclass
class Content:
    """All of a page."""

    name: str
    title: str
    folder: Folder
    finished: bool
    notes: list[str] = field(default_factory=list)
    data: list[Fact] = field(default_factory=list)
    model: list[Fact] = field(default_factory=list)
    machine: list[Fact] = field(default_factory=list)
    learning: list[Chart] = field(default_factory=list)
    speed: list[Chart] = field(default_factory=list)
    rate: tuple[float, float] | None = None
    metrics: list[Metric] = field(default_factory=list)
    metrics_note: str = ""
    scored: Scored | None = None
    several: bool = False
    matrix: Matrix | None = None
    pairs: list[tuple[int, int, int]] = field(default_factory=list)
    reliability: calibration.Calibration | None = None
    threshold: float | None = None
    rows: list[Row] = field(default_factory=list)
    rows_left_out: int = 0
    mistakes: list[Shown] = field(default_factory=list)
    listed: list[Mistake] = field(default_factory=list)
    wrong: int = 0
    unreadable: list[str] = field(default_factory=list)
    unheard: str = ""
    plane: Plane | None = None
    plane_note: str = ""
    folds: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    changed: list[Fact] = field(default_factory=list)
    versions: list[Fact] = field(default_factory=list)
    yaml: str = ""


def gather(path: Path, options: Options, bar: Bar) -> Content:
    """Read, score, listen, embed. ValueError: no run there."""
    home = folder.read(path, options.overrides)
    found = clips.find(home)
    made = _begin(home, found)
    if home.pooled is not None:
        _scores(made, home.pooled, home, found)
        _worst(made, home.pooled, options, found, bar)
        _map(made, home.pooled, found, bar)
    else:
        made.metrics = measures.written(home)
    return made


def _begin(home: Folder, found: Found) -> Content:
    first = home.runs[0]
    finished = all(run.result is not None for run in home.runs) and not (home.summary or {}).get("missing")
    made = Content(home.name, home.name, home, finished)
    made.data = facts.data(first, found.views[0], found.reason)
    made.model, made.machine = facts.model(first, None), facts.machine(first)
    metric = next((str(run.result["metric"]) for run in home.runs if run.result), "")
    made.learning, made.speed = curves.learning(home.runs, metric), curves.speed(home.runs)
    made.rate = curves.waited(home.runs)
    made.commands, made.changed = facts.commands(home), facts.changed(first.config)
    made.versions, made.yaml = facts.versions(first), first.yaml
    made.summary = home.summary or {}
    made.folds = list(made.summary.get("runs", []))
    made.several = str(first.config.objective.name) == "bce"
    if not finished:
        made.notes.append(_unfinished(home))
    elif home.pooled is None:
        made.notes.append("This run has no evaluation set: nothing tells how good it is on clips it has not heard.")
    if found.reason:
        made.notes.append(f"The shards cannot be opened, so no clip can be played or placed on a map: {found.reason}")
    return made


def _unfinished(home: Folder) -> str:
    if home.summary is None:
        return "This run is not finished. The page shows what is there so far."
    missing = home.summary.get("missing") or []
    names = ", ".join(f"seed {seed} fold {fold}" for seed, fold in missing[:8]) or "some folds"
    return f"This cross-validation is not finished: {names} still to come. The page shows what is there so far."


def _scores(made: Content, scored: Scored, home: Folder, found: Found) -> None:
    measured: Measures = measures.of(home, clips.Groups(home, found))
    made.scored, made.several = scored, scored.several
    made.metrics, made.metrics_note = measured.metrics, measured.note
    counts = None
    if not scored.several:
        kept = made.summary.get("confusion")
        counts = np.array(kept, np.int64) if kept else guesses.counts(scored)
        made.matrix, made.pairs = guesses.matrix(scored, counts), guesses.pairs(counts)
    trained = _trained(scored, found)
    made.rows, made.rows_left_out = class_rows.of(scored, measured.classes, counts, trained, measured.spans)
    if scored.probability_NC.size <= measures.CELLS:
        made.reliability = calibration.of(scored, 10)
    made.threshold = unknown.read(home.path) if home.summary is None else None
    made.unreadable = [str(key) for key in scored.keys[scored.bad]]


def _trained(scored: Scored, found: Found) -> list[int] | None:
    """Clips of each class that the first run was trained on."""
    views = found.views[0]
    if views is None or views.train.classes != scored.classes or len(found.views) > 1:
        return None
    return [int(one) for one in views.train.counts()]


def _worst(made: Content, scored: Scored, options: Options, found: Found, bar: Bar) -> None:
    losses_N, wrong_N = guesses.judged(scored)
    made.wrong = int((wrong_N & ~scored.bad).sum())
    made.listed = guesses.worst(scored, losses_N, wrong_N, max(LISTED, options.mistakes))
    shown = made.listed[: options.mistakes]
    made.unheard = _unheard(found)
    media: dict[str, Media | str] = {}
    if shown and not made.unheard:
        with bar("listening") as progress:
            media = clips.sounds(made.folder, found, [one.key for one in shown], options.audible, progress)
    for one in shown:
        heard = media.get(one.key, made.unheard or "the clip was not found in the shards")
        made.mistakes.append(Shown(one, *((None, heard) if isinstance(heard, str) else (heard, ""))))


def _unheard(found: Found) -> str:
    """Why no clip can be heard, or nothing."""
    views = next((one for one in found.views if one is not None), None)
    if views is None:
        return "the shards are not there"
    return "the shards hold features, no sound" if packed.of_view(views.train) is not None else ""


def _map(made: Content, scored: Scored, found: Found, bar: Bar) -> None:
    """The map of the first run's clips: networks of other folds have other spaces."""
    run, views = made.folder.runs[0], found.views[0]
    own = run.scored
    if own is None or views is None:
        made.plane_note = "There is no map: the shards or the scores of the run are not there."
        return
    numbers = plane.sample(len(own.keys))
    try:
        place = world.start(run.config.run.timeout, run.config.run.threads, run.config.run.deterministic)
        with bar("embedding") as progress:
            network = clips.network(run, views, place)
            vectors_NE = clips.embedded(network, run, views, numbers, progress)
    except (ValueError, OSError) as error:
        made.plane_note = f"There is no map: {error}"
        return
    made.model = facts.model(run, sum(one.numel() for one in network.model.parameters()))
    with bar("map") as progress:
        made.plane = plane.lay(own, numbers, vectors_NE, guesses.judged(own)[1], progress)
    if len(made.folder.runs) > 1:
        made.plane_note = f"Of {run.path.parent.name}, {run.path.name} alone: each network has a space of its own."
