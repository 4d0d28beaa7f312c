"""A real launcher (torchrun, accelerate) as a process, and the ranks that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from launches import PATIENCE, Run, arguments

TORCHRUN = "torch.distributed.run"
ALONE = ("--standalone", "--nproc_per_node=2")


class Launch:
    """A launcher and what it started. `command`: a module and its arguments; its output goes to `home`/`output`."""

    def __init__(
        self, command: list[str], home: Path, root: Path, environment: dict[str, str], output: str = "output.txt"
    ) -> None:
        self.run, self.output = Run(home / "tiny"), home / output
        with self.output.open("a") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=root, env=environment, stdout=file, stderr=file
            )

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something that the run does while it goes on."""
        end = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.01)

    def until_step(self, step: int) -> None:
        self.until(lambda: self.run.steps() >= step)

    def code(self, seconds: float = PATIENCE) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()

    def ranks(self) -> list[int]:
        """Processes of the ranks that run now, in no order."""
        return sorted(children(self.process.pid))

    def text(self) -> str:
        return self.output.read_text()


def torchrun(home: Path, shards: Path, *overrides: str, flags: tuple[str, ...] = ALONE) -> list[str]:
    """The command of a tiny run of two ranks on one host, or as `flags` say."""
    return [TORCHRUN, *flags, "-m", "dist_train", *arguments(home, shards, *overrides)]


def children(process: int) -> list[int]:
    """Live processes that `process` started."""
    found = list[int]()
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:  # a thread that is over
            continue
    return found


def alive(process: int) -> bool:
    """Whether it runs: one that is dead and not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes: list[int], within: float) -> bool:
    """Whether all of them end in so many seconds; those that do not are killed."""
    end = time.monotonic() + within
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.05)
    late = [process for process in processes if alive(process)]
    for process in late:
        os.kill(process, signal.SIGKILL)
    return not late
