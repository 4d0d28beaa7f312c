"""A tar file -> its members, or what is wrong with it: a strict walk of the headers.

Python's tarfile, and so every WebDataset reader, takes a damaged header in mid-file for the end of the archive and a
cut at a member's boundary for a sound one. Here every header's checksum is verified, every payload must lie in the
file, and after the last member there must be zero blocks (two at least) and nothing else.
Understood: v7, ustar (with prefix), pax (path, size), GNU long names and base-256 sizes.
"""

import io
import os
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from typing_extensions import Buffer

BLOCK = 512
ZERO = bytes(BLOCK)
REGULAR, FOLDER = (b"0", b"\0", b"7"), b"5"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
EXTENDED = (LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL)
KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "sparse",
}
MAX_EXTENSION = 1 << 20
RESTORE = "restore the shard or pack it again"


class Member(NamedTuple):
    """A regular file; `header` is where its headers start, its payload is bytes [offset, offset + size) of the tar."""

    name: str
    header: int
    offset: int
    size: int


class Damage(NamedTuple):
    """What is wrong at byte `offset`; `name` is the member's where it is known."""

    offset: int
    name: str
    text: str
    remedy: str


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


def walk(file: BinaryIO) -> Iterator[Member | Damage]:
    """Every member of the tar in order; after a damaged header the walk goes on at the next sound one.

    `file` may be read and moved between two members: the walk keeps its own position.
    """
    size = file.seek(0, os.SEEK_END)
    position: int | None = 0
    while position is not None:
        if _read(file, position, BLOCK) == ZERO:
            if damage := _tail(file, position, size):
                yield damage
            return
        item, position = _entry(file, position, size)
        if item is not None:
            yield item


def _entry(file: BinaryIO, start: int, size: int) -> tuple[Member | Damage | None, int | None]:
    """One member with the extended headers before it (None: a folder), and where the next begins (None: nowhere)."""
    position, extension = start, dict[str, str]()
    while True:
        block = _read(file, position, BLOCK)
        if len(block) < BLOCK:
            return Damage(position, "", "the tar is cut: no end-of-archive blocks after the last member", RESTORE), None
        if not _sound(block):
            guess = _text(block[:100]) if block[:100].strip(b"\0").isascii() else ""
            damage = Damage(position, guess, "the member's header is damaged (wrong checksum)", RESTORE)
            return damage, _next_header(file, position + BLOCK, size)
        header = _header(block)
        length = int(extension["size"]) if extension.get("size", "").isdecimal() else header.size
        name, data = extension.get("path", header.name), position + BLOCK
        position = data + -(-length // BLOCK) * BLOCK
        if position > size:
            text = (
                f"the tar is cut inside a payload of {length} bytes that starts at byte {data}: it ends at byte {size}"
            )
            return Damage(start, name, text, RESTORE), None
        if header.kind not in EXTENDED:
            return _member(header.kind, name, start, data, length), position
        extension |= _extension(header.kind, _read(file, data, min(length, MAX_EXTENSION)))


def _member(kind: bytes, name: str, start: int, data: int, length: int) -> Member | Damage | None:
    if kind == FOLDER or (kind == b"\0" and name.endswith("/")):
        return None
    if kind in REGULAR:
        return Member(name, start, data, length)
    text = f"the member is {KINDS.get(kind, f'of kind {kind!r}')}, which readers drop"
    return Damage(start, name, text, "pack plain files (GNU tar: --dereference --hard-dereference)")


def _tail(file: BinaryIO, position: int, size: int) -> Damage | None:
    """Two zero blocks at least, and zeros to the end."""
    if size - position < 2 * BLOCK:
        return Damage(position, "", "the tar is cut: one end-of-archive block, not two", RESTORE)
    while chunk := _read(file, position, 1 << 20):
        if rest := chunk.lstrip(b"\0"):
            byte = position + len(chunk) - len(rest)
            text = f"data after the end of the archive, which ends before byte {byte}"
            return Damage(byte, "", text, "keep joined tars apart: unpack and pack again")
        position += len(chunk)
    return None


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _sound(block: bytes) -> bool:
    """Whether the header's checksum is right: the sum of its bytes, its own field taken as blanks."""
    try:
        said = int(block[148:156].strip(b"\0 ") or b"0", 8)
    except ValueError:
        return False
    total = sum(block) - sum(block[148:156]) + 8 * 32
    signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]) if said != total else total
    return said in (total, signed) and _size(block[124:136]) is not None


def _next_header(file: BinaryIO, position: int, size: int) -> int | None:
    """The next sound header: a checksum alone is weak evidence inside a payload, so the magic must be there too."""
    for start in range(position, size - BLOCK + 1, BLOCK):
        block = _read(file, start, BLOCK)
        if block[257:262] == b"ustar" and _sound(block):
            return start
    return None


def _header(block: bytes) -> _Header:
    name, kind, size = _text(block[:100]), block[156:157], _size(block[124:136])
    assert size is not None, "asked of sound headers only"
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    return _Header(name, size, kind)


def _size(number: bytes) -> int | None:
    """Octal digits, or GNU's base 256 where the first bit is set; None: neither."""
    if number[0] == 0x80:
        return int.from_bytes(number[1:], "big")
    try:
        return int(number.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _extension(kind: bytes, payload: bytes) -> dict[str, str]:
    """path and size that an extended header gives the next member; pax records are `LENGTH KEY=VALUE\\n`."""
    if kind == LONG_NAME:
        return {"path": _text(payload)}
    records = dict[str, str]()
    while kind == PAX and (match := re.match(rb"(\d{1,9}) ([^=]+)=", payload)):
        length = max(int(match[1]), match.end())  # a damaged length must not stop the walk here for ever
        records[_text(match[2])] = payload[match.end() : length - 1].decode("utf-8", "surrogateescape")
        payload = payload[length:]
    return records


class Section(io.RawIOBase):
    """Bytes [start, start + size) of an open file as a file of its own, so that decoders read it without a copy."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self.file, self.start, self.size, self.position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self.position))
        self.file.seek(self.start + self.position)
        chunk = self.file.read(count)
        view[: len(chunk)] = chunk
        self.position += len(chunk)
        return len(chunk)
