"""A configuration, its data's folds and the seeds -> the runs of a cross-validation, every mistake found before any.

runs/NAME/seed-S/fold-F is an ordinary run: seed S, fold F held out, what is left trained on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dist_train import config as configuration
from dist_train import feed, scores
from dist_train.settings import Config
from dist_train.shards import ShardSet

NOWHERE = 32767  # a fold that stands for the one that chooses, before it is known which folds there are
PASS = 1 << 20  # rows looked through at once
MAKE = "python tools/make_shards.py pack SOURCE DEST --folds 5 makes some"


@dataclass(frozen=True)
class Turn:
    """One run: `fold` is tested; `valid` chooses the best checkpoint, if any fold does; `clips`: of the tested fold."""

    seed: int
    fold: int
    valid: int | None
    clips: int
    folder: Path
    overrides: tuple[str, ...]
    config: Config

    @property
    def name(self) -> str:
        """As it is told."""
        return f"seed {self.seed} fold {self.fold}"

    def beside(self, ending: str) -> Path:
        """A file of this turn that is no part of the run: `fold-3.log`."""
        return self.folder.with_name(f"{self.folder.name}{ending}")


@dataclass(frozen=True)
class Plan:
    """root: runs/NAME; config: what all runs share, without folds; folds: all there are; wanted: those to test now;
    data: fingerprints of the shards."""

    file: str
    overrides: tuple[str, ...]
    root: Path
    config: Config
    folds: tuple[int, ...]
    wanted: tuple[int, ...]
    seeds: tuple[int, ...]
    data: tuple[str, ...]
    validate: bool
    metric: str

    def turns(self) -> tuple[Turn, ...]:
        """All that are asked for. ValueError for folds that cannot be tested, say for a class of that fold alone."""
        return tuple(self.turn(seed, fold) for seed in self.seeds for fold in self.wanted)

    def turn(self, seed: int, fold: int) -> Turn:
        """One run; the fold after the tested one chooses, where one is to."""
        valid = self.folds[(self.folds.index(fold) + 1) % len(self.folds)] if self.validate else None
        home = self.root / f"seed-{seed}"
        own = [f"data.eval_folds=[{fold}]", *([f"data.valid_folds=[{valid}]"] if valid is not None else [])]
        own += [f"run.seed={seed}", f"run.dir={_quoted(home)}", f"run.name=fold-{fold}"]
        if (store := self.config.checkpoint.store) is not None:  # runs of other seeds have the same name
            address = "/".join((store.rstrip("/"), self.root.name, home.name))
            own.append(f"checkpoint.store={_quoted(address)}")
        config = configuration.load(self.file, [*self.overrides, *own])
        views = feed.views(config)
        assert views.evaluation is not None, "data.eval_folds is given"
        return Turn(seed, fold, valid, len(views.evaluation), home / f"fold-{fold}", (*self.overrides, *own), config)


@dataclass(frozen=True)
class Wish:
    """What is asked for beside the configuration; None: all folds, the configuration's seed and name."""

    folds: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None
    validate: bool = False
    name: str | None = None


def make(file: str, overrides: Sequence[str], wish: Wish) -> Plan:
    """Errors: `ValueError` for data without folds, a choice of epochs on a tested fold, clips that no fold scores."""
    config = _base(file, overrides, wish)
    sets = feed.opened(config, config.data.shards)
    folds = _folds(sets)
    _once(sets)
    wanted = _wanted(folds, wish.folds)
    if wish.validate and len(folds) < 3:
        raise ValueError(f"--validate takes a fold to choose, one to test and others to train on; there are {folds}")
    if not wish.validate and (chooses := sorted(set(config.data.valid_folds) & set(wanted))):
        raise ValueError(
            f"data.valid_folds={config.data.valid_folds}: fold {chooses[0]} is also tested in its turn, and epochs "
            "would be chosen on it; leave valid_folds out, or give --validate, which chooses on the next fold"
        )
    root = Path(config.run.dir) / (wish.name or config.run.name or f"{Path(file).stem}-folds")
    data = tuple(one.fingerprint for one in sets)
    if same := [one for one in feed.opened(config, config.data.valid_shards) if one.fingerprint in data]:
        raise ValueError(
            f"data.valid_shards: {same[0].root} is tested too, and would choose epochs; give --validate instead"
        )
    seeds = wish.seeds or (config.run.seed,)
    metric = scores.metric(config)
    return Plan(file, tuple(overrides), root, config, folds, wanted, seeds, data, wish.validate, metric)


