"""A packing list -> tars at a desk, each whole or absent.

    DEST/.packing/shard-000003.part    the tar being written
    DEST/.packing/shard-000003.json    what went into it; written before
    DEST/shard-000003.tar              the part under its name: from now on it is kept

So a packing that was killed anywhere starts again at the first shard that is not there. In a store the record comes
last, with the tag of the tar that it is of.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dist_train import disk
from dist_train.archive import scanned
from dist_train.archive.scan import scan
from dist_train.archive.scanned import State
from dist_train.assembly import jobs
from dist_train.assembly.jobs import Coding, Crew, Cut, Encoded
from dist_train.assembly.packlist import Item, Packlist
from dist_train.assembly.permit import shard_name
from dist_train.stores import scratch
from dist_train.stores.desk import AT_ONCE, Desk
from dist_train.stores.part import WORK, read

CHUNK_BYTES, CHUNK_CLIPS = 1 << 22, 64
SPARE = 1 << 20  # bytes that a disk should have left


@dataclass
class Loaded:
    """What went into a shard. left_out, short and untrimmed (nothing to keep was found in it): places in the shard's
    items; seconds: of what is in; trimmed: seconds that were cut away."""

    bytes: int = 0
    seconds: float = 0.0
    left_out: dict[int, str] = field(default_factory=dict)
    short: list[int] = field(default_factory=list)
    untrimmed: list[int] = field(default_factory=list)
    trimmed: float = 0.0
    kept: bool = False


@dataclass(frozen=True)
class Keep:
    """What a tar is scanned for, right after it was written."""

    classes: list[str]
    frame_rate: int


def load(
    desk: Desk, packlist: Packlist, numbers: Sequence[int], coding: Coding, crew: Crew, keep: Keep | None
) -> list[Loaded]:
    """Write those shards of the numbers that are not there yet. ValueError for a full disk.

    keep: scan each tar and keep what was found (always, where the desk is a store's).
    """
    tars = desk.tars()
    desk.fetch(record for number in numbers if (record := f"{WORK}/{_stem(number)}.json") in desk.there)
    loaded = {number: _finished(desk, tars, number) for number in numbers}
    todo = [number for number, there in loaded.items() if there is None]
    _room(desk, [sum(item.size for item in packlist.shards[number]) for number in todo], coding)
    total = sum(len(packlist.shards[number]) for number in numbers)
    done = total - sum(len(packlist.shards[number]) for number in todo)
    crew.progress("packing", done, total)
    cuts = (chunk for number in todo for chunk in _chunks(packlist.shards[number]))
    results = crew.spread(partial(jobs.encode_all, coding=coding), cuts, crew.workers if todo else 1)
    flat = (encoded for chunk in results for encoded in chunk)
    try:
        for number in todo:
            items = packlist.shards[number]
            made = _write(desk, number, zip(items, flat, strict=False), partial(_tick, crew, done, total))
            loaded[number] = made
            if keep is not None:
                desk.later(partial(_shelve, desk, number, made, keep))
            done += len(items)
        desk.finish()
    finally:
        results.close()
    return [there for there in loaded.values() if there is not None]


def _shelve(desk: Desk, number: int, loaded: Loaded, keep: Keep) -> None:
    """Keep the scan of a shard; where the desk is a store's, send the shard, its scan and last its record."""
    tar, record, kept = shard_name(number), f"{WORK}/{_stem(number)}.json", f"{WORK}/{_stem(number)}.scan"
    tag = ""
    if loaded.bytes:
        found = scan(desk.root / tar, keep.classes, frozenset(), keep.frame_rate)
        state = desk.send(tar)
        tag = state[1]
        if not found.damage:
            key = scanned.key(keep.classes, (), keep.frame_rate)
            write_whole(desk.root / kept, scanned.dump(found, key, state))
            desk.put(kept)
    if desk.bucket is not None:
        write_whole(desk.root / record, json.dumps(_record(loaded) | {"tag": tag}).encode())
        desk.put(record)


def _tick(crew: Crew, before: int, total: int, done: int) -> None:
    crew.progress("packing", before + done, total)


def _chunks(items: list[Item]) -> Iterator[list[Cut]]:
    """Cuts by the handful: one message a clip costs more than a short clip's decoding."""
    chunk: list[Cut] = []
    held = 0
    for item in items:
        chunk.append((item.sample.path, item.sample.start, item.sample.end))
        held += item.size
        if held >= CHUNK_BYTES or len(chunk) >= CHUNK_CLIPS:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _room(desk: Desk, sizes: Sequence[int], coding: Coding) -> None:
    """ValueError where the disk is too small: for all shards, or for those that wait to be sent."""
    share = 0.5 if coding.codec == "flac" else 1
    if desk.bucket is None:
        free, needed = shutil.disk_usage(desk.root).free, sum(sizes) * share
        if needed + SPARE > free:
            text = f"the shards take about {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free"
            raise ValueError(f"{desk.said}: {text}")
    elif sizes:
        waiting = min(len(sizes), AT_ONCE + 1)
        scratch.room(int(max(sizes) * share * waiting) + SPARE, "the shards that wait to be sent")


def _stem(number: int) -> str:
    return shard_name(number).removesuffix(".tar")


def _finished(desk: Desk, tars: Mapping[str, State], number: int) -> Loaded | None:
    """What a shard holds that is already there, whole."""
    record = desk.root / WORK / f"{_stem(number)}.json"
    if not record.is_file():
        return None
    fields = read(record)
    size, tag = tars.get(shard_name(number), (0, ""))
    if fields["bytes"] != size or (desk.bucket is not None and fields.get("tag") != tag):
        return None
    left_out = {int(place): reason for place, reason in fields["left_out"].items()}
    trimming = {"untrimmed": fields.get("untrimmed", []), "trimmed": fields.get("trimmed", 0.0)}
    return Loaded(fields["bytes"], fields["seconds"], left_out, fields["short"], **trimming, kept=True)


def _record(loaded: Loaded) -> dict[str, Any]:
    return {key: value for key, value in asdict(loaded).items() if key != "kept"}


def _write(desk: Desk, number: int, clips: Iterator[tuple[Item, Encoded]], progress: Callable[[int], None]) -> Loaded:
    part, tar = desk.root / WORK / f"{_stem(number)}.part", desk.root / shard_name(number)
    try:
        loaded = _write_part(part, clips, progress)
        write_whole(part.with_suffix(".json"), json.dumps(_record(loaded)).encode())
        if loaded.bytes:
            part.replace(tar)
            disk.sync(desk.root)
    except OSError as error:
        if error.errno is None:  # of a store
            raise
        place = tar if desk.bucket is None else scratch.place()
        remedy = "make room" if desk.bucket is None else "make room, or set TMPDIR to another disk,"
        reason = f"{error.strerror} ({shutil.disk_usage(desk.root).free / 1e9:.2f} GB free); {remedy}"
        raise ValueError(f"{place}: cannot be written: {reason} and run the same command again to go on") from None
    finally:
        part.unlink(missing_ok=True)
    return loaded


def _write_part(part: Path, clips: Iterator[tuple[Item, Encoded]], progress: Callable[[int], None]) -> Loaded:
    from webdataset.writer import TarWriter  # imports torch: processes that only encode do without

    loaded = Loaded()
    place = -1
    with part.open("wb") as file:
        with TarWriter(file, user="dist_train", group="dist_train", mode=0o444, mtime=0, encoder=False) as tar:
            for place, (item, clip) in enumerate(clips):
                if clip.data is not None:
                    record = item.record(clip.kept, clip.trimmed)
                    tar.write({"__key__": item.key, clip.suffix: clip.data, "json": record})
                    loaded.seconds += clip.seconds
                    loaded.trimmed += clip.trimmed or 0.0
                    loaded.untrimmed += [] if clip.trimmed is None or clip.kept else [place]
                elif clip.short:
                    loaded.short.append(place)
                else:
                    loaded.left_out[place] = clip.reason
                progress(place + 1)
        if len(loaded.short) + len(loaded.left_out) <= place:
            file.flush()
            os.fsync(file.fileno())
            loaded.bytes = file.tell()
    return loaded


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file under another name, then rename it."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
