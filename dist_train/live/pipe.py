"""A pipe's bytes -> blocks of samples: raw PCM whose form is told, or a WAV of any length, also one without an end.

Writers to a pipe (arecord, ffmpeg, sox, gst-launch) cannot know how long it will be: a size of 0, or one near the
largest, means "until the end".
"""

import io
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import level, wav
from dist_train.archive.row import BYTES, CODECS
from dist_train.live.flow import Flow

CHUNK = 1 << 15  # bytes asked for at once; a pipe hands over what it has
AHEAD = 30.0  # seconds that may wait to be understood: then the writer of the pipe waits
HEAD = 1 << 20  # bytes before the samples of a WAV: more is no header
FORMATS = {
    "u8": CODECS.U8,
    "s16le": CODECS.S16,
    "s24le": CODECS.S24,
    "s32le": CODECS.S32,
    "f32le": CODECS.F32,
    "f64le": CODECS.F64,
    "mulaw": CODECS.MULAW,
    "alaw": CODECS.ALAW,
    "s16be": CODECS.S16,
    "s24be": CODECS.S24,
    "s32be": CODECS.S32,
    "f32be": CODECS.F32,
    "f64be": CODECS.F64,
}
"""Names of raw formats, as ffmpeg has them. `wav` is no raw format: its header tells all."""

Read = Callable[[int], bytes]  # at most so many bytes, at least one; none at the end


@dataclass(frozen=True)
class Form:
    """How samples lie in the pipe. left: bytes that follow, None: until the end; swap: most significant byte first."""

    codec: CODECS
    rate: int
    channels: int
    swap: bool = False
    left: int | None = None

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        return BYTES[self.codec] * self.channels


def form(read: Read, name: str | None, rate: int | None, channels: int | None) -> Form:
    """What comes through the pipe; reads a WAV's header. ValueError: nothing that can be understood."""
    if name in FORMATS:
        if rate is None:
            raise ValueError(f"--format {name}: raw samples tell no rate; give --rate, e.g. --rate 16000")
        return Form(FORMATS[name], rate, channels or 1, swap=name.endswith("be"))
    if rate is not None or channels is not None:
        raise ValueError("stdin: --rate and --channels are for raw samples; give --format too, e.g. --format s16le")
    return _header(read)


def _header(read: Read) -> Form:
    head = _exactly(read, wav.HEADER)
    if not wav.is_wav(head):
        said = "is empty" if not head else "is no WAV"
        raise ValueError(f"stdin: {said}; name raw samples with --format and --rate, or pipe `ffmpeg -i IN -f wav -`")
    wide: int | None = None
    while len(head) < HEAD:
        chunk = _exactly(read, 8)
        if len(chunk) < 8:
            break
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            return _form(head + chunk, length, wide)
        body = _exactly(read, min(length + length % 2, HEAD))
        wide = struct.unpack("<8xQ", body[:16])[0] if name == b"ds64" and len(body) >= 16 else wide
        head += chunk + body
    raise ValueError("stdin: the WAV header is damaged: no samples follow it; write the WAV anew")


def _form(head: bytes, length: int, wide: int | None) -> Form:
    """Of a header that ends in the data chunk's size."""
    some = 1 << 20  # a size that the header's reader finds plausible: only the form is asked
    try:
        found = wav.parse(io.BytesIO(head[:-4] + struct.pack("<I", some)), len(head) + some)
    except ValueError as error:
        raise ValueError(f"stdin: {error}; write the WAV anew") from None
    if found.codec == CODECS.FILE:
        raise ValueError("stdin: holds no PCM samples; pipe it through `ffmpeg -i - -f wav -`")
    left: int | None = wide if length == 0xFFFFFFFF and wide else length
    if left == 0 or (left == length and length >= wav.UNKNOWN_SIZE):
        left = None
    return Form(found.codec, found.rate, found.channels, left=left)


def _exactly(read: Read, count: int) -> bytes:
    """So many bytes, fewer at the end."""
    found = b""
    while len(found) < count and (some := read(count - len(found))):
        found += some
    return found


def samples(raw: bytes, form: Form) -> NDArray[np.float32]:
    """(frames, channels) of whole frames; full scale is 1."""
    if form.swap:
        raw = np.frombuffer(raw, np.uint8).reshape(-1, BYTES[form.codec])[:, ::-1].tobytes()
    scaled = level.pcm(raw, form.codec) / level.FULL_SCALE[form.codec]
    return scaled.astype(np.float32).reshape(-1, form.channels)


class Pipe:
    """A source of sound: reads in a thread of its own, since a read cannot be given a time to end."""

    live = False

    def __init__(self, number: int, name: str | None, rate: int | None, channels: int | None) -> None:
        """`number`: of the open file, e.g. 0 for stdin. ValueError as `form`."""
        self._number = number
        self.form = form(self._read, name, rate, channels)
        self.rate, self.channels = self.form.rate, self.form.channels
        self.name, self.dropped = "stdin", 0
        self.flow = Flow(round(AHEAD * self.rate))

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._pump, name="pipe", daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more; the thread ends with its next bytes."""
        self.flow.close()

    def silent(self) -> bool:
        """Whether nothing will ever come: never known of a pipe."""
        return False

    def _read(self, count: int) -> bytes:
        return os.read(self._number, count)

    def _pump(self) -> None:
        try:
            rest, left = b"", self.form.left
            while left is None or left > 0:
                raw = self._read(CHUNK if left is None else min(CHUNK, left))
                if not raw:
                    break
                left = None if left is None else left - len(raw)
                raw = rest + raw
                whole = len(raw) // self.form.size * self.form.size
                rest = raw[whole:]
                if whole and not self.flow.give(samples(raw[:whole], self.form)):
                    return
            self.dropped = len(rest)
            self.flow.end()
        except Exception as error:  # whatever it is, who listens must hear of it
            self.flow.end(error)
