"""A compressed audio file in memory (FLAC, OGG, MP3, ... by soundfile; M4A, AAC, WMA, ... by PyAV) -> int16 frames.

No GPU decodes these, so the reader's threads do. Samples are rounded to int16 as `x * 32768`: what the decoder gives as
float would take twice the room, and 16-bit FLAC comes out bit for bit.
"""

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from dist_train.archive.row import CODECS

LEAD = {"OGG": 30}
"""Seconds decoded before the wanted ones, by format. libsndfile 1.2.2 lands at a wrong place when it seeks into the
last page of some Vorbis files; in all others it is exact, and a page holds less than this."""

Frames = NDArray[np.int16]


def decode(
    payload: bytes | bytearray | memoryview, codec: int, start: int, stop: int, channels: int, rate: int
) -> Frames:
    """Frames [start, stop) of the file, (stop - start, channels) int16, channels interleaved.

    ValueError (the reason only) where the file cannot be decoded, is shorter, is not of `channels` and `rate` (Hz),
    or holds samples that are not finite.
    """
    part = _by_av if codec == CODECS.AV else _by_soundfile
    frames, found_channels, found_rate = part(payload, start, stop)
    if (found_channels, found_rate) != (channels, rate):
        found = f"{found_channels} channels at {found_rate} Hz"
        raise ValueError(f"it holds {found}, the index says {channels} at {rate} Hz")
    if len(frames) != stop - start:
        raise ValueError(f"it ends at frame {start + len(frames)}, the index says that {stop} is there")
    return frames


def _by_soundfile(payload: bytes | bytearray | memoryview, start: int, stop: int) -> tuple[Frames, int, int]:
    try:
        with soundfile.SoundFile(io.BytesIO(payload)) as file:
            lead = min(start, LEAD.get(file.format, 0) * file.samplerate)
            file.seek(min(start - lead, file.frames))
            # As float: libsndfile wraps loud OGG around in int16, and gives float files unscaled.
            sound = file.read(stop - start + lead, dtype="float32", always_2d=True)[lead:]
            channels, rate = file.channels, file.samplerate
    except (soundfile.LibsndfileError, RuntimeError) as error:
        # The message would name the BytesIO by its address.
        raise ValueError(f"soundfile cannot decode it: {getattr(error, 'error_string', error)}") from None
    if not np.isfinite(sound).all():
        raise ValueError("it holds samples that are not finite")
    np.multiply(sound, 32768, out=sound)
    return np.clip(np.rint(sound, out=sound), -32768, 32767, out=sound).astype("<i2"), channels, rate


def _by_av(payload: bytes | bytearray | memoryview, start: int, stop: int) -> tuple[Frames, int, int]:
    """From the file's start: these formats hold no exact places to start from."""
    try:
        import av
    except ImportError:
        raise ValueError("PyAV decodes this format and is not installed: pip install av") from None
    try:
        with av.open(io.BytesIO(payload), "r") as container:
            if not container.streams.audio:
                raise ValueError("no audio stream in it")
            stream = container.streams.audio[0]
            blocks = _blocks(container.decode(stream), av.AudioResampler(format="s16"), stop)
            channels, rate = int(stream.channels), int(stream.rate)
    except av.FFmpegError as error:
        raise ValueError(f"PyAV cannot decode it: {error.strerror}") from None
    return np.concatenate([np.empty(0, "<i2"), *blocks]).reshape(-1, channels)[start:stop], channels, rate


def _blocks(frames: Any, resampler: Any, stop: int) -> list[Frames]:
    """Interleaved samples of decoded frames until frame `stop` is there."""
    blocks, count = [], 0
    for frame in frames:
        for plain in resampler.resample(frame):
            blocks.append(plain.to_ndarray().reshape(-1))
            count += plain.samples
        if count >= stop:
            break
    return blocks
