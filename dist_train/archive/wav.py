"""A WAV file's header -> where its samples lie and how they are coded; G.711 tables.

RIFF and RF64/BW64 (EBU Tech 3306), PCM of 8, 16, 24, 32 bits, float of 32 and 64 bits, mu-law, A-law, and the same
under WAVE_FORMAT_EXTENSIBLE. Every other encoding is CODECS.FILE: soundfile decodes the whole file.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dist_train.archive.row import BYTES, CODECS

HEADER = 12
EXTENSIBLE = 0xFFFE
EXTENSIBLE_GUID = bytes.fromhex("000000001000800000aa00389b71")  # what follows the format tag in a subformat GUID
UNKNOWN_SIZE = 0x7FFFF000  # from here on a writer to a pipe (sox, ffmpeg) did not know how much would come
CODEC = {
    (1, 1): CODECS.U8,
    (1, 2): CODECS.S16,
    (1, 3): CODECS.S24,
    (1, 4): CODECS.S32,
    (3, 4): CODECS.F32,
    (3, 8): CODECS.F64,
    (6, 1): CODECS.ALAW,
    (7, 1): CODECS.MULAW,
}
"""(format tag, bytes of a sample) -> codec. Fewer bits than the bytes hold are at the top, so the bytes decide."""


@dataclass(frozen=True)
class Wav:
    """offset, size: the samples' bytes, from the file's start, whole frames only; frames is per channel (FILE: 0)."""

    codec: CODECS
    channels: int
    rate: int
    frames: int
    offset: int
    size: int


def is_wav(head: bytes) -> bool:
    """Whether a file that starts so (12 bytes) is a little-endian WAV."""
    return head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def parse(file: BinaryIO, size: int, start: int = 0) -> Wav:
    """Read the header of the WAV that fills `size` bytes of `file` from `start`.

    ValueError (the reason only, the caller knows the name): no WAV, a header damaged or without its parts, samples
    past the end, or no samples at all.
    """
    file.seek(start)
    if not is_wav(file.read(HEADER)):
        raise ValueError("not a WAV file")
    form: bytes | None = None
    wide_size: int | None = None
    position = HEADER
    while position + 8 <= size:
        file.seek(start + position)
        name, length = struct.unpack("<4sI", file.read(8))
        position += 8
        if name == b"data":
            return _wav(form, position, _data_size(length, wide_size, size - position))
        if position + length > size:
            raise ValueError(f"the WAV header is damaged: chunk {name!r} ends past the file")
        if name == b"fmt ":
            form = file.read(length)
        elif name == b"ds64" and length >= 24:
            wide_size = struct.unpack("<8xQ8x", file.read(24))[0]
        position += length + length % 2
    raise ValueError("the WAV header is damaged: no data chunk")


def _data_size(length: int, wide_size: int | None, left: int) -> int:
    if length == 0xFFFFFFFF and wide_size is not None:
        length = wide_size
    elif length >= UNKNOWN_SIZE and length > left:
        length = left
    if length > left:
        raise ValueError(f"the WAV is cut: its header says {length} bytes of samples, {left} are there")
    return length


def _wav(form: bytes | None, offset: int, size: int) -> Wav:
    if form is None or len(form) < 16:
        raise ValueError("the WAV header is damaged: no format before the samples")
    tag, channels, rate, _, align, _ = struct.unpack("<HHIIHH", form[:16])
    if tag == EXTENSIBLE and len(form) >= 40:
        tag = struct.unpack("<H", form[24:26])[0] if form[26:40] == EXTENSIBLE_GUID else 0
    if not channels or not rate:
        raise ValueError(f"the WAV header is damaged: {channels} channels at {rate} Hz")
    codec = CODEC.get((tag, align // channels), CODECS.FILE) if align % channels == 0 else CODECS.FILE
    if codec == CODECS.FILE:
        return Wav(codec, channels, rate, 0, offset, size)
    frames = size // (BYTES[codec] * channels)
    if frames == 0:
        raise ValueError("the WAV holds no samples")
    return Wav(codec, channels, rate, frames, offset, frames * BYTES[codec] * channels)


def mulaw_table() -> NDArray[np.int16]:
    """(256,) the 16-bit value of each mu-law code (ITU-T G.711, as libsndfile and sox decode it)."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def alaw_table() -> NDArray[np.int16]:
    """(256,) the 16-bit value of each A-law code (ITU-T G.711, as libsndfile and sox decode it)."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = code >> 4 & 7, (code & 0x0F) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, mantissa + 0x108 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)
