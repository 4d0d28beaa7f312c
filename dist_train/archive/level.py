"""A sample's audio bytes -> what the index says of them: frames, level, where the sound is, digest.

Read in blocks, so a ten-hour file takes no more memory than a short one. PCM is summed as whole numbers in float64:
the sums are exact for 16 bits, so every machine writes the same index.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from dist_train.archive import npy, wav
from dist_train.archive.row import BYTES, CODECS, SEGMENTS
from dist_train.archive.tar import Section

BLOCK = 1 << 20
FRAME_RATE = 100  # of features whose rate nobody says: frames 10 ms apart, as Kaldi has them
AV_SUFFIXES = frozenset(["m4a", "m4b", "mp4", "aac", "wma", "webm", "mka", "3gp", "amr", "ac3"])
FULL_SCALE = {
    CODECS.U8: 1 << 7,
    CODECS.S16: 1 << 15,
    CODECS.S24: 1 << 23,
    CODECS.S32: 1 << 31,
    CODECS.F32: 1,
    CODECS.F64: 1,
    CODECS.F16: 1,
    CODECS.MULAW: 1 << 15,
    CODECS.ALAW: 1 << 15,
}
TABLES = {CODECS.MULAW: wav.mulaw_table(), CODECS.ALAW: wav.alaw_table()}
DTYPES = {
    CODECS.U8: "u1",
    CODECS.S16: "<i2",
    CODECS.S32: "<i4",
    CODECS.F32: "<f4",
    CODECS.F64: "<f8",
    CODECS.F16: "<f2",
}

Blocks = Callable[[], Iterator[NDArray[np.float64]]]


@dataclass(frozen=True)
class Audio:
    """offset and size count from the member's start; activity is (16,) uint8, rms has full scale 1."""

    codec: CODECS
    offset: int
    size: int
    frames: int
    rate: int
    channels: int
    rms: float
    activity: NDArray[np.uint8]
    digest: int


def read(file: BinaryIO, start: int, size: int, suffix: str, frame_rate: int = FRAME_RATE) -> Audio:
    """Measure the audio file that fills `size` bytes of `file` from `start`; ValueError: why it cannot be.

    suffix npy: features, of `frame_rate` frames a second.
    """
    if suffix == "npy":
        return _read_pcm(file, start, npy.parse(file, size, frame_rate, start))
    file.seek(start)
    if wav.is_wav(file.read(wav.HEADER)):
        header = wav.parse(file, size, start)
        if header.codec != CODECS.FILE:
            return _read_pcm(file, start, header)
    blocks, frames, rate, channels = _open_av(file, start, size) if suffix in AV_SUFFIXES else _open(file, start, size)
    frames, rms, activity = measure(blocks, frames)
    if not frames:
        raise ValueError("the audio holds no samples")
    codec = CODECS.AV if suffix in AV_SUFFIXES else CODECS.FILE
    return Audio(codec, 0, size, frames, rate, channels, rms, activity, _digest(file, start, size))


def measure(blocks: Blocks, frames: int) -> tuple[int, float, NDArray[np.uint8]]:
    """(frames, rms, activity) of mono blocks; `frames` is what the file says, counted again where it is wrong."""
    bounds = np.arange(SEGMENTS + 1, dtype=np.int64) * frames // SEGMENTS
    energy, position = np.zeros(SEGMENTS), 0
    for block in blocks():
        cuts = np.clip(bounds - position, 0, len(block))
        filled = np.flatnonzero(np.diff(cuts))
        if len(filled):
            energy[filled] += np.add.reduceat(_square(block[: cuts[-1]]), cuts[filled])
        position += len(block)
    if position != frames:
        return measure(blocks, position)
    if not frames:
        return 0, 0.0, np.zeros(SEGMENTS, np.uint8)
    level = np.sqrt(energy / np.maximum(np.diff(bounds), 1))
    activity = np.rint(255 * level / (level.max() or 1)).astype(np.uint8)
    return frames, float(np.sqrt(energy.sum() / frames)), activity


