"""Rows of a set of shards -> their sound, or what a job makes of it, by threads, in order.

    rows --handfuls--> threads: read, decode, job --in order--> results; twice as many handfuls under way as threads

Of a long recording its first minute is heard, so memory is bounded by threads, not by what the shards hold.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import index, level
from dist_train.archive.row import BYTES, CODECS
from dist_train.compressed import decode
from dist_train.shards import ShardSet
from dist_train.storage import Source
from dist_train.supply.source import source

MINUTE = 60  # seconds heard of each recording
HANDFUL = 32

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Sound:
    """One row's: frames (T, channels) float32, full scale 1; rate in Hz."""

    row: int
    frames: NDArray[np.float32]
    rate: int


def hear(
    one: ShardSet,
    rows: Sequence[int],
    job: Callable[[Sound], Result],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Iterator[Result | str]:
    """job(sound) of each row in order; a text, the reason, where a row cannot be decoded. OSError: a shard was cut."""
    files = opened(one)
    handfuls = [rows[start : start + HANDFUL] for start in range(0, len(rows), HANDFUL)]
    waiting = deque[Future[list[Result | str]]]()
    done, threads = 0, threads or index.cores()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for handful in (*handfuls, *[()] * (2 * threads)):
                if handful:
                    waiting.append(pool.submit(_all, one, files, handful, job))
                while waiting and (len(waiting) > 2 * threads or not handful):
                    found = waiting.popleft().result()
                    done += len(found)
                    if progress is not None:
                        progress(done, len(rows))
                    yield from found
        finally:
            for future in waiting:
                future.cancel()
    files.close()


def opened(one: ShardSet) -> Source:
    """What reads a set's shards, wherever they lie."""
    return source([one.file(name) for name in one.names], [shard["bytes"] for shard in one.info["shards"]])


def _all(one: ShardSet, files: Source, rows: Sequence[int], job: Callable[[Sound], Result]) -> list[Result | str]:
    found: list[Result | str] = []
    for row in rows:
        try:
            found.append(job(sound(one, files, row)))
        except ValueError as error:
            found.append(f"{one.key(row)}: {error}")
    return found


def sound(one: ShardSet, files: Source, row: int) -> Sound:
    """A row's first minute. ValueError (the reason only): it cannot be decoded."""
    fields = one.rows[row]
    codec, rate, channels = CODECS(int(fields["codec"])), int(fields["rate"]), int(fields["channels"])
    count = min(int(fields["frames"]), MINUTE * rate)
    pcm = codec < CODECS.FILE
    raw = bytearray(count * channels * BYTES[codec] if pcm else int(fields["size"]))
    for error in files.read_rows([int(fields["shard"])], [int(fields["offset"])], [memoryview(raw)]).values():
        raise error
    if pcm:
        wave = level.pcm(bytes(raw), codec) / level.FULL_SCALE[codec]
    else:
        wave = decode(raw, codec, 0, count, channels, rate) / 32768
    if not np.isfinite(wave).all():
        raise ValueError("it holds samples that are not finite")
    return Sound(row, wave.astype(np.float32).reshape(-1, channels), rate)
