"""Samples and headers -> the packing list: which clip goes under which key into which shard.

All of it is settled before a sample is decoded, from names, headers and options alone; so the shards' bytes depend on
neither timing nor the number of workers, and a packing that was killed finds its place again.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from dist_train.sources.recordings import Header
from dist_train.sources.samples import Sample

TAR_BLOCK = 512
OVERHEAD = 4 * TAR_BLOCK  # two headers, one block of JSON, half a block of padding each
WAV_HEADER = 44
SLUG = 60  # characters; a tar's name field holds 100
BYTES = {"pcm16": 2.0, "mulaw": 1.0, "flac": 1.2, "float32": 4.0, "float16": 2.0}
"""Codec, or type of features -> bytes of a sample; FLAC's is what it is on average for real recordings."""


@dataclass(frozen=True, slots=True)
class Item:
    """A clip's place: its key, and the bytes that it is expected to take in the tar."""

    key: str
    sample: Sample
    size: int

    def record(self, kept: tuple[tuple[float, float], ...] = (), trimmed: float | None = None) -> bytes:
        """The JSON member: what is known of the clip, each field only if there is something.

        kept: the parts that trimming left, in seconds of the recording; trimmed: the seconds that it cut away.
        """
        sample = self.sample
        fields: dict[str, Any] = {"label": sample.labels[0]} if len(sample.labels) == 1 else {"labels": sample.labels}
        for name in ("fold", "split", "group", "source", "start", "end"):
            if (value := getattr(sample, name)) is not None:
                fields[name] = value
        if trimmed is not None:
            fields |= {"trimmed": trimmed} | ({"kept": kept} if kept else {})
        return json.dumps(fields, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Packlist:
    """`shards[i]` are the items of shard i in order; `digest` names the list and the files' state, `content` the same
    but for the times of the files' changes, which are not the same on all machines."""

    shards: list[list[Item]]
    digest: str
    content: str = ""


def build(clips: list[tuple[Sample, Header]], codec: str, rate: int, channels: int, shard_bytes: int) -> Packlist:
    """Shuffle clips by a hash of their keys and cut them into shards of about equal size, at most `shard_bytes` each.

    Clips in the order of their classes would make shards of one class, which no shuffle buffer mixes again.
    """
    items = [
        Item(key(sample), sample, size(sample, head, codec, rate, channels) + OVERHEAD + TAR_BLOCK)
        for sample, head in clips
    ]
    _distinct(items)
    items.sort(key=lambda item: hashlib.sha256(item.key.encode()).digest())
    ends = list(accumulate(item.size for item in items))
    count = -(-ends[-1] // shard_bytes)
    shards: list[list[Item]] = [[] for _ in range(count)]
    for item, end in zip(items, ends, strict=True):
        shards[(end - 1) * count // ends[-1]].append(item)
    states = {sample.path: (head.bytes, head.changed) for sample, head in clips}
    sizes = {path: state[:1] for path, state in states.items()}
    return Packlist([shard for shard in shards if shard], _digest(items, states), _digest(items, sizes))


def key(sample: Sample) -> str:
    """`dogs_a-1-3f2a9c01ab`: ASCII letters of the path for people, and a hash of path and cut that makes it unique.

    It does not change when other recordings come or go; it holds no dot, for a WebDataset key ends at the first.
    """
    stem = unicodedata.normalize("NFKD", re.sub(r"\.[^./]*$", "", sample.source)).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", re.sub(r"[^A-Za-z0-9/]*/[^A-Za-z0-9]*", "_", stem)).strip("-_")
    identity = json.dumps([sample.source, sample.start, sample.end]).encode()
    return f"{slug[-SLUG:].strip('-_') or 'clip'}-{hashlib.sha256(identity).hexdigest()[:10]}"


def seconds(sample: Sample, head: Header) -> float:
    """A clip's length as far as table and header tell."""
    length = head.seconds if head.exact or sample.end is None else sample.end
    return max(0.0, min(length, sample.end or length) - (sample.start or 0.0))


def size(sample: Sample, head: Header, codec: str, rate: int, channels: int) -> int:
    """Bytes that the clip's audio member is expected to have: exact for PCM."""
    if codec == "original":
        return head.bytes
    return WAV_HEADER + int(seconds(sample, head) * rate * channels * BYTES[codec])


def _distinct(items: list[Item]) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        first = seen.setdefault(item.key.lower(), item)
        if first is not item:
            raise ValueError(f"{item.sample.path}: gets the same key as {first.sample.path} ({item.key}); rename one")


def _digest(items: list[Item], states: Mapping[Path, tuple[int, ...]]) -> str:
    """Hash of each clip in order, with its file's state, and of the shards' sizes."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.key, item.size, *states[item.sample.path]]).encode() + item.record())
    return digest.hexdigest()
