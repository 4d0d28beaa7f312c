"""A run's folder and the clips asked for -> what its final model gives each of them. Every rank takes part.

run -> network (the best checkpoint where a validation set chose one, else the last) -> evaluate -> Part, on rank 0
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_train import checkpoint, evaluate, feed, packed, result, saved
from dist_train.checkpoint import Checkpoints
from dist_train.feed import Views
from dist_train.saved import Saved
from dist_train.scored import Scored
from dist_train.settings import Config
from dist_train.shards import ShardSet
from dist_train.view import View, choose
from dist_train.world import World

_ROWS = 2**16  # looked through at once

Progress = Callable[[str, int, int], None]  # set, batches done, batches to do


@dataclass(frozen=True)
class Asked:
    """Which clips: of these shards, else of the run's; of these folds and this split. Nothing: its evaluation set."""

    shards: Sequence[str] = ()
    folds: Sequence[int] = ()
    split: str | None = None

    @property
    def other(self) -> bool:
        """Whether it is not simply the run's evaluation set."""
        return bool(self.shards or self.folds or self.split)


@dataclass(frozen=True)
class Part:
    """A scored set. group_N: 0 for none; digest_N: of each clip's audio."""

    name: str
    scored: Scored
    group_N: NDArray[np.uint64] = field(repr=False)
    digest_N: NDArray[np.uint64] = field(repr=False)


@dataclass(frozen=True)
class Evaluated:
    """One run's scores: of what was asked for, and of its validation set where it has one and that is another.

    path: the checkpoint; best: a validation set chose it; trained: clips that the run was trained on, None where its
    shards are gone; bad: (key, reason).
    """

    run: Path
    path: Path
    best: bool
    config: Config
    part: Part
    valid: Part | None
    trained: int | None
    bad: list[tuple[str, str]]


def evaluated(run: Path, asked: Asked, overrides: Sequence[str], world: World, progress: Progress) -> Evaluated | None:
    """Score; None on the ranks after the first. ValueError: no run, no such clips, other classes."""
    config = saved.read(run, overrides)
    own = _own(config, asked)
    sets = _opened(config, asked, own)
    network = saved.load(run, overrides, world, packed.of_set(sets[0]))
    view, name = _asked(network, asked, own, sets)
    scores = _pass(network, view, world, name, progress)
    valid = own.valid if own is not None and own.valid is not None and name != "valid" else None
    held = _pass(network, valid, world, "valid", progress) if valid is not None else None
    if scores is None:
        return None
    part, bad = scores
    second = held[0] if held is not None else None
    if second is not None and np.isin(part.digest_N, second.digest_N).any():
        second = None  # what is chosen there would be chosen on clips that are scored
    trained = _trained(part, own.train) if own is not None else None
    best = Checkpoints(run / "checkpoints", 1, lambda line: None).best() is not None
    return Evaluated(run, network.path, best, network.config, part, second, trained, bad)


def checkpoints(config: Config, paths: Sequence[Path], world: World, progress: Progress) -> list[Part]:
    """Scores of single checkpoints of one run on its evaluation set, else its validation set; by one process.

    ValueError: it has neither.
    """
    asked, own = Asked(), feed.views(config)
    sets = _opened(config, asked, own)
    found = []
    for path in paths:
        network = saved.restored(config, path, checkpoint.load(path), world, packed.of_set(sets[0]))
        view, name = _asked(network, asked, own, sets)
        scores = _pass(network, view, world, name, partial(_named, progress, path.name))
        assert scores is not None, "one process is the first"
        found.append(scores[0])
    return found


def _named(progress: Progress, name: str, stage: str, done: int, total: int) -> None:
    progress(name, done, total)


def _own(config: Config, asked: Asked) -> Views | None:
    """The run's own views; None where other shards are asked for and the run's are gone."""
    try:
        return feed.views(config)
    except ValueError:
        if not asked.shards:
            raise
        return None


def _opened(config: Config, asked: Asked, own: Views | None) -> Sequence[ShardSet]:
    if asked.shards:
        sets = feed.opened(config, asked.shards)
    elif asked.other:
        sets = feed.opened(config, config.data.shards)
    else:
        assert own is not None, "its error was raised"
        view = own.evaluation or own.valid
        if view is None:
            raise ValueError("the run has no evaluation set; give --shards FOLDER, --folds or --split")
        return view.sets
    for one in sets:
        if packed.of_set(one) != packed.of_set(sets[0]):
            raise ValueError(f"{one.root}: holds other features than {sets[0].root}; score them apart")
    return sets


def _asked(network: Saved, asked: Asked, own: Views | None, sets: Sequence[ShardSet]) -> tuple[View, str]:
    """The view to score, and what it is called."""
    if not asked.other:
        assert own is not None, "its error was raised"
        if own.train.classes != network.classes:
            raise ValueError(f"{sets[0].root}: has other classes than {network.path}; name the shards it was made with")
        view = own.evaluation or own.valid
        assert view is not None, "its error was raised"
        return view, "evaluation" if own.evaluation is not None else "valid"
    view = choose(sets, folds=asked.folds or None, split=asked.split, classes=network.classes)
    if network.config.objective.name != "bce" and (key := view.several) is not None:
        raise ValueError(f"{view.sets[0].root}: {key} has several labels, and {network.path} knows one a clip")
    said = [f"shards {', '.join(asked.shards)}"] if asked.shards else []
    said += [f"folds {', '.join(map(str, asked.folds))}"] if asked.folds else []
    return view, ", ".join([*said, *([f"split {asked.split}"] if asked.split else [])])


def _pass(
    network: Saved, view: View, world: World, name: str, progress: Progress
) -> tuple[Part, list[tuple[str, str]]] | None:
    """Scores of a view, with its groups and digests, on rank 0; and (key, reason) of clips that cannot be read."""
    config, done = network.config, 0
    share = np.arange(-(-len(view) // (world.size if config.evaluation.ranks == "all" else 1)))
    batches = sum(1 for _ in evaluate.clip_windows(view, share, config)) if world.first else 0

    def turn() -> bool:
        nonlocal done
        done += 1
        if world.first:
            progress(name, min(done, batches), batches)
        return False

    found = evaluate.evaluate(network.model, view, config, network.front, world, turn)
    if found is None:
        return None
    held = result.arrays(found, view, network.classes)
    scored = Scored(held["keys"], network.classes, held["truth"], held["probability"], held["bad"])
    rows = view.rows(np.arange(len(view)))
    part = Part(name, scored, rows["group"].astype(np.uint64), rows["digest"].astype(np.uint64))
    return part, [(view.key(number), reason) for number, reason in sorted(found.bad)]


def _trained(part: Part, train: View) -> int:
    """Clips whose very audio was trained on."""
    own, clips = np.unique(part.digest_N, return_counts=True)
    seen = np.zeros(len(own), np.bool_)
    for start in range(0, len(train), _ROWS):
        digests = train.rows(np.arange(start, min(start + _ROWS, len(train))))["digest"]
        place = np.searchsorted(own, digests).clip(max=len(own) - 1)
        seen[place[own[place] == digests]] = True
    return int(clips[seen].sum())
