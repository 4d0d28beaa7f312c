"""The things that examples in --help speak of, in a folder of their own: `recordings`, `shards/mine`, `runs/demo`, ...

PROVIDED says how each is made; a new word of a new example gets a line there. What a command makes itself is in MADE.
"""

import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tars import wav

from dist_train import config

ROOT = Path(__file__).parents[1]
ESC10 = ("Baby cry", "Chainsaw", "Clock tick", "Dog bark", "Fire crackling", "Helicopter", "Person sneeze", "Rain")
OUTSIDE = ("/tmp/", "/data/", "/shared/")


@dataclass
class Stage:
    """home: the folder that commands run in; ask: a fixture of the tests by its name."""

    home: Path
    ask: Callable[[str], Any]

    def provide(self, name: str, command: str) -> None:
        """Make what a word of a command stands for, if it is in the table and the command does not make it itself."""
        name = re.sub(r"^.*=", "", name).strip("[]'\"").rstrip("/")
        if name.startswith("configs/") and (ROOT / name).is_file():
            for implied in config.load(ROOT / name).data.shards:
                self.provide(implied, command)
        if name in PROVIDED and name not in MADE.get(command, ()) and not (path := self.inside(name)).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            PROVIDED[name](self, path)

    def inside(self, name: str) -> Path:
        """The place of a name: /tmp, /data and /shared lie in this folder too."""
        return self.home / name.lstrip("/")

    def words(self, line: str) -> list[str]:
        """A command line's words, with places outside moved inside."""
        return [str(self.inside(word)) if word.startswith(OUTSIDE) else word for word in shlex.split(line)]


def staged(home: Path, ask: Callable[[str], Any]) -> Stage:
    """An empty stage, with the project's own folders."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("tools", "configs", "dist_train"):
        (home / name).symlink_to(ROOT / name)
    return Stage(home, ask)


def _shards(stage: Stage, path: Path) -> None:
    from launches import make_shards

    path.mkdir()
    make_shards(path)


def _tars(stage: Stage, path: Path) -> None:
    _shards(stage, path)
    for index in path.glob("index*"):
        index.unlink()


def _run(stage: Stage, path: Path) -> None:
    """The finished run, with one more checkpoint: the same weights, a step before."""
    shutil.copytree(stage.ask("finished").folder, path)
    last = max((path / "checkpoints").glob("step-*.pt"))
    shutil.copy(last, last.with_name(f"step-{int(last.stem[5:]) - 1:08d}.pt"))


def _esc10_run(stage: Stage, path: Path) -> None:
    """A run that knows ESC-10's classes; it takes some seconds."""
    import launches

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launches, "CLASSES", ESC10[3:7])
        _shards(stage, path.parent / "shards")
    run = launches.train(path.parent, path.parent / "shards", f"run.name={path.name}", "run.epochs=1")
    assert (run.folder.parent / path.name / "result.json").is_file()


def _sound(stage: Stage, path: Path) -> None:
    soundfile.write(path, np.random.default_rng(0).normal(size=24000) * 0.1, 16000)


def _recordings(stage: Stage, path: Path) -> None:
    for name in ("dog", "rain"):
        (path / name).mkdir(parents=True)
        for number in range(5):
            (path / name / f"{number}.wav").write_bytes(_wave(100 * len(name) + number))


def _wave(seed: int) -> bytes:
    return wav((np.random.default_rng(seed).normal(size=8000) * 3000).astype("<i2"), 16000)


def _esc50(stage: Stage, path: Path) -> None:
    """Fifteen clips of three classes in ESC-50's layout."""
    (path / "meta").mkdir(parents=True)
    (path / "audio").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for number in range(15):
        name = f"{number % 5 + 1}-{100 + number}-A-{number % 3}.wav"
        (path / "audio" / name).write_bytes(_wave(number))
        lines.append(f"{name},{number % 5 + 1},{number % 3},class_{number % 3},False,{100 + number},A")
    (path / "meta/esc50.csv").write_text("\n".join(lines))


def _table(stage: Stage, path: Path) -> None:
    path.write_text("path,label\n" + "".join(f"clip{number}.wav,class {number % 3}\n" for number in range(40)))


def _trials(stage: Stage, path: Path) -> None:
    path.write_text("1 clip00 clip04\n0 clip00 clip01\n1 clip02 clip06\n0 clip02 clip03\n")


def entered(home: Path, tool: str, arguments: list[str], piped: str | None = None) -> int:
    """In a process of its own: the tool's exit code, called in `home`, with a file as its standard input."""
    os.chdir(home)
    if piped is not None:
        os.dup2(os.open(piped, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, closefd=False)
    spec = importlib.util.spec_from_file_location(f"tool_{tool}", ROOT / f"tools/{tool}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code: int = module.main(arguments)
    return code


def enter(home: Path, rank: int) -> None:
    """What a rank does first."""
    os.chdir(home)


PROVIDED: dict[str, Callable[[Stage, Path], None]] = {
    "recordings": _recordings,
    **dict.fromkeys(("dog.ogg", "dog.wav"), _sound),
    "table.csv": _table,
    "veri_test2.txt": _trials,
    "ESC-50": _esc50,
    "/data/esc50": _esc50,
    **dict.fromkeys(("shards/mine", "shards/esc10", "shards/esc50", "shards/voxceleb1_test", "shards/other"), _shards),
    "shards/theirs": _tars,
    **dict.fromkeys(("runs/demo", "runs/speakers", "runs/mine", "runs/a", "runs/b"), _run),
    "runs/esc10": _esc10_run,
}
"""A word of an example -> what makes it at its place."""

MADE = {
    "fetch": ("recordings",),
    "record": ("recordings",),
    "make_shards": ("shards/mine",),
    "make_shards pack": ("shards/esc50",),
}
"""Command -> words of PROVIDED that are its own work."""
