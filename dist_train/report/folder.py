"""A folder -> the runs in it: one run, or the folds of a cross-validation, finished or not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_train import saved, scored
from dist_train.report import lines
from dist_train.report.lines import Lines
from dist_train.scored import Scored
from dist_train.settings import Config


@dataclass(frozen=True)
class Run:
    """One run: its settings, as values and as they lie there; `result` None: not finished; `scored` None: no scores."""

    path: Path
    name: str
    config: Config
    yaml: str
    environment: dict[str, Any]
    result: dict[str, Any] | None
    lines: Lines
    scored: Scored | None


@dataclass(frozen=True)
class Folder:
    """`runs`: one, or each fold's; `pooled`: scores of the whole; `summary`: of a cross-validation, else None."""

    path: Path
    runs: tuple[Run, ...]
    pooled: Scored | None
    summary: dict[str, Any] | None

    @property
    def name(self) -> str:
        """What the page is called."""
        return self.path.resolve().name if self.summary is not None else self.runs[0].name


def read(path: Path, overrides: Sequence[str] = ()) -> Folder:
    """ValueError: neither a run nor a cross-validation lies there."""
    if not (path / "crossval.json").is_file():
        run = _run(path, overrides)
        return Folder(path, (run,), run.scored, None)
    found = sorted((one.parent for one in path.glob("seed-*/fold-*/config.yaml")), key=_by_number)
    if not found:
        raise ValueError(f"{path}: crossval.json is there, and no seed-S/fold-F beside it; name a whole folder")
    runs = tuple(_run(one, overrides) for one in found)
    pooled = scored.read(path) if (path / "scores.npz").is_file() else None
    return Folder(path, runs, pooled, _json(path / "crossval.json") or {})


def _by_number(path: Path) -> tuple[object, ...]:
    """Fold 10 comes after fold 9."""
    parts = [name.rpartition("-")[2] for name in path.parts[-2:]]
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def _run(path: Path, overrides: Sequence[str]) -> Run:
    config = saved.read(path, overrides)
    return Run(
        path,
        config.run.name or path.resolve().name,
        config,
        (path / "config.yaml").read_text(encoding="utf-8"),
        _json(path / "environment.json") or {},
        _json(path / "result.json"),
        lines.read(path / "metrics.jsonl"),
        scored.read(path) if (path / "scores.npz").is_file() else None,
    )


def _json(path: Path) -> dict[str, Any] | None:
    """None where there is none. ValueError where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); restore it, or take it away") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: no JSON object; restore it, or take it away")
    return found