def _square(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """A sample that is not finite counts as silence: the reader refuses the clip, its level must not spoil the row."""
    square = block * block
    if not np.isfinite(square.sum()):
        square[~np.isfinite(square)] = 0
    return square


def _read_pcm(file: BinaryIO, start: int, header: wav.Wav) -> Audio:
    digest = hashlib.sha256()
    step = BLOCK * BYTES[header.codec] * header.channels

    def blocks() -> Iterator[NDArray[np.float64]]:
        for done in range(0, header.size, step):
            file.seek(start + header.offset + done)
            raw = file.read(min(step, header.size - done))
            digest.update(raw)
            samples = pcm(raw, header.codec)
            yield samples.reshape(-1, header.channels).mean(1) if header.channels > 1 else samples

    frames, rms, activity = measure(blocks, header.frames)
    return Audio(
        codec=header.codec,
        offset=header.offset,
        size=header.size,
        frames=frames,
        rate=header.rate,
        channels=header.channels,
        rms=rms / FULL_SCALE[header.codec],
        activity=activity,
        digest=int.from_bytes(digest.digest()[:8], "little"),
    )


def pcm(raw: bytes, codec: CODECS) -> NDArray[np.float64]:
    """(n,) the bytes' samples, not scaled: whole numbers of the codec's width; full scale is FULL_SCALE[codec]."""
    if codec in TABLES:
        return TABLES[codec][np.frombuffer(raw, np.uint8)].astype(np.float64)
    if codec == CODECS.S24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float64) / 256
    samples = np.frombuffer(raw, DTYPES[codec]).astype(np.float64)
    return samples - 128 if codec == CODECS.U8 else samples


def _open(file: BinaryIO, start: int, size: int) -> tuple[Blocks, int, int, int]:
    """(mono blocks, frames, rate, channels) as soundfile decodes them."""

    def blocks() -> Iterator[NDArray[np.float64]]:
        try:
            with soundfile.SoundFile(Section(file, start, size)) as sound:
                for block in sound.blocks(BLOCK, dtype="float64", always_2d=True):
                    yield block.mean(1)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"soundfile cannot decode it: {error.error_string}") from None

    try:
        with soundfile.SoundFile(Section(file, start, size)) as sound:
            return blocks, sound.frames, sound.samplerate, sound.channels
    except soundfile.LibsndfileError as error:
        raise ValueError(f"soundfile cannot decode it: {error.error_string}") from None


def _open_av(file: BinaryIO, start: int, size: int) -> tuple[Blocks, int, int, int]:
    """(mono blocks, frames not known: 0, rate, channels) as PyAV decodes them."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError:
        raise ValueError("PyAV decodes this format and is not installed (pip install av)") from None

    def opened() -> Any:
        container = av.open(cast(BinaryIO, Section(file, start, size)))
        if not container.streams.audio:
            raise ValueError("no audio stream in it")
        return container

    def blocks() -> Iterator[NDArray[np.float64]]:
        resampler = av.AudioResampler(format="dblp")
        try:
            with opened() as container:
                for frame in container.decode(audio=0):
                    for plain in resampler.resample(frame):
                        yield plain.to_ndarray().mean(0)
        except av.FFmpegError as error:
            raise ValueError(f"PyAV cannot decode it: {error.strerror}") from None

    try:
        with opened() as container:
            stream = container.streams.audio[0]
            return blocks, 0, stream.rate, stream.channels
    except av.FFmpegError as error:
        raise ValueError(f"PyAV cannot decode it: {error.strerror}") from None


def _digest(file: BinaryIO, start: int, size: int) -> int:
    return int.from_bytes(checksum(file, start, size)[:8], "little")


def checksum(file: BinaryIO, start: int, size: int) -> bytes:
    """sha256 of bytes [start, start + size)."""
    digest = hashlib.sha256()
    file.seek(start)
    while size > 0 and (chunk := file.read(min(size, 1 << 22))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()
