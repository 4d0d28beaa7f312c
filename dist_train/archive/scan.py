"""One tar -> the rows of its samples, and a line for everything in it that a reader would lose or trip over.

Members belong to one sample when they share a key: the path up to the first dot of the base name, as WebDataset has
it. Members that WebDataset ignores (no dot, hidden, `__meta__`) are ignored.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import label, level
from dist_train.archive.label import LABEL_SUFFIXES
from dist_train.archive.row import ROW, SEGMENTS, SKIP
from dist_train.archive.tar import Damage, Member, walk

FILE_SUFFIXES = {"wav", "wave", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "caf", "w64", "rf64"}
FEATURE_SUFFIX = "npy"
AUDIO_SUFFIXES = level.AV_SUFFIXES | FILE_SUFFIXES
REPACK = f"pack it again, or leave it out: a line with its key in {SKIP} beside the tars"
REPACK_SHARD = "pack the shard again with each sample's members side by side, each once"
KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
META = re.compile(r"(?:^|/)__[^/]*__(?:$|/)")
MAX_LABEL_BYTES = 1 << 24

Activity = NDArray[np.uint8]
Row = tuple[Any, ...]
Progress = Callable[[int, int], None]
"""Called with (done, of how many) after each shard."""


@dataclass
class Scan:
    """What one tar holds. rows[i]'s label is -1; names[i] are its class names; damage: one line each,
    named: the keys that they name. bins: widths of the packed features among its samples; 0 stands for audio."""

    name: str
    bytes: int
    sha256: str
    rows: NDArray[np.void] = field(default_factory=lambda: np.empty(0, ROW))
    activity: Activity = field(default_factory=lambda: np.empty((0, SEGMENTS), np.uint8))
    keys: list[str] = field(default_factory=list)
    names: list[tuple[str, ...]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    named: set[str] = field(default_factory=set)
    bins: set[int] = field(default_factory=set)


def scan(
    path: Path, classes: Sequence[str] | None = None, skip: Collection[str] = (), frame_rate: int = level.FRAME_RATE
) -> Scan:
    """Read a whole tar. `classes` are the only ones allowed (None: any); keys in `skip` are left out. `frame_rate`: of
    packed features."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found = Scan(path.name, size, level.checksum(file, 0, size).hex())
        samples = _samples(found, walk(file))
        known = None if classes is None else label.known_classes(classes)
        rows, activity = [], []
        for key, parts in samples.items():
            if key in skip or f"{path.name}/{key}" in skip:
                continue
            try:
                row, active, names, bins = _read(file, parts, known, frame_rate)
            except ValueError as error:
                found.damage.append(line(path.name, parts[0].header, key, str(error), REPACK))
                found.named.add(key)
                continue
            rows.append(row)
            activity.append(active)
            found.bins.add(bins)
            found.keys.append(key)
            found.names.append(names)
    if rows:
        found.rows, found.activity = np.array(rows, ROW), np.stack(activity)
    return found


def line(shard: str, byte: int, key: str, text: str, remedy: str) -> str:
    """How every damage is said: one line with shard, byte offset, key and remedy."""
    sample = f", sample {key!r}" if key else ""
    return f"{shard}, byte {byte}{sample}: {text}: {remedy}"


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension) of a member's name, None for one that WebDataset ignores."""
    match = KEY.fullmatch(name)
    return None if match is None or META.search(name) else (match[1], match[2].lower())


def _samples(found: Scan, items: Iterable[Member | Damage]) -> dict[str, list[Member]]:
    """Sound members by key, in order; damage, doubled members and parts that do not lie side by side are noted."""
    samples = dict[str, list[Member]]()
    bad = set[str]()
    last = ""
    for item in items:
        key = (split_name(item.name) or ("",))[0]
        damage = item if isinstance(item, Damage) else _misplaced(item, samples.get(key, []), key == last)
        if damage is not None:
            found.damage.append(line(found.name, damage.offset, key, damage.text, damage.remedy))
            bad.add(key)
        elif key and isinstance(item, Member):
            samples.setdefault(key, []).append(item)
            last = key
    found.named = bad - {""}
    return {key: parts for key, parts in samples.items() if key not in bad}


def _misplaced(member: Member, parts: list[Member], adjacent: bool) -> Damage | None:
    """What is wrong with a member that comes after `parts` of the same sample."""
    if any(member.name == other.name for other in parts):
        return Damage(member.header, member.name, f"member {member.name!r} is there twice", REPACK_SHARD)
    if parts and not adjacent:
        text = f"{member.name!r} does not lie beside {parts[-1].name!r}: readers make two half samples of them"
        return Damage(member.header, member.name, text, REPACK_SHARD)
    return None


def _read(
    file: BinaryIO, parts: list[Member], known: Mapping[str, str] | None, frame_rate: int
) -> tuple[Row, Activity, tuple[str, ...], int]:
    """A sample's row, activity, class names and feature bins (0: audio); ValueError (the reason only) where it is not
    complete or not sound."""
    said = label.read(_label_parts(file, parts), known)
    member, suffix = _audio_part(parts)
    audio = level.read(file, member.offset, member.size, suffix, frame_rate)
    stored = suffix == FEATURE_SUFFIX
    if audio.frames >= 1 << 32 or (audio.channels >= 1 << 8 and not stored):
        raise ValueError(f"{audio.frames} frames of {audio.channels} channels are too many: cut it in pieces")
    place = (member.offset + audio.offset, audio.size, said.group, audio.digest)
    form = (0, audio.frames, audio.rate, audio.rms)
    row = (*place, *form, -1, said.fold, said.split, audio.codec, audio.channels, (0,) * 6)
    return row, audio.activity, said.names, audio.channels if stored else 0


def _audio_part(parts: list[Member]) -> tuple[Member, str]:
    """The one audio member and its suffix; without one, that of packed features."""
    named = [(part, _extension(part).rpartition(".")[2]) for part in parts]
    found = [(part, suffix) for part, suffix in named if suffix in AUDIO_SUFFIXES]
    found = found or [(part, suffix) for part, suffix in named if suffix == FEATURE_SUFFIX]
    if not found:
        raise ValueError(f"no audio: it has only {', '.join(repr(part.name) for part in parts)}")
    if len(found) > 1:
        names = ", ".join(repr(part.name) for part, _ in found)
        raise ValueError(f"several audio members in one sample ({names}): a key ends at the name's first dot")
    return found[0]


def _label_parts(file: BinaryIO, parts: list[Member]) -> dict[str, bytes]:
    """The label members' bytes by suffix: KEY.json, or KEY.v2.json where there is no KEY.json."""
    chosen = {_extension(part).rpartition(".")[2]: part for part in reversed(parts)}
    chosen |= {_extension(part): part for part in parts}
    found = dict[str, bytes]()
    for suffix in LABEL_SUFFIXES:
        if suffix in chosen:
            file.seek(chosen[suffix].offset)
            found[suffix] = file.read(min(chosen[suffix].size, MAX_LABEL_BYTES))
    return found


def _extension(part: Member) -> str:
    return (split_name(part.name) or ("", ""))[1]
