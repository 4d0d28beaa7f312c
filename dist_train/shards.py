"""A folder of WebDataset tars and its index -> a ShardSet: where each sample lies, its label, its length.

Comes in: the folder. Goes out: memory-mapped rows, so opening ten million of them reads nothing but index.json and
each tar's size; threads and ranks share one copy in the page cache.
"""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import intact
from dist_train.archive.index import REINDEX, find
from dist_train.archive.info import match_shards, read_info
from dist_train.archive.row import (
    ACTIVITY,
    BYTES,
    CODECS,
    INDEX,
    KEY_ENDS,
    KEYS,
    LABEL_ENDS,
    LABEL_IDS,
    OLD_ROW,
    ROW,
    ROWS,
    SEGMENTS,
    SPLITS,
)
from dist_train.archive.scan import Progress
from dist_train.stores import indexing
from dist_train.stores.bucket import remote as far
from dist_train.stores.remote import PATIENCE, fetch

__all__ = ["BYTES", "CODECS", "ROW", "SEGMENTS", "SPLITS", "ShardSet", "build", "find", "open_set"]


@dataclass(frozen=True, eq=False)
class ShardSet:
    """One folder of shards, or their address. `rows` is (N,) of ROW, `activity` (N, 16) uint8; read-only maps."""

    root: Path | str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    rows: NDArray[np.void] = field(repr=False)
    activity: NDArray[np.uint8] = field(repr=False)
    fingerprint: str
    info: dict[str, Any] = field(repr=False)
    key_ends: NDArray[np.uint64] = field(repr=False)
    keys: NDArray[np.uint8] = field(repr=False)
    label_ends: NDArray[np.uint64] | None = field(repr=False, default=None)
    label_ids: NDArray[np.int32] | None = field(repr=False, default=None)
    times: tuple[int, ...] = field(repr=False, default=())  # when local shards were last changed, ns; () for others

    def __len__(self) -> int:
        return len(self.rows)

    def file(self, name: str) -> Path | str:
        """Where a shard lies: a path, or an address."""
        return self.root / name if isinstance(self.root, Path) else f"{self.root}/{name}"

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(shards,) bytes of each shard, as the index says."""
        return np.array([shard["bytes"] for shard in self.info["shards"]], np.int64)

    def key(self, row: int) -> str:
        """The sample's key as WebDataset has it: the member's path up to the first dot of its base name."""
        start, end = int(self.key_ends[row]), int(self.key_ends[row + 1])
        return self.keys[start:end].tobytes().decode("utf-8", "surrogateescape")

    def labels(self, row: int) -> NDArray[np.int32]:
        """All class numbers of a sample, the first being the row's `label`."""
        if self.label_ends is None or self.label_ids is None:
            return np.array([self.rows["label"][row]], np.int32)
        return np.asarray(self.label_ids[int(self.label_ends[row]) : int(self.label_ends[row + 1])])


def build(path: str | Path, workers: int | None = None, progress: Progress | None = None) -> ShardSet:
    """Index the tars of a folder and open them; `index.assemble` says what is refused (ValueError)."""
    indexing.build(path, workers, progress)
    return open_set(path)


def open_set(path: str | Path, patience: float = PATIENCE, keep: Path | None = None) -> ShardSet:
    """Open an indexed folder of shards, or an address of one (or its index.json); of a tar only the size is looked at.

    patience, keep: of an address, see `remote`. ValueError: no shards there, no index, an index of another format
    version or of other shards, a damaged index. Unreachable: the store is down.
    """
    root: Path | str
    times: tuple[int, ...] = ()
    if far(path):
        root, folder, info = fetch(str(path), patience, keep)
    else:
        root, names = find(path)
        folder, info = root, read_info(root)
        sizes, changed = dict[str, int](), dict[str, int]()
        for name in names:  # a hundred thousand states would be kept by the allocator long after
            state = os.stat(root / name)
            sizes[name], changed[name] = state.st_size, state.st_mtime_ns
        match_shards(root, sizes, info)
        times = tuple(changed[shard["name"]] for shard in info["shards"])
    count, counted = info["totals"]["samples"], sum(shard["samples"] for shard in info["shards"])
    if count != counted:
        raise ValueError(f"{root}/{INDEX}: {count} samples in all, {counted} in its shards: {REINDEX.format(root)}")
    one = replace(map_set(root, folder, info), times=times)
    intact.refuse_files(root, folder, info)
    return one


def map_set(root: Path | str, folder: Path, info: dict[str, Any]) -> ShardSet:
    """The set of an index.json in `folder`, whatever tars are there; ValueError where a side file is absent or does not
    fit."""
    count = info["totals"]["samples"]
    multi = LABEL_ENDS in info["files"]
    return ShardSet(
        root=root,
        names=tuple(shard["name"] for shard in info["shards"]),
        classes=tuple(info["classes"]),
        rows=load(folder / ROWS, ROW, (count,)),
        activity=load(folder / ACTIVITY, np.dtype(np.uint8), (count, SEGMENTS)),
        fingerprint=info["fingerprint"],
        info=info,
        key_ends=load(folder / KEY_ENDS, np.dtype("<u8"), (count + 1,)),
        keys=load_bytes(folder / KEYS, info["files"][KEYS]["bytes"]),
        label_ends=load(folder / LABEL_ENDS, np.dtype("<u8"), (count + 1,)) if multi else None,
        label_ids=load(folder / LABEL_IDS, np.dtype("<i4"), (None,)) if multi else None,
    )


def load(path: Path, dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """A side file as a read-only memory map; ValueError unless it is as index.json says (None: any length)."""
    try:
        array: NDArray[Any] | None = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # a damaged header, which is a Python literal, raises a dozen kinds
        array = None
    if array is not None and dtype == ROW and array.dtype == OLD_ROW:
        array = array.view(ROW)
    if array is None or array.dtype != dtype or not _fits(array.shape, shape):
        raise ValueError(f"{path}: absent, or does not fit {INDEX}: {REINDEX.format(path.parent)}")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, have) for have, want in zip(shape, wanted, strict=True))


def load_bytes(path: Path, size: int) -> NDArray[np.uint8]:
    """A file of `size` bytes as a read-only memory map."""
    if not path.is_file() or path.stat().st_size != size:
        raise ValueError(f"{path}: absent, or does not fit {INDEX}: {REINDEX.format(path.parent)}")
    return np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
