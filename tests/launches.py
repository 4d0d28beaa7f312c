"""Tiny shards and short runs on them, for the tests that train end to end.

Ranks are forked from a process that has imported everything, since importing torch anew takes seconds a rank; they are
processes of their own all the same, with a launcher's environment, and are signalled and killed as such.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import LAUNCHER_VARIABLES
from tars import pack, wav

from dist_train import config, shards
from dist_train.__main__ import main
from dist_train.settings import Config

CLASSES = ("gong", "no", "on", "rain")
CLIPS, SHARDS, FOLDS = 60, 3, 3
TRAINED = CLIPS - CLIPS // FOLDS  # clips of a run that holds one fold out
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"eval_folds": [1], "batch_size": 20, "micro_batch": 4, "threads": 1, "ahead": 2},  # five groups a step
    "audio": {"seconds": 0.4},
    "features": {"bins": 20},
    "model": {"channels": 8, "embedding": 16},
    "run": {"threads": 1, "timeout": 60},
    "evaluation": {"every_epochs": 1000},
    "checkpoint": {"every_epochs": 1000},
    "log": {"every": 1, "tensorboard": False},
}
PATIENCE = 120.0  # seconds for what takes a few on an idle machine

_LATE = ("torch._dynamo", "torchmetrics.functional.classification", "matplotlib.backends.backend_agg")  # in a run
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["dist_train.engine", "dist_train.demo", "dist_train.picture", *_LATE])


def clip(number: int) -> tuple[np.ndarray, int]:
    """Samples and rate of a clip: a tone or noise, by its class, of 0.3 to 1.3 s."""
    random = np.random.default_rng(number)
    rate = 8000 if number % 5 == 0 else 16000
    frames = int(random.uniform(0.3, 1.3) * rate)
    tone = np.sin(np.arange(frames) * 2 * np.pi * (150 + 400 * (number % 3)) / rate)
    wave = random.normal(size=frames) if number % 4 == 3 else tone + 0.2 * random.normal(size=frames)
    return (wave * 4000).clip(-32768, 32767).astype("<i2"), rate


def make_shards(folder: Path, form: str = "WAV") -> Path:
    """60 clips of four classes in three indexed shards, folds 1 to 3."""
    samples = []
    for number in range(CLIPS):
        record = {"label": CLASSES[number % 4], "fold": number // 4 % FOLDS + 1}
        name = f"clip{number:02d}"
        samples.append([(f"{name}.{form.lower()}", wav(*clip(number), "VORBIS" if form == "OGG" else "PCM_16", form))])
        samples[-1].append((f"{name}.json", json.dumps(record).encode()))
    for number in range(SHARDS):
        members = [member for sample in samples[number::SHARDS] for member in sample]
        pack(folder / f"tiny-{number}.tar", members)
    shards.build(folder, workers=1)
    return folder


def arguments(home: Path, data: Path | str, *overrides: str) -> list[str]:
    """The command line of a tiny run in `home`/tiny on the shards `data`."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "tiny.yaml").write_text(json.dumps(SETTINGS))  # JSON is YAML
    return [str(home / "tiny.yaml"), f"data.shards=[{data}]", f"run.dir={home}", *overrides]


def settings(data: Path, *overrides: str) -> Config:
    """The checked configuration of a tiny run."""
    file, *given = arguments(data.parent, data, *overrides)
    return config.load(file, given)


class Run:
    """What lies in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def metrics(self, kind: str = "train") -> list[dict[str, Any]]:
        """The whole lines of metrics.jsonl, of one kind."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def column(self, name: str) -> list[Any]:
        """One value of every training line."""
        return [record[name] for record in self.metrics()]

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return result

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").exists()

    def saved(self) -> list[Path]:
        """Whole checkpoints, the newest last."""
        return sorted((self.folder / "checkpoints").glob("step-*.pt"))

    def last(self) -> dict[str, Any]:
        """The newest checkpoint."""
        payload: dict[str, Any] = torch.load(self.saved()[-1], weights_only=True)
        return payload

    def steps(self) -> int:
        """Steps in metrics.jsonl."""
        return len(self.metrics())


