"""The work of packing that is given to processes: headers, digests, encoding. And the processes themselves.

Results come back in the order of the tasks with a bounded number under way, so nothing that is written depends on
timing and memory does not grow with the source.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from dist_train.assembly.coding import TooShort, encode
from dist_train.assembly.trim import Trim
from dist_train.sources import recordings
from dist_train.sources.recordings import Header, Unreadable

if TYPE_CHECKING:
    from dist_train.assembly.extraction import Recipe

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Coding:
    """How recordings are coded: coding.encode's arguments that are the same for all."""

    codec: str
    rate: int
    channels: int
    shortest: float
    trim: Trim | None = None
    recipe: "Recipe | None" = None  # features in the place of audio


@dataclass(frozen=True)
class Encoded:
    """One clip's bytes, extension and seconds, and what trimming left of it (`coding.Coded`); without bytes, `reason`
    says why it is left out."""

    data: bytes | None
    suffix: str = ""
    seconds: float = 0.0
    kept: tuple[tuple[float, float], ...] = ()
    trimmed: float | None = None
    reason: str = ""
    short: bool = False


Cut = tuple[Path, float | None, float | None]
Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of how many)."""


class Spread(Protocol):
    """`in_order`, or what fetches the files of each task first. Tasks are handfuls of paths or cuts; the results laid
    end to end are those of the tasks laid end to end."""

    def __call__(
        self, function: Callable[[list[Task]], list[Result]], tasks: Iterable[list[Task]], workers: int
    ) -> Generator[list[Result], None, None]: ...


def headers(paths: list[Path]) -> list[Header | str]:
    """Each file's header, or why it has none."""
    found: list[Header | str] = []
    for path in paths:
        try:
            found.append(recordings.header(path))
        except Unreadable as error:
            found.append(str(error))
    return found


def digests(paths: list[Path]) -> list[bytes]:
    """SHA-256 of each file's bytes."""
    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    return found


def encode_all(cuts: list[Cut], coding: Coding) -> list[Encoded]:
    """Each cut's bytes, or why it is left out."""
    found = []
    for path, start, end in cuts:
        try:
            coded = encode(path, coding.codec, coding.rate, coding.channels, start, end, coding.shortest, coding.trim)
            made = Encoded(coded.data, coded.suffix, coded.seconds, coded.kept, coded.trimmed)
            found.append(made if coding.recipe is None else _features(made, coding.recipe))
        except Unreadable as error:
            found.append(Encoded(None, reason=str(error)))
        except OSError as error:
            found.append(Encoded(None, reason=f"cannot be read: {error.strerror}"))
        except TooShort as error:
            found.append(Encoded(None, reason=str(error), short=True))
    return found


def _features(audio: Encoded, recipe: "Recipe") -> Encoded:
    from dist_train.assembly.extraction import extract  # imports torch: processes that only encode do without

    assert audio.data is not None
    try:
        return replace(audio, data=extract(audio.data, recipe), suffix="npy")
    except ValueError as error:
        return Encoded(None, reason=str(error))


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Generator[Result, None, None]:
    """`map(function, tasks)` on `workers` processes; one worker is this process itself."""
    if workers == 1:
        yield from map(function, tasks)
        return
    # spawn: a fork of a process with threads (torch's, a progress bar's) may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_enter)
    waiting = deque[Future[Result]]()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise ValueError(
            "a worker process was killed, perhaps for memory; run the same command again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Crew:
    """Who works: so many processes, how tasks come to them, and who is told how far they are."""

    workers: int
    progress: Progress
    spread: Spread = in_order


def _enter() -> None:
    """Ctrl-C is the parent's to obey; and where the parent is killed its workers end too, for nobody else ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
