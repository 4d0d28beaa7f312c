"""A run's folder -> what is compared of it: settings, curves, scores. Also a cross-validation's, and a bare scores.npz.

A cross-validation has no curves, and its settings are those of its first run, but for what it holds out.
"""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from dist_train import config as configuration
from dist_train import feed, scored, view
from dist_train.scored import Scored
from dist_train.settings import Config

NAMES = ("run.name", "run.dir", "run.resume")  # of a run, not of what it does
HELD = ("data.eval_folds", "data.valid_folds")

Curve = list[tuple[float, float]]  # epoch, value


@dataclass(frozen=True)
class History:
    """config, curves: None and empty where there are none; pooled: of a cross-validation."""

    name: str
    path: Path
    config: Config | None
    pooled: bool
    scored: Scored
    records: list[dict[str, Any]] = field(repr=False)

    def settings(self) -> dict[str, Any]:
        """Every setting that makes a run what it is, by `section.key`."""
        if self.config is None:
            return {}
        values = configuration.flat(configuration.plain(self.config))
        return {key: value for key, value in values if key not in NAMES}

    def curve(self, kind: str, name: str) -> Curve:
        """Values of one kind of record (`train`, `eval`, `valid`) over epochs."""
        found = [(one.get("epoch"), one.get(name)) for one in self.records if one.get("kind") == kind]
        return [(epoch, value) for epoch, value in found if _number(epoch) and _number(value)]

    @cached_property
    def groups(self) -> dict[str, int]:
        """The group of each scored clip by its key, as the index has it; empty where the shards are gone."""
        if self.config is None:
            return {}
        with suppress(ValueError, OSError):
            if self.pooled:
                chosen = view.choose(feed.opened(self.config, self.config.data.shards))
            else:
                views = feed.views(self.config)
                chosen = views.evaluation or views.valid or views.train
            ids = np.arange(len(chosen))
            keys = (chosen.key(number) for number in ids.tolist())
            return dict(zip(keys, chosen.rows(ids)["group"].tolist(), strict=True))
        return {}


def read(paths: Sequence[Path]) -> list[History]:
    """ValueError: one that is not finished, or is no run.

    Names are those of the folders; the whole paths where two agree, and numbered where these do too.
    """
    names = [path.resolve().name if path.is_dir() else path.name for path in paths]
    for other in ([str(path) for path in paths], [f"{number} {path}" for number, path in enumerate(paths, 1)]):
        names = names if len(set(names)) == len(names) else other
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def groups_of(keys: Sequence[str], histories: Sequence[History]) -> NDArray[np.uint64] | None:
    """(N,) groups of clips, by the first run that knows them all; None where none does."""
    for one in histories:
        if all(key in one.groups for key in keys):
            return np.array([one.groups[key] for key in keys], np.uint64)
    return None


def _read(path: Path, name: str) -> History:
    if not path.exists():
        raise ValueError(f"{path}: no run there; name a folder that training made, e.g. runs/demo")
    found = scored.read(path)
    if path.is_file():
        return History(name, path, None, False, found, [])
    own = path / "config.yaml"
    inner = sorted(path.glob("seed-*/fold-*/config.yaml"))
    file = own if own.is_file() else inner[0] if inner else None
    config = configuration.load(file) if file is not None else None
    return History(name, path, config, not own.is_file() and bool(inner), found, _records(path / "metrics.jsonl"))


def _records(path: Path) -> list[dict[str, Any]]:
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                found += [record] if isinstance(record, dict) else []
    return found


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
