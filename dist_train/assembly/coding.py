"""A recording, or a cut of one -> the bytes of one member of a shard: trimmed, mixed, resampled and coded.

Comes in: a path and a cut in seconds. Goes out: bytes, of at most int16. Everything streams in blocks, so a long file
costs no more memory than its result; trimming decodes it twice.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr

from dist_train.assembly.trim import VAD_RATE, Part, Trim, joined, silence, speech
from dist_train.sources.recordings import Block, Unreadable, open_cut

CODECS = {"pcm16": ("WAV", "PCM_16"), "mulaw": ("WAV", "ULAW"), "flac": ("FLAC", "PCM_16")}
"""Codec -> libsndfile's container and encoding. `original` keeps the file's bytes."""


class TooShort(Exception):
    """A recording or cut under the wanted length."""


@dataclass(frozen=True)
class Coded:
    """A member's bytes, its extension without the dot, its length in seconds. Where it was trimmed: the parts that are
    left, in seconds of the recording (none: nothing to keep was found, and all of it is), and the seconds cut away."""

    data: bytes
    suffix: str
    seconds: float
    kept: tuple[tuple[float, float], ...] = ()
    trimmed: float | None = None


def encode(
    path: Path,
    codec: str,
    rate: int,
    channels: int,
    start: float | None,
    end: float | None,
    shortest: float,
    trim: Trim | None = None,
) -> Coded:
    """One member.

    Resampling is soxr's VHQ; one channel is the mean of all, more are the first ones, from the first on again where
    there are fewer; int16 by rounding and clipping. `shortest` (seconds) raises TooShort; everything that cannot be
    read, is empty or not finite raises Unreadable.
    """
    if codec == "original":
        seconds = _check(path, shortest)
        return Coded(path.read_bytes(), path.suffix.lower()[1:], seconds)
    parts, length = (None, 0) if trim is None else _parts(path, start, end, trim)
    source_rate, blocks = open_cut(path, start, end)
    chosen = joined(blocks, parts) if parts else blocks
    mixed = (_mix(block, channels) for block in chosen)
    file = io.BytesIO()
    container, subtype = CODECS[codec]
    with soundfile.SoundFile(file, "w", rate, channels, subtype, format=container) as sink:
        frames = 0
        for block in _resample(_finite(mixed), source_rate, rate, channels):
            sink.write(np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16))
            frames += len(block)
    _long_enough(frames / rate, shortest)
    coded = Coded(file.getvalue(), container.lower(), frames / rate)
    return coded if parts is None else _told(coded, parts, length, source_rate, start or 0.0)


def _parts(path: Path, start: float | None, end: float | None, trim: Trim) -> tuple[list[Part], int]:
    """The parts of a cut that stay, in frames of the cut, and how many frames it has."""
    rate, blocks = open_cut(path, start, end)
    length = 0

    def counted() -> Iterator[Block]:
        nonlocal length
        for block in _finite(blocks):
            length += len(block)
            yield block

    if trim.kind == "silence":
        parts = silence(counted(), rate, trim.limit)
    else:
        mono = (_mix(block, 1) for block in counted())
        parts = speech(_resample(mono, rate, VAD_RATE, 1), rate, trim.limit)
    return [(first, min(last, length)) for first, last in parts if first < length], length


def _told(coded: Coded, parts: list[Part], length: int, rate: int, start: float) -> Coded:
    """With what was cut away."""
    kept = tuple((round(start + first / rate, 6), round(start + last / rate, 6)) for first, last in parts)
    left = sum(last - first for first, last in parts) or length
    return replace(coded, kept=kept, trimmed=round((length - left) / rate, 6))


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
    return block[:, [channel % block.shape[1] for channel in range(channels)]]


def _resample(blocks: Iterator[Block], source: int, target: int, channels: int) -> Iterator[Block]:
    if source == target:
        yield from blocks
        return
    stream = soxr.ResampleStream(source, target, channels, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
