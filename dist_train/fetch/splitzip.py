"""A zip in parts (NAME.z01, NAME.z02, ..., NAME.zip) -> one file to read, as a zip that was never split.

Offsets in a split zip count from the start of the part that they name (APPNOTE.TXT 6.3.10, 8.5), and zipfile refuses or
misreads that. So the central directory is written anew, with offsets from the first byte of all, and laid behind the
parts; nothing is copied to the disk. Fields over 4 GB are told in the extra field of zip64.
"""

import bisect
import io
import struct
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

END, END64, LOCATOR, ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
FIXED = struct.Struct("<4s6H3L5H2L")  # an entry of the central directory, up to its name
TAIL = 22 + 0xFFFF + 20 + 56  # bytes in which the end must lie
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF


class Joined(io.RawIOBase):
    """Files and bytes, one behind the other, to be read at any place."""

    def __init__(self, paths: Sequence[Path], tail: bytes = b"") -> None:
        self.files = [path.open("rb") for path in paths]
        sizes = [path.stat().st_size for path in paths]
        self.starts = [0, *accumulate(sizes)]
        self.tail, self.place = tail, 0
        self.size = self.starts[-1] + len(tail)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = max(0, base + offset)
        return self.place

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        part = bisect.bisect_right(self.starts, self.place) - 1
        if part >= len(self.files):
            first = self.place - self.starts[-1]
            found = self.tail[first : first + len(buffer)]
        else:
            self.files[part].seek(self.place - self.starts[part])
            found = self.files[part].read(min(len(buffer), self.starts[part + 1] - self.place))
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)

    def take(self, place: int, size: int) -> bytes:
        """So many bytes from a place on, fewer at the end."""
        self.seek(place)
        found = bytearray()
        while len(found) < size and (chunk := self.read(size - len(found))):
            found += chunk
        return bytes(found)

    def close(self) -> None:
        for file in self.files:
            file.close()
        super().close()


def joined(paths: Sequence[Path]) -> io.BufferedReader:
    """The parts as one zip. ValueError: their end is not that of a zip in so many parts."""
    with Joined(paths) as raw:
        place, count, size = _directory(raw, len(paths))
        entries = _moved(raw.take(place, size), count, raw.starts)
        tail = entries + _end(count, len(entries), raw.starts[-1])
    return io.BufferedReader(Joined(paths, tail), 1 << 20)


def _directory(raw: Joined, parts: int) -> tuple[int, int, int]:
    """(place of the central directory in all, its entries, its bytes)."""
    first = max(0, raw.size - TAIL)
    tail = raw.take(first, TAIL)
    at = tail.rfind(END)
    if at < 0 or len(tail) < at + 22:
        raise ValueError("is damaged: has no end of a zip; it is cut, or the parts are not all")
    ends = first + at
    disk, start, _, count, size, offset = struct.unpack_from("<4H2L", tail, at + 4)
    if FULL16 in (disk, start, count) or FULL32 in (size, offset):
        if tail[at - 20 : at - 16] != LOCATOR:
            raise ValueError("is damaged: has no end of a zip64")
        lies, place = struct.unpack_from("<LQ", tail, at - 16)
        ends = raw.starts[_part(lies, parts)] + place
        end = raw.take(ends, 56)
        if end[:4] != END64 or len(end) < 56:
            raise ValueError("is damaged: has no end of a zip64 where it says")
        disk, start, _, count, size, offset = struct.unpack_from("<2L4Q", end, 16)
    if disk + 1 != parts:
        raise ValueError(f"is the last of {disk + 1} parts, and {parts} are there")
    place = raw.starts[_part(start, parts)] + offset
    if place + size != ends:
        raise ValueError("is damaged: its list of files does not lie before its end")
    return place, count, size


def _part(number: int, parts: int) -> int:
    if number >= parts:
        raise ValueError(f"is damaged: names part {number + 1} of {parts}")
    return number


def _moved(old: bytes, count: int, starts: Sequence[int]) -> bytes:
    """The entries with offsets from the first byte of all parts."""
    made, at = [], 0
    for _ in range(count):
        if old[at : at + 4] != ENTRY or len(old) < at + FIXED.size:
            raise ValueError("is damaged: its list of files is not one")
        fields = list(FIXED.unpack_from(old, at))
        name, extra, comment = fields[10:13]
        body = at + FIXED.size
        wide, rest = _wide(old[body + name : body + name + extra])
        packed, plain, disk, offset = fields[8], fields[9], fields[13], fields[16]
        sizes = iter(wide)
        try:
            plain = next(sizes) if plain == FULL32 else plain
            packed = next(sizes) if packed == FULL32 else packed
            offset = next(sizes) if offset == FULL32 else offset
            disk = next(sizes) if disk == FULL16 else disk
            offset += starts[disk]
        except (StopIteration, IndexError):
            raise ValueError("is damaged: its list of files names a part that is not there") from None
        large = [value for value in (plain, packed, offset) if value >= FULL32]
        more = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) + rest if large else rest
        fields[8:10] = min(packed, FULL32), min(plain, FULL32)
        fields[11], fields[13], fields[16] = len(more), 0, min(offset, FULL32)
        made.append(FIXED.pack(*fields) + old[body : body + name] + more)
        made.append(old[body + name + extra : body + name + extra + comment])
        at = body + name + extra + comment
    if at != len(old):
        raise ValueError("is damaged: its list of files is of another length than its end says")
    return b"".join(made)


def _wide(extra: bytes) -> tuple[list[int], bytes]:
    """(numbers of the zip64 field, the other fields); a part's number stands there in 4 bytes."""
    wide, rest, at = list[int](), b"", 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + size]
        if kind == 1:
            wide = [int.from_bytes(field[first : first + 8], "little") for first in range(0, len(field), 8)]
        else:
            rest += extra[at : at + 4 + size]
        at += 4 + size
    return wide, rest


def _end(count: int, size: int, place: int) -> bytes:
    """The end of a zip whose list of files begins at `place`."""
    end = struct.pack("<4s4H2LH", END, 0, 0, *[min(count, FULL16)] * 2, min(size, FULL32), min(place, FULL32), 0)
    if count < FULL16 and size < FULL32 and place < FULL32:
        return end
    end64 = struct.pack("<4sQ2H2L4Q", END64, 44, 45, 45, 0, 0, count, count, size, place)
    return end64 + struct.pack("<4sLQL", LOCATOR, 0, place + size, 1) + end
