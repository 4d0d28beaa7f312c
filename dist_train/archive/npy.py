"""A .npy file's header -> where its features lie and how they are coded. Read by hand: nothing is ever unpickled.

A stored (frames, bins) array of little-endian floats is PCM of as many channels as there are bins, at the rate of its
frames: what reads windows of PCM reads windows of it.
"""

import ast
import struct
from typing import BinaryIO

from dist_train.archive.row import BYTES, CODECS
from dist_train.archive.wav import Wav

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 16
CODEC = {"<f2": CODECS.F16, "<f4": CODECS.F32, "<f8": CODECS.F64}
MAX_BINS = (1 << 16) - 1  # an index row holds them in 16 bits


def parse(file: BinaryIO, size: int, rate: int, start: int = 0) -> Wav:
    """Read the header of the .npy that fills `size` bytes of `file` from `start`; `rate`: its frames a second.

    ValueError (the reason only, the caller knows the name): no .npy, one of another kind, or cut.
    """
    file.seek(start)
    head = file.read(12)
    if head[:6] != MAGIC or len(head) < 12 or head[6] not in (1, 2, 3):
        raise ValueError("not a .npy file")
    skip, length = (10, struct.unpack("<H", head[8:10])[0]) if head[6] == 1 else (12, struct.unpack("<I", head[8:])[0])
    if length > MAX_HEADER:
        raise ValueError("the .npy header is damaged: it is too long")
    file.seek(start + skip)
    kind, shape = _fields(file.read(length))
    if kind not in CODEC:
        raise ValueError(f"a .npy of type {kind}: features are little-endian floats (<f2, <f4, <f8)")
    if len(shape) != 2 or not 1 <= shape[1] <= MAX_BINS or shape[0] < 1:
        raise ValueError(f"a .npy of shape {shape}: features have the shape (frames, bins), up to {MAX_BINS} bins")
    frames, bins = shape
    offset, codec = skip + length, CODEC[kind]
    if size - offset != frames * bins * BYTES[codec]:
        raise ValueError(f"the .npy is cut: {frames} x {bins} values are not {size - offset} bytes")
    return Wav(codec, bins, rate, frames, offset, size - offset)


def _fields(text: bytes) -> tuple[str, tuple[int, ...]]:
    """Type and shape of a header, which is a Python literal."""
    try:
        fields = ast.literal_eval(text.decode("latin-1").strip())
        kind, shape, columns = fields["descr"], fields["shape"], fields["fortran_order"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise ValueError("the .npy header is damaged") from None
    if columns or not isinstance(kind, str) or not isinstance(shape, tuple):
        raise ValueError("a .npy in Fortran's order or of records: features are C-ordered floats")
    if not all(isinstance(part, int) for part in shape):
        raise ValueError("the .npy header is damaged")
    return kind, shape