class Job:
    """One command on `ranks` processes. `hosts`: each thinks that it is alone on a host; `cause`: called in each before
    it begins, with its number."""

    def __init__(
        self,
        command: list[str],
        home: Path,
        ranks: int = 1,
        cause: Callable[[int], None] | None = None,
        hosts: bool = False,
    ) -> None:
        self.run = Run(home / "tiny")
        self.outputs = [home / f"output-{rank}.txt" for rank in range(ranks)]
        self.ranks = fork(caused, [[command, cause, rank] for rank in range(ranks)], self.outputs, hosts)

    def signal(self, number: int) -> None:
        for rank in self.ranks:
            assert rank.pid is not None
            os.kill(rank.pid, number)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something that the run does while it goes on."""
        end = time.monotonic() + PATIENCE
        while not happened():
            assert all(rank.is_alive() for rank in self.ranks) and time.monotonic() < end, self.text()
            time.sleep(0.002)

    def kill(self) -> None:
        """kill -9 of every process."""
        for rank in self.ranks:
            rank.kill()  # nothing where it has ended
            rank.join()

    def hold_in_save(self) -> None:
        """Stop every process (SIGSTOP) while a checkpoint is half written."""

        def writing() -> bool:
            if not self._temporary():
                return False
            self.signal(signal.SIGSTOP)
            time.sleep(0.01)
            if not self._temporary():  # it was whole before the signal came
                self.signal(signal.SIGCONT)
            return self._temporary()

        self.until(writing)

    def kill_in_save(self) -> None:
        """kill -9 of every process while a checkpoint is half written."""
        self.hold_in_save()
        self.kill()
        assert self._temporary()

    def wait(self) -> list[int | None]:
        """Exit codes."""
        end = time.monotonic() + PATIENCE
        for rank in self.ranks:
            rank.join(max(0.0, end - time.monotonic()))
        codes = [rank.exitcode for rank in self.ranks]
        if None in codes:
            self.kill()
        return codes

    def text(self) -> str:
        """What all ranks wrote to stdout and stderr."""
        return "\n".join(path.read_text() for path in self.outputs if path.exists())

    def _temporary(self) -> bool:
        return any((self.run.folder / "checkpoints").glob(".*.tmp"))


def process(target: Callable[..., None], *given: Any) -> Any:
    """A started process that calls `target`; it ends with this one."""
    one = _server.Process(target=target, args=given, daemon=True)
    one.start()
    return one


def train(home: Path, data: Path | str, *overrides: str, ranks: int = 1) -> Run:
    """Train to the end."""
    job = Job(arguments(home, data, *overrides), home, ranks)
    assert job.wait() == [0] * ranks, job.text()
    return job.run


def caused(command: list[str], cause: Callable[[int], None] | None, rank: int) -> int:
    """The command's exit code, after what goes wrong in it was prepared."""
    if cause is not None:
        cause(rank)
    return main(command)


def fork(
    work: Callable[..., int], given: Sequence[Sequence[Any]], outputs: Sequence[Path], hosts: bool = False
) -> list[Any]:
    """Processes of one world that call `work` on what is given to each; their exit codes are its values."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [(rank, len(outputs), port, hosts) for rank in range(len(outputs))]
    ranks = [
        _server.Process(target=_rank, args=(work, *one, stores()), daemon=True)
        for one in zip(given, places, outputs, strict=True)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def stores() -> dict[str, str]:
    """Where this process finds stores and keeps indexes: the forkserver has the environment of its own start."""
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "XDG_"))}


def _rank(
    work: Callable[..., int],
    given: Sequence[Any],
    place: tuple[int, int, int, bool],
    output: Path,
    found: dict[str, str],
) -> None:
    """Be the rank: its environment, its output, its exit code."""
    os.environ.update(found, PYTHONUNBUFFERED="1", OMP_NUM_THREADS="1")
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
    if place[1] > 1:
        rank, ranks, port, hosts = place
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        os.environ.update(LOCAL_RANK=str(0 if hosts else rank), LOCAL_WORLD_SIZE=str(1 if hosts else ranks))
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    code = work(*given)
    sys.stdout.flush()
    os._exit(code)  # as a process of its own would end, whatever the forking parent had registered
