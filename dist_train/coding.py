"""A recording, or a cut of one -> the bytes of one member of a shard: mixed, resampled and coded.

Comes in: a path and a cut in seconds. Goes out: bytes, of at most int16. Everything streams in blocks, so a long file
costs no more memory than its result.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from dist_train.recordings import Block, Unreadable, open_cut

CODECS = {"pcm16": ("WAV", "PCM_16"), "mulaw": ("WAV", "ULAW"), "flac": ("FLAC", "PCM_16")}
"""Codec -> libsndfile's container and encoding. `original` keeps the file's bytes."""


class TooShort(Exception):
    """A recording or cut under the wanted length."""


def encode(
    path: Path, codec: str, rate: int, channels: int, start: float | None, end: float | None, shortest: float
) -> tuple[bytes, str, float]:
    """One member's bytes, its extension without the dot, and its length in seconds.

    Resampling is soxr's VHQ; one channel is the mean of all, more are the first ones; int16 by rounding and clipping.
    `shortest` (seconds) raises TooShort; everything that cannot be read, is empty or not finite raises Unreadable.
    """
    if codec == "original":
        seconds = _check(path, shortest)
        return path.read_bytes(), path.suffix.lower()[1:], seconds
    source_rate, blocks = open_cut(path, start, end)
    mixed = (_mix(block, channels) for block in blocks)
    file = io.BytesIO()
    container, subtype = CODECS[codec]
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as sink:
        frames = 0
        for block in _resample(_finite(mixed), source_rate, rate, channels):
            sink.write(np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16))
            frames += len(block)
    _long_enough(frames / rate, shortest)
    return file.getvalue(), container.lower(), frames / rate


def _check(path: Path, shortest: float) -> float:
    """The seconds of a whole file that is kept as it is, once all of it was decoded."""
    rate, blocks = open_cut(path, None, None)
    seconds = sum(len(block) for block in _finite(blocks)) / rate
    _long_enough(seconds, shortest)
    return seconds


def _long_enough(seconds: float, shortest: float) -> None:
    if seconds < shortest:
        raise TooShort(f"{seconds:.3f} s")


def _finite(blocks: Iterator[Block]) -> Iterator[Block]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise Unreadable("holds values that are not finite")
        yield block


def _mix(block: Block, channels: int) -> Block:
    if channels == 1:
        return np.asarray(block.mean(axis=1, keepdims=True), np.float32)
    if block.shape[1] < channels:
        raise Unreadable(f"has {block.shape[1]} channels, {channels} are wanted")
    return block[:, :channels]


def _resample(blocks: Iterator[Block], source: int, target: int, channels: int) -> Iterator[Block]:
    if source == target:
        yield from blocks
        return
    stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
