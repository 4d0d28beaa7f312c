"""Sounds -> clips in memory, decoded by threads, in order, and in handfuls that fill batches.

    sounds --threads: read, decode, convert--> clips --handfuls of about 256 windows--> model

However many sounds come, no more are in memory than the threads have under way and a handful holds.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dist_train.inference.clips import Clip
from dist_train.inference.sound import Reading, Sound, weight
from dist_train.recordings import Unreadable
from dist_train.settings import Audio

BYTES = 1 << 28  # decoded sound that may be under way, and in a handful


@dataclass(frozen=True)
class Bad:
    """A sound that cannot be used, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def clip(name: str, sound: Sound, rate: int | None, audio: Audio) -> Clip | Bad:
    """A sound as a whole."""
    reading = Reading(sound, rate, audio)
    try:
        return Clip(name, np.concatenate(list(reading)), reading.seconds)
    except Unreadable as error:
        return Bad(name, str(error))
    except OSError as error:
        return Bad(name, f"cannot be read: {error.strerror or error}")


def clips(
    sounds: Iterable[tuple[str, Sound]], rate: int | None, audio: Audio, threads: int | None
) -> Iterator[Clip | Bad]:
    """Each sound as a clip, in order. `threads`: how many decode; None: one a core, at most 8."""
    threads = threads or min(8, os.cpu_count() or 1)
    waiting = deque[tuple[Future[Clip | Bad], int]]()
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for name, sound in sounds:
                size = weight(sound)
                while waiting and (len(waiting) > 2 * threads or size + sum(held for _, held in waiting) > BYTES):
                    yield waiting.popleft()[0].result()
                waiting.append((pool.submit(clip, name, sound, rate, audio), size))
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()


def handfuls(found: Iterable[Clip | Bad], samples: int) -> Iterator[list[Clip | Bad]]:
    """What was found, in lists of at least `samples` samples, or of what BYTES hold."""
    handful: list[Clip | Bad] = []
    held = size = 0
    for one in found:
        handful.append(one)
        if isinstance(one, Clip):
            held += max(len(one.frames_TC), 1)
            size += one.frames_TC.nbytes
        if held >= samples or size >= BYTES or len(handful) >= 1024:
            yield handful
            handful, held, size = [], 0, 0
    if handful:
        yield handful