def _base(file: str, overrides: Sequence[str], wish: Wish) -> Config:
    """What all runs share. ValueError for settings that would leave a clip unscored, or that this command gives."""
    seeds = wish.seeds or ()
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {','.join(map(str, seeds))}: one is there twice")
    if wish.seeds and any(text.startswith("run.seed=") for text in overrides):
        raise ValueError("run.seed and --seeds say the same: give one")
    stand_in = [f"data.valid_folds=[{NOWHERE}]"] if wish.validate else []
    config = configuration.load(file, [*overrides, "data.eval_folds=[]", *stand_in])
    data = config.data
    for key in ("eval_split", "eval_shards", "valid_split"):
        if getattr(data, key):
            raise ValueError(
                f"data.{key}: a cross-validation tests the folds of data.shards, each in its turn; set data.{key}="
                f"{'[]' if key.endswith('shards') else 'null'}, or train that split by python -m dist_train"
            )
    if any(text.startswith("data.eval_folds=") for text in overrides):
        raise ValueError("data.eval_folds: every fold is tested in its turn; for some of them give --folds")
    if config.run.resume != "auto":
        raise ValueError(f"run.resume={config.run.resume}: the same command goes on; for a fresh start give --name")
    return config


def _quoted(text: str | Path) -> str:
    """As a YAML string, whatever the folder is called."""
    return "'" + str(text).replace("'", "''") + "'"


def _folds(sets: Sequence[ShardSet]) -> tuple[int, ...]:
    """The folds of the data, rising. ValueError: there are none, or but one, or a clip has none."""
    there: set[int] = set()
    without = 0
    for one in sets:
        for begin in range(0, len(one), PASS):
            column = one.rows["fold"][begin : begin + PASS]
            there.update(np.unique(column).tolist())
            without += int((column < 0).sum())
    where, total = ", ".join(str(one.root) for one in sets), sum(map(len, sets))
    folds = tuple(sorted(fold for fold in there if fold >= 0))
    if len(folds) < 2:
        have = f"one fold ({folds[0]})" if folds else "no folds"
        raise ValueError(f"{where}: has {have}, a cross-validation takes two or more; {MAKE}")
    if without:
        raise ValueError(
            f"{where}: {without} of {total} clips are in no fold, and would be trained on but never scored; "
            f"give each a fold, or all anew: {MAKE}"
        )
    return folds


def _once(sets: Sequence[ShardSet]) -> None:
    """ValueError where two sets have a clip of the same key: pooled scores could not tell them apart."""
    if len(sets) < 2:  # within a set the index has seen to it
        return
    seen: dict[str, Path | str] = {}
    for one in sets:
        for key in (one.key(row) for row in range(len(one))):
            if key in seen:
                raise ValueError(f"clip {key} is in {seen[key]} and in {one.root}, and would be scored twice: drop one")
            seen[key] = one.root


def _wanted(folds: tuple[int, ...], asked: Iterable[int] | None) -> tuple[int, ...]:
    if asked is None:
        return folds
    wanted = tuple(asked)
    if missing := [fold for fold in wanted if fold not in folds]:
        raise ValueError(f"--folds: no clip is in fold {missing[0]}; the folds there: {', '.join(map(str, folds))}")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"--folds {','.join(map(str, wanted))}: one is there twice")
    return wanted
