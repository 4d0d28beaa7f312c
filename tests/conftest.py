"""What every test shares: where things lie, the environment of subprocesses, one compute thread."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from servers import Seaweed

if TYPE_CHECKING:
    from launches import Run

ROOT = Path(__file__).parents[1]
LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("NNODES", "NODE_RANK", "NPROC", "LAUNCHER", "RESTARTS", "DRY", "VENV", "PYTHON", "CUDA_VISIBLE_DEVICES"),
)

torch.set_num_threads(1)  # as many test processes as cores run side by side


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A script of tools/ by its name, as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"tools/{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def esc10() -> Path:
    """The recordings of ESC-10 as they are published."""
    root = Path(os.environ.get("DIST_TRAIN_ESC10", ROOT.parent / "shared/data/esc10"))
    if not root.is_dir():
        pytest.skip(f"no ESC-10 at {root}; set DIST_TRAIN_ESC10")
    return root


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shards of launches.py, anew for each file of tests."""
    from launches import make_shards  # it starts a server of forks that has imported everything

    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def undisturbed(request: pytest.FixtureRequest, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A run of two ranks to the end of the file's LENGTH, for those that are disturbed."""
    from launches import train

    return train(tmp_path_factory.mktemp("undisturbed"), shards, *request.module.LENGTH, ranks=2)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished run of three epochs on the tiny shards, scored on fold 1. To be read only: a copy is changed."""
    from launches import make_shards, train

    home = tmp_path_factory.mktemp("finished")
    (home / "shards").mkdir()
    return train(home, make_shards(home / "shards"), "run.epochs=3", "optim.lr=3e-3")


@pytest.fixture(scope="session")
def real_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of configs/esc10.yaml with fold 1 held out: DIST_TRAIN_RUN, else one trained for 15 epochs.
    To be read only, and for tests marked `full`."""
    if given := os.environ.get("DIST_TRAIN_RUN"):
        return Path(given)
    home = tmp_path_factory.mktemp("real")
    words = [f"data.shards=[{home / 'shards'}]", f"run.dir={home}", "run.name=run", "run.epochs=15"]
    settings = ["configs/esc10.yaml", *words, "evaluation.every_epochs=15", "log.tensorboard=false"]
    commands = (["tools/make_shards.py", "pack", str(request.getfixturevalue("esc10")), str(home / "shards")],)
    for command in (*commands, ["-m", "dist_train", *settings]):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, timeout=1500)
    return home / "run"


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server for all tests; who kills it starts it again. Ask for `seaweed`."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def seaweed(weed: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seaweed:
    """The S3 server, with the environment that finds it, and a folder of this test alone for indexes."""
    for name, value in (weed.environment | {"XDG_CACHE_HOME": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    return weed


@pytest.fixture
def environment() -> dict[str, str]:
    """Environment for a subprocess: this Python first on PATH, this checkout importable, one thread, no launcher."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    kept = {
        name: value
        for name, value in kept.items()
        if not name.startswith(("SLURM_", "PET_", "SKYPILOT_", "ACCELERATE_"))
    }
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": "1",
    }
