"""A sound of any kind -> blocks of int16 at one rate, by the arithmetic of packing, so that scores are the same.

Comes in: a path, the bytes of a file, an address (s3://, gs://, az://, http(s)://), an array, raw PCM. Goes out: blocks
(frames, channels); a long file costs no more memory than a block.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train.assembly.coding import converted
from dist_train.clouds import remote, spoken
from dist_train.inference.arrays import frames
from dist_train.settings import Audio
from dist_train.sources.recordings import BLOCK, PYAV, SUFFIXES, Block, Unreadable, header, open_cut
from dist_train.storage import local
from dist_train.stores.bucket import Bucket


@dataclass(frozen=True, eq=False)
class Pcm:
    """Raw little-endian PCM, channels interleaved, such as `ffmpeg -f s16le` or `arecord -t raw` write.

    file: bytes, or what is read to its end in blocks; kind: s16, s32 or f32; rate: Hz.
    """

    file: bytes | BinaryIO
    rate: int
    channels: int = 1
    kind: str = "s16"


Plain: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | torch.Tensor | Pcm


@dataclass(frozen=True, eq=False)
class Named:
    """A sound under the name that predictions and errors shall call it by."""

    name: str
    sound: Plain


Sound: TypeAlias = Plain | Named
KINDS = {"s16": ("<i2", 2.0**-15), "s32": ("<i4", 2.0**-31), "f32": ("<f4", 1.0)}
PATIENCE = 30.0  # seconds that a store may be down
FILES = (str, os.PathLike)
RAW = (bytes, bytearray, memoryview)


class Reading:
    """A sound on its way: iterate once over its int16 blocks (frames, channels) at audio.sample_rate.

    Unreadable, the reason only, where it is broken, empty or not finite. `seconds`: how much of the sound itself was
    read so far, before its rate was converted.
    """

    def __init__(self, sound: Sound, rate: int | None, audio: Audio) -> None:
        """`rate` (Hz): of an array; files know theirs."""
        self.sound: Plain = sound.sound if isinstance(sound, Named) else sound
        self.rate, self.audio, self.seconds = rate, audio, 0.0

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        if isinstance(self.sound, RAW) or (isinstance(self.sound, FILES) and remote(self.sound)):
            with tempfile.TemporaryDirectory(prefix="dist-train-") as folder:
                yield from self._file(_written(self.sound, Path(folder)))
        elif isinstance(self.sound, FILES):
            yield from self._file(local(os.fspath(self.sound)))
        elif isinstance(self.sound, Pcm):
            yield from self._blocks(self.sound.rate, _pcm(self.sound))
        else:
            yield from self._blocks(_rate(self.rate), _cut(frames(self.sound)))

    def _file(self, path: Path) -> Iterator[NDArray[np.int16]]:
        if path.is_dir():
            raise Unreadable("is a folder; name its files, or the folder to tools/predict.py")
        try:
            header(path)  # finds what a decoder passes over in silence, such as a WAV that was cut
            rate, blocks = open_cut(path, None, None)
        except ValueError as error:  # PyAV is missing
            raise Unreadable(str(error).removeprefix(f"{path}: ")) from None
        yield from self._blocks(rate, blocks)

    def _blocks(self, rate: int, blocks: Iterator[Block]) -> Iterator[NDArray[np.int16]]:
        channels, made = self.audio.channels, 0
        if channels == "first":
            blocks = (block[:, :1] for block in blocks)
        count = channels if isinstance(channels, int) else 1
        for block in converted(self._counted(blocks, rate), rate, self.audio.sample_rate, count):
            made += len(block)
            yield block
        if not made:
            raise Unreadable("holds no samples" if not self.seconds else f"{self.seconds:.6f} s are too short")

    def _counted(self, blocks: Iterator[Block], rate: int) -> Iterator[Block]:
        count = 0
        for block in blocks:
            count += len(block)
            self.seconds = count / rate
            yield block


def named(sound: Sound, number: int | None = None) -> str:
    """How messages name a sound; `number`: its place in a list."""
    if isinstance(sound, Named):
        return sound.name
    if isinstance(sound, FILES):
        return spoken(os.fspath(sound))
    kind = "bytes" if isinstance(sound, RAW) else "pcm" if isinstance(sound, Pcm) else "array"
    return kind if number is None else f"{kind} {number}"


def weight(sound: Sound) -> int:
    """Bytes that a sound may take in memory once it is decoded, roughly: compressed files grow about twelvefold."""
    if isinstance(sound, Named):
        return weight(sound.sound)
    if isinstance(sound, FILES):
        path = Path(sound)
        size = 0 if remote(sound) or not path.is_file() else path.stat().st_size
        return size if path.suffix.lower() in (".wav", ".wave") else 12 * size
    if isinstance(sound, RAW):
        return 12 * len(sound)
    if isinstance(sound, Pcm):
        return len(sound.file) if isinstance(sound.file, bytes) else 0
    return int(getattr(sound, "nbytes", 0))  # of what is no sound, which is told when it is read


def _rate(rate: int | None) -> int:
    if rate is None:
        raise Unreadable("an array does not say its rate; give sample_rate, Hz")
    if rate != int(rate) or not 100 <= rate <= 1_000_000:
        raise Unreadable(f"sample_rate={rate} is no rate in Hz; give a whole number such as 16000")
    return int(rate)


def _cut(sound_TC: Block) -> Iterator[Block]:
    yield from (sound_TC[start : start + BLOCK] for start in range(0, len(sound_TC), BLOCK))


def _pcm(sound: Pcm) -> Iterator[Block]:
    """Blocks as they come; a frame that is cut at the end is left out."""
    if sound.kind not in KINDS:
        raise Unreadable(f"raw PCM of kind {sound.kind!r} is not known; give one of {', '.join(KINDS)}")
    _rate(sound.rate)
    (kind, scale), file = KINDS[sound.kind], BytesIO(sound.file) if isinstance(sound.file, bytes) else sound.file
    width = np.dtype(kind).itemsize * sound.channels
    read, rest = getattr(file, "read1", file.read), b""  # read1: what a pipe has, without waiting for a full block
    while data := read(BLOCK * width):
        data = rest + data
        whole = len(data) // width * width
        rest = data[whole:]
        if whole:
            yield (np.frombuffer(data[:whole], kind).astype(np.float32) * np.float32(scale)).reshape(-1, sound.channels)


def _written(sound: Any, folder: Path) -> Path:
    """A file of the bytes or object, under a name by which it can be decoded."""
    if isinstance(sound, RAW):
        path = folder / "sound"
        path.write_bytes(sound)
    else:
        place, _, name = os.fspath(sound).rstrip("/").rpartition("/")
        path = folder / f"sound{Path(name).suffix}"
        try:
            Bucket(place, PATIENCE).download(name, path)
        except (OSError, ValueError) as error:
            raise Unreadable(str(error).removeprefix(f"{named(sound)}: ")) from None
    if path.suffix.lower() in SUFFIXES or not path.stat().st_size:
        return path
    try:
        header(path)
    except Unreadable as error:
        other = path.rename(folder / "sound.mp4")  # FFmpeg looks at the content, and only asks libsndfile's files not
        assert other.suffix in PYAV
        try:
            header(other)
        except (Unreadable, ValueError):
            raise error from None
        return other
    return path
