"""index.json -> what it says, checked; and the shards that it names held against those that are there."""

import json
from pathlib import Path
from typing import Any

from dist_train.archive import intact
from dist_train.archive.index import REINDEX
from dist_train.archive.row import INDEX, VERSION


def read_info(root: Path) -> dict[str, Any]:
    """index.json of a folder; ValueError where it is absent, broken, or of another format version."""
    try:
        raw = (root / INDEX).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{root}: the shards have no index: {REINDEX.format(root)}") from None
    return parse(raw, root)


def parse(raw: bytes, root: Path | str) -> dict[str, Any]:
    """The bytes of the index.json of `root`, a folder or an address."""
    path = f"{root}/{INDEX}"
    try:
        info: Any = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON: {REINDEX.format(root)}") from None
    if not isinstance(info, dict) or info.get("version") != VERSION:
        found = info.get("version") if isinstance(info, dict) else None
        raise ValueError(f"{path}: index format {found!r}, this program reads {VERSION}: {REINDEX.format(root)}")
    if missing := {"shards", "classes", "totals", "fingerprint", "files"} - info.keys():
        raise ValueError(f"{path}: no {', '.join(sorted(missing))} in it: {REINDEX.format(root)}")
    intact.refuse_info(root, info)
    return info


def match_shards(root: Path | str, there: dict[str, int], info: dict[str, Any]) -> None:
    """ValueError unless `there`, bytes by name, are the index's shards, all of them and no other."""
    said = {shard["name"]: shard["bytes"] for shard in info["shards"]}
    medium = "on disk" if isinstance(root, Path) else "in the store"
    for name, size in said.items():
        if name not in there:
            raise ValueError(f"{root}/{name}: in the index but not {medium}: restore it, or {REINDEX.format(root)}")
        if there[name] != size:
            text = f"{there[name]} bytes, the index says {size}"
            raise ValueError(f"{root}/{name}: {text}: restore it, or {REINDEX.format(root)}")
    if extra := there.keys() - said.keys():
        raise ValueError(f"{root}/{min(extra)}: not in the index: {REINDEX.format(root)}")
