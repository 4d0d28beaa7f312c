"""A packing list -> tars in a folder, each whole or absent.

    DEST/.packing/plan.json            what is being packed: another plan in the same folder is refused
    DEST/.packing/shard-000003.part    the tar being written
    DEST/.packing/shard-000003.json    what went into it; written before
    DEST/shard-000003.tar              the part under its name: from now on it is kept

So a packing that was killed anywhere starts again at the first shard that is not there.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from dist_train import jobs
from dist_train.disk import writable
from dist_train.jobs import Coding, Cut, Encoded
from dist_train.packlist import Item, Packlist
from dist_train.row import INDEX

WORK, PLAN, LOCK = ".packing", "plan.json", "lock"
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


def name(number: int) -> str:
    """A shard's file name."""
    return f"shard-{number:06d}.tar"


def foreign(dest: Path) -> None:
    """ValueError where a folder holds shards that no packing list stands beside, or is no folder."""
    if dest.exists() and not dest.is_dir():
        raise ValueError(f"{dest}: is a file; name a folder for the shards")
    if dest.is_dir() and not (dest / WORK / PLAN).is_file() and any([*dest.glob("*.tar"), *dest.glob(INDEX)]):
        raise ValueError(f"{dest}: holds shards that are not of this packing; name an empty folder")


@contextmanager
def claimed(dest: Path, packlist: Packlist, options: dict[str, Any]) -> Iterator[None]:
    """The folder with its plan, locked. ValueError where another process packs there, or another plan lies there."""
    foreign(dest)
    writable(dest)
    (dest / WORK).mkdir(exist_ok=True)
    try:
        with filelock.FileLock(dest / WORK / LOCK, timeout=0):
            _agree(dest, packlist, options)
            yield
    except filelock.Timeout:
        raise ValueError(f"{dest}: another process is packing into it; wait for it or name another folder") from None


def _agree(dest: Path, packlist: Packlist, options: dict[str, Any]) -> None:
    path = dest / WORK / PLAN
    ours = {"digest": packlist.digest, "shards": len(packlist.shards), "options": options}
    if not path.is_file():
        write_whole(path, json.dumps(ours, indent=1).encode())
        return
    theirs = _json(path)
    changed = [
        f"{option} was {theirs.get('options', {}).get(option)!r}, is {value!r}"
        for option, value in options.items()
        if theirs.get("options", {}).get(option) != value
    ]
    if changed or theirs.get("digest") != packlist.digest:
        reason = "; ".join(changed) or "the recordings or their labels have changed since"
        raise ValueError(f"{dest}: holds another packing ({reason}); name another folder, or delete this one")
    strangers = {path.name for path in dest.glob("*.tar")} - {name(number) for number in range(len(packlist.shards))}
    if strangers:
        raise ValueError(f"{dest / min(strangers)}: is not of this packing; move it elsewhere")


def load(
    dest: Path, packlist: Packlist, coding: Coding, workers: int, progress: Callable[[int, int], None]
) -> list[Loaded]:
    """Write the shards that are not there yet; progress: (clips done, clips in all). ValueError for a full disk."""
    loaded = [_finished(dest, number) for number in range(len(packlist.shards))]
    todo = [number for number, there in enumerate(loaded) if there is None]
    _room(dest, sum(item.size for number in todo for item in packlist.shards[number]), coding)
    total = sum(map(len, packlist.shards))
    done = total - sum(len(packlist.shards[number]) for number in todo)
    progress(done, total)
    cuts = (chunk for number in todo for chunk in _chunks(packlist.shards[number]))
    results = jobs.in_order(partial(jobs.encode_all, coding=coding), cuts, workers if todo else 1)
    flat = (encoded for chunk in results for encoded in chunk)
    try:
        for number in todo:
            items = packlist.shards[number]
            loaded[number] = _write(dest, number, zip(items, flat, strict=False), partial(_tick, progress, done, total))
            done += len(items)
    finally:
        results.close()
    return [there for there in loaded if there is not None]


def _tick(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


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


def _room(dest: Path, needed: int, coding: Coding) -> None:
    free = shutil.disk_usage(dest).free
    if needed * (0.5 if coding.codec == "flac" else 1) + SPARE > free:
        raise ValueError(f"{dest}: the shards take about {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free")


def _finished(dest: Path, number: int) -> Loaded | None:
    """What a shard holds that is already there, whole."""
    record, tar = dest / WORK / f"{name(number)[:-4]}.json", dest / name(number)
    if not record.is_file():
        return None
    fields = _json(record)
    if fields["bytes"] != (tar.stat().st_size if tar.is_file() else 0):
        return None
    left_out = {int(place): reason for place, reason in fields["left_out"].items()}
    trimming = {"untrimmed": fields.get("untrimmed", []), "trimmed": fields.get("trimmed", 0.0)}
    return Loaded(fields["bytes"], fields["seconds"], left_out, fields["short"], **trimming, kept=True)


def _write(dest: Path, number: int, clips: Iterator[tuple[Item, Encoded]], progress: Callable[[int], None]) -> Loaded:
    part, tar = dest / WORK / f"{name(number)[:-4]}.part", dest / name(number)
    try:
        loaded = _write_part(part, clips, progress)
        record = {key: value for key, value in asdict(loaded).items() if key != "kept"}
        write_whole(part.with_suffix(".json"), json.dumps(record).encode())
        if loaded.bytes:
            part.replace(tar)
            _sync_folder(dest)
    except OSError as error:
        free = shutil.disk_usage(dest).free / 1e9
        reason = f"{error.strerror} ({free:.2f} GB free); make room"
        raise ValueError(f"{tar}: cannot be written: {reason} and run the same command again to go on") from None
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


def _sync_folder(path: Path) -> None:
    if os.name != "posix":  # a folder cannot be opened elsewhere
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(path: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError:
        raise ValueError(f"{path}: is damaged; delete the folder {path.parent.parent} and pack again") from None
    return fields
