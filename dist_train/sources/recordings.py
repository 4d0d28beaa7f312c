"""A recording on disk -> its header, and its samples in blocks of float32.

Comes in: a path that libsndfile reads (WAV, FLAC, OGG, Opus, MP3, AIFF, ...) or, through PyAV, that FFmpeg reads
(m4a, mp4, aac, wma, webm, ...). Goes out: blocks, so a long file costs no more memory than a short one.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from dist_train.archive.wav import HEADER as WAV_HEAD
from dist_train.archive.wav import is_wav, parse

Block = NDArray[np.float32]

COMMON = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3")
SOUNDFILE = frozenset(
    (*COMMON, ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist", ".voc")
)
PYAV = frozenset((".m4a", ".mp4", ".m4b", ".aac", ".wma", ".webm", ".mka", ".mkv", ".mov", ".3gp", ".amr", ".ac3"))
SUFFIXES = SOUNDFILE | PYAV
BLOCK = 1 << 18  # frames: 1 MiB of one channel in float32
SLACK = 0.1  # seconds that a cut may end past its recording: annotations are rounded


class Unreadable(Exception):
    """A recording that cannot be used; the message is the reason alone."""


@dataclass(frozen=True)
class Header:
    """seconds: as the header states them; exact is False where it may only guess, as MP3's does without a Xing frame.
    changed: the time of the file's last change in nanoseconds."""

    seconds: float
    exact: bool
    bytes: int
    changed: int


def header(path: Path) -> Header:
    """Read a header only. Unreadable says why; a missing PyAV is a ValueError, for it mends all such files."""
    size, changed = _state(path)
    if path.suffix.lower() in PYAV:
        with _open_av(path) as container:
            stream = container.streams.audio[0]
            length = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6
            return Header(float(length), False, size, changed)
    with path.open("rb") as file:
        try:
            if is_wav(file.read(WAV_HEAD)):
                parse(file, size)  # libsndfile takes a cut WAV for a whole one
        except ValueError as error:
            raise Unreadable(str(error)) from None
    info = _info(path)
    if info.frames == 0:
        raise Unreadable("holds no samples")
    return Header(info.frames / info.samplerate, info.format != "MP3", size, changed)


def open_cut(path: Path, start: float | None, end: float | None) -> tuple[int, Iterator[Block]]:
    """Sample rate, and float32 blocks (frames, channels) of the cut from `start` to `end` seconds."""
    _state(path)
    rate, length = _form(path)
    first, last = round((start or 0.0) * rate), None if end is None else round(end * rate)
    read = _av_blocks if path.suffix.lower() in PYAV else _soundfile_blocks
    stop = last if last is not None else length
    wanted = None if stop is None else stop - first
    return rate, _counted(read(path, first, last), wanted, rate, "its header says" if end is None else "the cut does")


def _form(path: Path) -> tuple[int, int | None]:
    """(sample rate, frames); None frames where a header only guesses: MP3, and all that FFmpeg reads."""
    if path.suffix.lower() in PYAV:
        with _open_av(path) as container:
            return int(container.streams.audio[0].codec_context.sample_rate), None
    info = _info(path)
    return int(info.samplerate), None if info.format == "MP3" else int(info.frames)


def _info(path: Path) -> Any:
    try:
        return soundfile.info(str(path))
    except (OSError, RuntimeError) as error:
        raise Unreadable(_reason(error)) from None


def _counted(blocks: Iterator[Block], wanted: int | None, rate: int, until: str) -> Iterator[Block]:
    """The blocks; Unreadable if they are fewer frames than wanted, or none at all."""
    count = 0
    for block in blocks:
        count += len(block)
        yield block
    if wanted is not None and count < wanted - SLACK * rate:
        raise Unreadable(f"ends {(wanted - count) / rate:.3f} s before {until}")
    if count == 0:
        raise Unreadable("holds no samples there")


def _soundfile_blocks(path: Path, first: int, last: int | None) -> Iterator[Block]:
    try:
        with soundfile.SoundFile(str(path)) as file:
            if first:
                file.seek(min(first, file.frames))
            left = last - first if last is not None else None
            while left is None or left > 0:
                block = file.read(BLOCK if left is None else min(BLOCK, left), dtype="float32", always_2d=True)
                if not len(block):
                    return
                left = None if left is None else left - len(block)
                yield block
    except (OSError, RuntimeError) as error:
        raise Unreadable(_reason(error)) from None


def _av_blocks(path: Path, first: int, last: int | None) -> Iterator[Block]:
    """Decoded from the start on: FFmpeg's seeking is not exact to the sample."""
    return _between(_decode_av(path), first, last)


def _between(blocks: Iterator[Block], first: int, last: int | None) -> Iterator[Block]:
    position = 0
    for block in blocks:
        piece = block[max(0, first - position) : None if last is None else max(0, last - position)]
        position += len(block)
        if len(piece):
            yield piece
        if last is not None and position >= last:
            return


def _open_av(path: Path) -> Any:
    try:
        import av
    except ImportError:
        raise ValueError(f"{path}: reading {path.suffix} files needs PyAV: pip install av") from None
    try:
        container = av.open(str(path))
    except (OSError, av.error.FFmpegError) as error:
        raise Unreadable(_reason(error)) from None
    if not container.streams.audio:
        container.close()
        raise Unreadable("holds no audio")
    return container


def _decode_av(path: Path) -> Iterator[Block]:
    import av

    with _open_av(path) as container:
        stream = container.streams.audio[0]
        turn = av.AudioResampler(format="fltp", rate=stream.codec_context.sample_rate)
        try:
            for frame in itertools.chain(container.decode(stream), [None]):
                for part in turn.resample(frame):
                    yield np.asarray(part.to_ndarray(), np.float32).T
        except av.error.FFmpegError as error:
            raise Unreadable(_reason(error)) from None


def _state(path: Path) -> tuple[int, int]:
    """(bytes, time of change) of a file that is not empty."""
    try:
        state = path.stat()
    except OSError as error:
        raise Unreadable(_reason(error)) from None
    if state.st_size == 0:
        raise Unreadable("is an empty file")
    return state.st_size, state.st_mtime_ns


def _reason(error: Exception) -> str:
    """The part of a library's message after the path, on one line."""
    if "does not exist" in str(error):  # what libsndfile says of an MP3 without a frame in it
        return "cannot be read: is no audio file, or damaged"
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return f"cannot be read: {' '.join(text.split())}"
