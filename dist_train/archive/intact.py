"""Whether an index is as it was written, as far as can be told without reading all of it.

at opening   index.json has its parts, each of its kind; files up to SMALL, and labels, have their checksum
at use       a row carries a checksum of itself, and lies inside its shard; labels are among the classes
`check`      everything

Reading a hundred million rows to open them would take each rank seconds, so many rows are verified one by one. What is
left to `check` in a large set: keys, which only messages tell, and activity, which only moves a crop.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dist_train.archive.row import ACTIVITY, INDEX, KEY_ENDS, KEYS, LABEL_ENDS, LABEL_IDS, ROW, ROWS
from dist_train.order import mix64

REINDEX = "python tools/make_shards.py index {}"
SMALL = 1 << 24  # bytes: 20 ms to verify
SHA256 = re.compile("[0-9a-f]{64}")
MOST = 1 << 62

SEALED = "sealed"  # in index.json: every row has its checksum, so none is a row of zeros

Rows = NDArray[np.void]


class Set(Protocol):
    """What is asked of a ShardSet."""

    @property
    def root(self) -> Path | str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def sizes(self) -> NDArray[np.int64]: ...
    @property
    def info(self) -> dict[str, Any]: ...


def seal(rows: Rows) -> None:
    """Give each row its checksum, in the first four reserved bytes; 0 there: none, in indexes that are not SEALED."""
    rows["reserved"][:, :4] = checksums(rows).view(np.uint8).reshape(-1, 4)


def unsealed(rows: Rows) -> Rows:
    """The rows without their checksums, as fingerprints know them."""
    plain = np.array(rows)
    plain["reserved"][:, :4] = 0
    return plain


def checksums(rows: Rows) -> NDArray[np.uint32]:
    """(n,) of (n,) ROW: odd, so never 0; of all fields but `reserved`."""
    words = np.ascontiguousarray(rows).view("<u8").reshape(-1, ROW.itemsize // 8)
    mixed = np.zeros(len(words), np.uint64)
    for column in range(words.shape[1]):
        word = words[:, column] & np.uint64(0xFFFF) if column == words.shape[1] - 1 else words[:, column]
        mixed = mix64(mixed ^ word)
    return (mixed >> np.uint64(32)).astype("<u4") | np.uint32(1)


def refuse_rows(one: Set, rows: Rows, numbers: NDArray[np.int64]) -> None:
    """ValueError where rows (n,) of ROW, `numbers` of a set's index, are not as they were written or cannot be."""
    root, sizes, classes = one.root, one.sizes, len(one.classes)
    said = np.ascontiguousarray(rows["reserved"][:, :4]).view("<u4")[:, 0]
    wrong = said != checksums(rows)
    if SEALED not in one.info:
        wrong &= said != 0
    wrong |= (rows["shard"] >= len(sizes)) | (rows["label"] < 0) | (rows["label"] >= classes)
    room = sizes[np.minimum(rows["shard"], len(sizes) - 1)].astype(np.uint64)
    wrong |= (rows["offset"] > room) | (rows["size"] > room - np.minimum(rows["offset"], room))
    wrong |= (rows["size"] > 0) & ((rows["rate"] == 0) | (rows["channels"] == 0))
    if wrong.any():
        raise ValueError(f"{root}/{ROWS}: row {numbers[wrong.argmax()]} is damaged: {REINDEX.format(root)}")


def refuse_spans(root: Path | str, start: NDArray[np.int64], end: NDArray[np.int64], count: int) -> None:
    """ValueError where the labels [start, end) of samples do not lie in a file of `count`."""
    if len(start) and ((start < 0) | (start >= end) | (end > count)).any():
        raise ValueError(f"{root}/{LABEL_ENDS}: is damaged: {REINDEX.format(root)}")


def refuse_labels(root: Path | str, labels: NDArray[np.int32], classes: int) -> None:
    """ValueError where class numbers are none."""
    if ((labels < 0) | (labels >= classes)).any():
        raise ValueError(f"{root}/{LABEL_IDS}: is damaged: {REINDEX.format(root)}")


def refuse_files(root: Path | str, folder: Path, info: dict[str, Any]) -> None:
    """ValueError where a file of the index, of labels or up to SMALL, has not the checksum that index.json says."""
    for name, said in info["files"].items():
        with (folder / name).open("rb") as file:
            if name not in (LABEL_ENDS, LABEL_IDS) and os.fstat(file.fileno()).st_size > SMALL:
                continue
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != said["sha256"]:
            raise ValueError(f"{root}/{name}: its bytes are not those that were written: {REINDEX.format(root)}")


def refuse_info(root: Path | str, info: dict[str, Any]) -> None:
    """ValueError where index.json has a part that is not of its kind."""
    checks = (
        (
            "shards",
            _list(info["shards"], _shard) and len({one["name"] for one in info["shards"]}) == len(info["shards"]),
        ),
        ("classes", _list(info["classes"], _text) and 0 < len(info["classes"]) == len(set(info["classes"]))),
        ("totals", isinstance(info["totals"], dict) and _count(info["totals"].get("samples"))),
        ("files", isinstance(info["files"], dict) and _files(info["files"])),
        ("fingerprint", _checksum(info["fingerprint"])),
        ("features", _features(info.get("features"))),
    )
    for name, right in checks:
        if not right:
            raise ValueError(f"{root}/{INDEX}: `{name}` is damaged: {REINDEX.format(root)}")


def _list(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(map(kind, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _checksum(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set("/\\\0") & set(value)


def _shard(value: Any) -> bool:
    known = isinstance(value, dict) and _name(value.get("name")) and _checksum(value.get("sha256"))
    return known and _count(value.get("bytes")) and _count(value.get("samples"))


def _files(value: dict[str, Any]) -> bool:
    labels = (LABEL_ENDS in value) == (LABEL_IDS in value)
    return labels and {ROWS, ACTIVITY, KEY_ENDS, KEYS} <= value.keys() and all(_file(*pair) for pair in value.items())


def _file(name: Any, value: Any) -> bool:
    return _name(name) and isinstance(value, dict) and _count(value.get("bytes")) and _checksum(value.get("sha256"))


def _features(value: Any) -> bool:
    if value is None:
        return True
    numbers: Sequence[Any] = (
        [value.get(name) for name in ("bins", "channels", "rate")] if isinstance(value, dict) else [0]
    )
    return all(_count(number) and number > 0 for number in numbers)
