"""A data set of the catalogue -> a folder below DEST that `make_shards pack` reads.

DEST/NAME.archives/    what is downloaded; deleted in the end unless it is to be kept
DEST/.NAME.unpacking/  what is unpacked, until it is whole
DEST/NAME/             the data set, with fetched.json: from where, which digests, under what licence
"""

import datetime
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from dist_train import disk
from dist_train.fetch import published, transfer, unpack
from dist_train.fetch.catalogue import Dataset
from dist_train.fetch.published import Said
from dist_train.fetch.transfer import Fetched, Remote
from dist_train.sources.recordings import SUFFIXES

STAMP = "fetched.json"
MARGIN = 1.05  # of bytes, for blocks and folders
LOOSE = 2  # times the published size that an archive may have

Progress = Callable[[str, int, int], None]
"""Called with (stage, MB done, of how many)."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Room:
    """Where a data set of this name lies below `dest`, and what is beside it."""

    dest: Path
    name: str

    @property
    def home(self) -> Path:
        """The whole data set."""
        return self.dest / self.name

    @property
    def archives(self) -> Path:
        """The downloads."""
        return self.dest / f"{self.name}.archives"

    @property
    def half(self) -> Path:
        """What is not whole yet."""
        return self.dest / f".{self.name}.unpacking"


def obtain(one: Dataset, dest: Path, keep: bool, progress: Progress, say: Say) -> Path:
    """Fetch what is not there yet; the data set's folder. keep: the archives stay.

    ValueError: refused, damaged, not what is published, no room on the disk; ConnectionError: no way there;
    OSError: the disk. The same call goes on from where it stood.
    """
    room = Room(dest, one.folder)
    disk.writable(dest)
    with _locked(room):
        if not present(room):
            said = _said(one, say)
            _space(one, room, said)
            room.archives.mkdir(exist_ok=True)
            files = [_file(one, room, said, *part, progress, say) for part in one.parts()]
            _unpack(one, room, progress)
            _proved(one, room, files, say)
            _stamp(one, room, files)
            room.half.rename(room.home)
            disk.sync(dest)
        else:
            say(f"{room.home}: is there already")
        shutil.rmtree(room.half, ignore_errors=True)
        if not keep:
            shutil.rmtree(room.archives, ignore_errors=True)
    return room.home


def present(room: Room) -> bool:
    """Whether the data set is there. ValueError where something else is."""
    if (room.home / STAMP).is_file():
        return True
    if room.home.exists() and not (room.home.is_dir() and not any(room.home.iterdir())):
        raise ValueError(f"{room.home}: is there, and was not fetched by this command: name another DEST, or move it")
    return False


@contextmanager
def _locked(room: Room) -> Iterator[None]:
    lock = filelock.FileLock(room.dest / f".{room.name}.lock", timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout:
        raise ValueError(f"{room.dest}: another process is fetching {room.name} here; wait for it") from None


def _said(one: Dataset, say: Say) -> dict[str, Said]:
    """What is published of each file: by the catalogue, and by the host's own record."""
    found = {name: Said(digest=digest) for name, _, digest in one.parts()}
    if one.record is not None:
        try:
            found |= published.record(one.record, found)
        except ValueError as error:
            say(f"no published checksum: {error}")
    return found


def _space(one: Dataset, room: Room, said: dict[str, Said]) -> None:
    """ValueError where the disk has no room for all that is to come."""
    there = sum(path.stat().st_size for path in room.archives.glob("*")) if room.archives.is_dir() else 0
    sizes = [about.size for about in said.values()]
    download = sum(size for size in sizes if size) if None not in sizes else one.download
    _room(room.dest, max(0, download - there) + one.unpacked, f"for {one.title} (archives and what is in them)")


def _room(folder: Path, wanted: float, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < MARGIN * wanted:
        need = f"{MARGIN * wanted / 1e9:.1f} GB are wanted {what}"
        raise ValueError(f"{folder}: {need} and {free / 1e9:.1f} GB are free; name a DEST on a larger disk")


def _file(
    one: Dataset,
    room: Room,
    said: dict[str, Said],
    name: str,
    address: str,
    _: str | None,
    progress: Progress,
    say: Say,
) -> dict[str, Any]:
    """Fetch one file; what is recorded of it."""

    def tick(stage: str, done: int, total: int | None) -> None:
        progress(f"{stage} {name}, MB", done // 1_000_000, max(done, total or one.download) // 1_000_000)

    remote = Remote(name, address, said[name], LOOSE * one.download)
    try:
        found = transfer.fetch(remote, room.archives, partial(tick, "downloading"), partial(tick, "checking"))
    except OSError as error:
        if error.errno is None:  # the way there
            raise
        raise OSError(
            f"{room.archives}: {error.strerror}; what came is kept: mend that, and the same command goes on"
        ) from None
    say(f"{name}: {found.size / 1e6:.1f} MB, {_proof(found, said[name])}")
    return {
        "name": name,
        "address": address,
        "bytes": found.size,
        "sha256": found.sha256,
        "published": said[name].digest,
    }


def _proof(found: Fetched, said: Said) -> str:
    if said.digest is None:
        return f"no published checksum; its sha256 is {found.sha256}"
    return f"{said.digest.partition(':')[0]} as published"


def _unpack(one: Dataset, room: Room, progress: Progress) -> None:
    """All archives into the folder that is not whole yet."""
    archives = [[room.archives / name for name, _ in archive.parts] for archive in one.archives]
    shutil.rmtree(room.half, ignore_errors=True)
    sizes = [unpack.size(parts) for parts in archives]
    known = sum(size for size in sizes if size is not None)
    _room(room.dest, one.unpacked if None in sizes else known, "to unpack it")
    sink = unpack.Sink(room.half, LOOSE * one.unpacked, one.strip)
    room.half.mkdir()
    for parts in archives:
        stage = f"unpacking {parts[-1].name}, MB"

        def tick(done: int, total: int | None, stage: str = stage) -> None:
            progress(stage, done // 1_000_000, (total or done) // 1_000_000)

        try:
            unpack.unpack(parts, sink, tick)
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and it is fetched anew") from None
        except OSError as error:
            raise OSError(f"{room.half}: {error.strerror}; free some room, and the same command goes on") from None


def _proved(one: Dataset, room: Room, files: list[dict[str, Any]], say: Say) -> None:
    """What was unpacked is the data set. ValueError where it is not."""
    if missing := [name for name in one.needs if not (room.half / name).exists()]:
        raise ValueError(f"{room.archives}: the archives hold no {', '.join(missing)}: are they {one.title}?")
    if one.tree is not None:
        try:
            listed = published.tree(one.tree)
        except (ValueError, ConnectionError) as error:
            say(f"no list of the commit's files: {error}; only the archive's own checksums were compared")
        else:
            folders = sorted({name.split("/")[0] for name in one.needs})
            try:
                count = published.compare(room.half, listed, folders)
            except ValueError as error:
                raise ValueError(f"{error}; delete {room.archives} and start again") from None
            files[0]["commit_files"] = count
            say(f"{count} files are those of the commit, by git's own hashes")
    found = sum(path.suffix.lower() in SUFFIXES and path.name[0] != "." for path in room.half.rglob("*"))
    if found != one.recordings:
        say(f"{found} recordings are in it, and {one.recordings} are published")


def _stamp(one: Dataset, room: Room, files: list[dict[str, Any]]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    about = {"data": one.title, "page": one.page, "licence": one.licence, "cite": one.cite, "at": now, "files": files}
    disk.replace(room.half / STAMP, lambda file: file.write(json.dumps(about, indent=1, ensure_ascii=False).encode()))
