"""Sounds -> clips in memory, decoded by threads, in order, and in handfuls that fill batches.

    sounds --threads: read, decode, convert--> clips --handfuls of several batches--> model

However many sounds come, no more are in memory than the threads have under way and a handful holds.
"""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from dist_train.inference.clips import Clip
from dist_train.inference.sound import Reading, Sound, named, weight
from dist_train.recordings import Unreadable
from dist_train.settings import Audio

BYTES = 1 << 28  # decoded sound that may be under way, and in a handful
BATCHES = 8  # that a handful fills
CLIPS = 1024  # of a handful at most


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
    except (Unreadable, OSError) as error:
        return refused(name, error)


def refused(name: str, error: Unreadable | OSError) -> Bad:
    """Why a sound cannot be used."""
    if isinstance(error, Unreadable):
        return Bad(name, str(error))
    return Bad(name, f"cannot be read: {error.strerror or error}")


def clips(sounds: Iterable[Sound], rate: int | None, audio: Audio, threads: int | None) -> Iterator[Clip | Bad]:
    """Each sound as a clip, in order. `threads`: how many decode; None: one a core, at most 8. A single sound is
    decoded without one: it is there sooner."""
    numbered = enumerate(sounds)
    if len(first := list(itertools.islice(numbered, 2))) < 2:
        yield from (clip(named(sound), sound, rate, audio) for _, sound in first)
        return
    threads = threads or min(8, os.cpu_count() or 1)
    waiting, held = deque[tuple[Future[Clip | Bad], int]](), 0
    with ThreadPoolExecutor(threads, "decode") as pool:
        try:
            for number, sound in itertools.chain(first, numbered):
                size = weight(sound)
                while waiting and (len(waiting) > 2 * threads or held + size > BYTES):
                    future, less = waiting.popleft()
                    held -= less
                    yield future.result()
                waiting.append((pool.submit(clip, named(sound, number), sound, rate, audio), size))
                held += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()


def handfuls(found: Iterable[Clip | Bad], samples: int) -> Iterator[list[Clip | Bad]]:
    """What was found, in lists that hold BATCHES batches of `samples` samples each, or as much as may be."""
    handful, held, size = list[Clip | Bad](), 0, 0
    for one in found:
        handful.append(one)
        if isinstance(one, Clip):
            held, size = held + len(one.frames_TC), size + one.frames_TC.nbytes
        if held >= BATCHES * samples or size >= BYTES or len(handful) >= CLIPS:
            yield handful
            handful, held, size = [], 0, 0
    if handful:
        yield handful
