"""Seeded damage to bytes and texts: what disks, cut transfers and hostile files do to a format."""

import struct
from random import Random

EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def flip(raw: bytearray, random: Random) -> None:
    """One to eight bits change."""
    for _ in range(random.randint(1, 8)):
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)


def cut(raw: bytearray, random: Random) -> None:
    """The end is lost."""
    del raw[random.randrange(len(raw)) :]


def drop(raw: bytearray, random: Random) -> None:
    """A piece in the middle is lost."""
    begin = random.randrange(len(raw))
    del raw[begin : begin + random.randint(1, 700)]


def zero(raw: bytearray, random: Random) -> None:
    """A block reads as zeros."""
    size = random.choice((1, 4, 16, 512))
    begin = random.randrange(len(raw)) // size * size
    raw[begin : begin + size] = bytes(len(raw[begin : begin + size]))


def double(raw: bytearray, random: Random) -> None:
    """A block is there twice."""
    size = random.choice((4, 16, 512))
    begin = random.randrange(len(raw)) // size * size
    raw[begin:begin] = raw[begin : begin + size]


def splice(raw: bytearray, random: Random) -> None:
    """One place is written over another."""
    size = random.choice((2, 8, 64, 512))
    source, target = (random.randrange(len(raw)) // size * size for _ in range(2))
    raw[target : target + size] = raw[source : source + size]


def extreme(raw: bytearray, random: Random) -> None:
    """A number becomes the largest, the smallest or one beside a power of two."""
    size = random.choice((2, 4, 8))
    begin = random.randrange(max(1, len(raw) - size + 1))
    value = random.choice(EXTREMES) & ((1 << 8 * size) - 1)
    raw[begin : begin + size] = value.to_bytes(size, random.choice(("little", "big")))


def nudge(raw: bytearray, random: Random) -> None:
    """A 32-bit number is a little larger or smaller."""
    begin = random.randrange(max(1, len(raw) - 3))
    if begin + 4 <= len(raw):
        (value,) = struct.unpack_from("<I", raw, begin)
        struct.pack_into("<I", raw, begin, (value + random.choice((-64, -1, 1, 2, 64))) & 0xFFFFFFFF)


def grow(raw: bytearray, random: Random) -> None:
    """Bytes come behind the end."""
    raw += random.choice((b"\0" * 512, b"x" * 700, bytes(raw[: random.randrange(len(raw) + 1)])))


KINDS = (flip, cut, drop, zero, double, splice, extreme, nudge, grow)


def mutated(raw: bytes, random: Random, head: int | None = None) -> bytes:
    """`raw` with one to three of the damages; `head`: half of the cases change the first bytes only."""
    changed, kept = bytearray(raw), b""
    if head is not None and random.random() < 0.5:
        changed, kept = bytearray(raw[:head]), raw[head:]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if changed:
            random.choice(KINDS)(changed, random)
    return bytes(changed) + kept
