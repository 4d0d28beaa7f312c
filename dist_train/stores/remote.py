"""An address of shards -> their index in a local folder, fetched once a host however many ranks and jobs open it.

    KEEP/index/ADDRESS.json   which version of index.json was seen there, and when its shards were compared
    KEEP/index/DIGEST/        the index files of one version, each with the checksum that index.json says

KEEP is data.cache_dir, else the user's cache folder. Old versions may be deleted at any time.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dist_train.archive.index import REINDEX
from dist_train.archive.info import match_shards, parse
from dist_train.archive.row import ACTIVITY, INDEX, KEY_ENDS, KEYS, LABEL_ENDS, LABEL_IDS, ROWS
from dist_train.clouds import spoken
from dist_train.stores.bucket import Bucket

PATIENCE = 120.0  # seconds that a store may be down, for commands without a configuration
WAIT = 1800.0  # seconds that another process may take to fetch an index
RECENT = 60.0  # seconds; ranks of one start do not list the shards again
SIDE = {ROWS, ACTIVITY, KEY_ENDS, KEYS, LABEL_ENDS, LABEL_IDS}


def fetch(address: str, patience: float, keep: Path | None) -> tuple[str, Path, dict[str, Any]]:
    """The shards' address, the folder with their index, what index.json says.

    ValueError: no index there, a damaged one, or other shards than it says. Unreachable: the store is down.
    """
    root = address.rstrip("/")
    root = root.removesuffix(f"/{INDEX}") if root.endswith(f"/{INDEX}") else root
    home = (keep or cache()) / "index"
    note = home / f"{hashlib.sha256(root.encode()).hexdigest()[:32]}.json"
    bucket = Bucket(root, patience)
    _writable(home)
    try:
        with FileLock(note.with_suffix(".lock"), timeout=WAIT):
            return root, *_fetch(bucket, home, note)
    except Timeout:
        raise ValueError(f"{note.with_suffix('.lock')}: held for {WAIT:g} s by another process: end that one") from None
    except FileNotFoundError as error:
        if error.errno is not None:
            raise ValueError(f"{home}: was removed while an index was fetched: start again") from None
        raise ValueError(f"{spoken(root)}: no shards with an index there: {REINDEX.format(spoken(root))}") from None
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno is None:  # the store's
            raise ValueError(str(error)) from None
        raise ValueError(f"{home}: {error.strerror}: set data.cache_dir or XDG_CACHE_HOME") from None


def _writable(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{home}: {error.strerror}: set data.cache_dir or XDG_CACHE_HOME") from None


def cache() -> Path:
    """The folder of this user for what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dist_train"


def _fetch(bucket: Bucket, home: Path, note: Path) -> tuple[Path, dict[str, Any]]:
    seen = _seen(note)
    version = bucket.version(INDEX)
    folder = home / str(seen.get("digest"))
    if version and version == seen.get("version") and (folder / INDEX).is_file():
        raw = (folder / INDEX).read_bytes()
    else:
        raw, seen = bucket.read(INDEX), {}
        folder = home / hashlib.sha256(raw).hexdigest()[:32]
    info = parse(raw, bucket.said)
    if not _whole(folder, info):
        folder.mkdir(exist_ok=True)
        for name, said in info["files"].items():
            _side(bucket, name, said["sha256"], folder)
        _place(folder / INDEX, lambda part: part.write_bytes(raw))
    if time.time() - seen.get("compared", 0) > RECENT:
        _compare(bucket, info)
        seen = {"version": version, "digest": folder.name, "compared": time.time(), "address": bucket.said}
        _place(note, lambda part: part.write_text(json.dumps(seen)))
    return folder, info


def _seen(note: Path) -> dict[str, Any]:
    try:
        seen = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _whole(folder: Path, info: dict[str, Any]) -> bool:
    """The folder has the index, and side files of the bytes that it says."""
    paths = {folder / name: said["bytes"] for name, said in info["files"].items()}
    return (folder / INDEX).is_file() and all(path.is_file() and path.stat().st_size == paths[path] for path in paths)


def _side(bucket: Bucket, name: str, sha256: str, folder: Path) -> None:
    """One index file. ValueError where it is not the one that index.json means."""
    if name not in SIDE:
        raise ValueError(f"{bucket.said}/{INDEX}: names a file {name!r}: {REINDEX.format(bucket.said)}")

    def load(part: Path) -> None:
        try:
            bucket.download(name, part)
        except FileNotFoundError:
            raise ValueError(f"{bucket.said}/{name}: is not there: {REINDEX.format(bucket.said)}") from None
        with part.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise ValueError(f"{bucket.said}/{name}: does not fit {INDEX}: {REINDEX.format(bucket.said)}")

    _place(folder / name, load)


def _place(path: Path, write: Callable[[Path], object]) -> None:
    """All of a file or nothing of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _compare(bucket: Bucket, info: dict[str, Any]) -> None:
    """The shards in the store are the index's, where the store lists them; else each is compared when it is read."""
    if bucket.address.lower().startswith("http"):
        return
    try:
        found = bucket.sizes()
    except PermissionError:  # credentials that may read and not list
        return
    match_shards(bucket.said, {name: size for name, size in found.items() if _shard(name)}, info)


def _shard(name: str) -> bool:
    return name.endswith(".tar") and "/" not in name and not name.startswith(".")
