"""One run in a process of its own, or under torchrun in several: started, followed, stopped. It dies with its parent.

Its lines go to seed-S/fold-F.log; seed-S/fold-F.json keeps its seconds through all its starts.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import dist_train
from dist_train import config as configuration
from dist_train import disk
from dist_train.crossval.places import Place
from dist_train.crossval.plan import Turn

_BOUND = (
    "import os, sys; from dist_train.hosts import orphan; orphan.die_with_parent(); os.execv(sys.argv[1], sys.argv[1:])"
)
OWN = "error: "  # begins the line in which a run says why it ends
_KEPT = 5.0  # seconds between two notes of the time that a run has taken


class Child:
    """A turn at a place. `seconds`: of this start and those before."""

    def __init__(self, turn: Turn, place: Place, file: str) -> None:
        """Start it. `file`: the configuration."""
        self.turn, self.place = turn, place
        self.before, self.since = spent(turn), time.monotonic()
        self._noted = 0.0
        turn.folder.parent.mkdir(parents=True, exist_ok=True)
        words = [file, *turn.overrides, f"run.threads={_threads(turn, place)}"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        paths = [str(Path(dist_train.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if place.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus)
        with turn.beside(".log").open("ab") as log:
            self.start = log.tell()
            # a session of its own: Ctrl-C on the terminal reaches the parent alone, which then stops each in order
            self.process = subprocess.Popen(
                command(place.ranks, words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.since

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        code = self.process.poll()
        if code is not None or self.seconds - self._noted > _KEPT:
            self._noted = self.seconds
            note = {"seconds": self.seconds, "ranks": self.place.ranks, "gpus": list(self.place.gpus)}
            with suppress(OSError):
                disk.replace_json(self.turn.beside(".json"), note)
        return code

    def stop(self) -> None:
        """Ask it to save and end."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, with its ranks; the newest checkpoint stays."""
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()

    def last(self, lines: int = 12) -> list[str]:
        """Why this start ended, where it says so (torchrun's own words may follow), else its last lines."""
        with self.turn.beside(".log").open("rb") as log:
            log.seek(self.start)
            text = log.read().decode("utf-8", "replace")
        own = next((line for line in text.splitlines() if line.startswith(OWN)), None)
        return [own] if own else list(deque((line for line in text.splitlines() if line.strip()), lines))


def spent(turn: Turn) -> float:
    """Seconds that a turn has taken so far."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(turn.beside(".json").read_text())["seconds"])
    return 0.0


def command(ranks: int, words: list[str]) -> list[str]:
    """What trains: `python -m dist_train`, under torchrun for several ranks."""
    module = ["-m", "dist_train", *words]
    program = [sys.executable, *module]
    if ranks > 1:
        scripts = Path(sys.executable).parent
        torchrun = next((path for path in (scripts / "torchrun", scripts / "torchrun.exe") if path.exists()), None)
        if torchrun is None:
            raise ValueError(f"{scripts}: no torchrun there, which --nproc takes; install torch in this environment")
        program = [str(torchrun), "--standalone", f"--nproc_per_node={ranks}", *module]
    return [sys.executable, "-c", _BOUND, *program] if sys.platform == "linux" else program


def _threads(turn: Turn, place: Place) -> int:
    """Of a half-trained run as many as it began with: others would add in another order."""
    if turn.config.run.threads is not None:
        return turn.config.run.threads
    if any((turn.folder / "checkpoints").glob("step-*.pt")):
        with suppress(ValueError):
            return configuration.load(turn.folder / "config.yaml").run.threads or place.threads
    return place.threads
