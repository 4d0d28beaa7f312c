"""What goes wrong in a rank, for tests and the soak: called in its process, with its number, before it begins."""

import functools
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path


def at_step(rank: int, step: int | None, cause: Callable[[], object], number: int) -> None:
    """In one rank, do something when the given step begins, or each."""
    if number != rank:
        return
    from dist_train.engine import Engine

    real = Engine._step

    def stepped(self: Engine) -> None:
        if step in (None, self.progress.step + 1):
            cause()
        real(self)

    Engine._step = stepped  # type: ignore[method-assign]


def fail() -> None:
    raise RuntimeError("a mistake in the code")


def in_reader(rank: int, position: int | None, cause: Callable[[], object], number: int) -> None:
    """In one rank, do something in the thread that reads a position of the stream."""
    if number != rank:
        return
    from dist_train.payload import Payload

    real = Payload.read

    def read(self: Payload, begin: int, end: int) -> None:
        if position is None or position in self.plan["position"]:
            cause()
        real(self, begin, end)

    Payload.read = read  # type: ignore[method-assign]


def in_front(rank: int, position: int | None, cause: Callable[[], object], number: int) -> None:
    """In one rank, do something where a position's features are computed."""
    if number != rank:
        return
    from dist_train.frontend import FrontEnd

    real = FrontEnd.__call__

    def heard(self: FrontEnd, raw: object, training: bool) -> object:
        if position is None or position in raw.plan["position"]:  # type: ignore[attr-defined]
            cause()
        return real(self, raw, training)  # type: ignore[arg-type]

    FrontEnd.__call__ = heard  # type: ignore[method-assign, assignment]


def slow_evaluation(mark: Path, seconds: float | Callable[[], float], number: int) -> None:
    """Each batch of an evaluation takes longer; the first one that a rank begins is shown by a file."""
    from dist_train.evaluate import Sums

    real = Sums.take

    def take(self: Sums, *given: object) -> None:
        mark.touch()
        time.sleep(seconds() if callable(seconds) else seconds)
        real(self, *given)  # type: ignore[arg-type]

    Sums.take = take  # type: ignore[method-assign, assignment]


def slow_reader(rank: int, number: int) -> None:
    """One rank has a slow disk."""
    in_reader(rank, None, functools.partial(time.sleep, 0.05), number)


def eat() -> None:
    """Take more memory than there is: the system's own refusal."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, hard))
    bytearray(2**30)


def eat_in_save(number: int) -> None:
    """The thread that writes the checkpoint of step 5 runs out of memory."""
    from dist_train import checkpoint

    real = checkpoint.Checkpoints._write

    def write(self: checkpoint.Checkpoints, path: Path, *given: object) -> None:
        if "00000005" in path.name:
            eat()
        real(self, path, *given)  # type: ignore[arg-type]

    checkpoint.Checkpoints._write = write  # type: ignore[method-assign, assignment]
