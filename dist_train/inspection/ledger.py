"""Shards, or a plain table without audio -> a Ledger: of every sample what can tie it to another, a column each.

Comes in: a folder of indexed shards, or a CSV with the header path,label[,fold][,group][,split][,start][,end] in any
order among other columns; UrbanSound8K's and ESC-50's own tables are known by their headers. Files are not looked for.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import label
from dist_train.archive.row import SPLITS
from dist_train.archive.scan import split_name
from dist_train.archive.tar import Member, walk
from dist_train.clouds import spoken
from dist_train.shards import ShardSet, open_set
from dist_train.sources import samples, tables
from dist_train.stores.bucket import remote

TABLES = {
    "UrbanSound8K": {"path": "slice_file_name", "label": "class", "group": "fsID", "recording": "fsID"},
    "ESC-50": {"path": "filename", "label": "category", "group": "src_file"},
    "": {"path": "path", "label": "label", "group": "group"},
}
"""Kind of table -> its names for what is asked; fold, split, start and end are called so everywhere."""
MAX_RECORD = 1 << 16  # bytes of a sample's JSON

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ledger:
    """N samples. label (N,) of classes (of several labels the first); group, recording, digest (N,) numbers, equal
    where the thing is, -1: none; start, end (N,) seconds in the recording; fold (N,), -1: none; split (N,) of SPLITS.

    name(i) names a sample, group_name(i) its group; `one`: the shards, None for a table.
    """

    source: str
    classes: tuple[str, ...]
    label: Numbers
    group: Numbers
    recording: Numbers
    digest: Numbers
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    fold: Numbers
    split: Numbers
    name: Callable[[int], str] = field(repr=False)
    group_name: Callable[[int], str] = field(repr=False)
    one: ShardSet | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.label)

    def kin(self) -> Numbers:
        """(N,) the group, or where there is none the recording; -1: neither."""
        own = np.where(self.recording >= 0, self.recording + self.group.max(initial=-1) + 1, -1)
        return np.where(self.group >= 0, self.group, own)


def read(path: str | Path, group: str | None = None) -> Ledger:
    """The ledger of a folder of shards, or of a CSV; `group`: its column to take as group. ValueError: neither."""
    if Path(path).suffix.lower() == ".csv":
        return of_table(Path(path), group)
    if group is not None:
        raise ValueError(f"--group {group}: shards have no columns; their groups were settled when they were packed")
    if remote(path):
        raise ValueError(
            f"{spoken(str(path))}: is audited where it lies on a disk: copy or mount the shards, name that"
        )
    return of_shards(open_set(path))


def of_table(path: Path, group: str | None = None) -> Ledger:
    """The samples of a CSV in its order. ValueError for a broken row, naming file and line."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such table")
    there = tables.columns(path)
    known = next((named for named in TABLES.values() if {named["path"], named["label"]} <= set(there)), None)
    if known is None:
        raise ValueError(f"{path} line 1: no column path and label; the header is path,label[,fold][,group][,split]")
    if group is not None and group not in there:
        raise ValueError(f"{path} line 1: no column {group} (--group); there are {', '.join(there)}")
    named = {"recording": known["path"], **known} | ({"group": group} if group else {})
    found = [_row(where, fields, named) for where, fields in tables.rows(path)]
    if not found:
        raise ValueError(f"{path}: has no rows")
    columns = dict(
        zip(("path", "label", "group", "recording", "cut", "fold", "split"), zip(*found, strict=True), strict=True)
    )
    classes = label.order(set(columns["label"]))
    number = {name: index for index, name in enumerate(classes)}
    return Ledger(
        source=str(path),
        classes=tuple(classes),
        label=np.array([number[name] for name in columns["label"]], np.int64),
        group=_codes(columns["group"]),
        recording=_codes(columns["recording"]),
        digest=np.full(len(found), -1, np.int64),
        start=np.array([start or 0.0 for start, _ in columns["cut"]]),
        end=np.array([np.inf if end is None else end for _, end in columns["cut"]]),
        fold=np.array(columns["fold"], np.int64),
        split=np.array(columns["split"], np.int64),
        name=lambda row: _said(columns["path"][row], *columns["cut"][row]),
        group_name=lambda row: str(columns["group"][row]),
    )


def _row(where: str, fields: dict[str, str], named: dict[str, str]) -> tuple[Any, ...]:
    """(path, label, group, recording, cut, fold, split) of a line."""
    path = samples.nfc(fields[named["path"]].strip())
    if not path:
        raise ValueError(f"{where}: the path is empty; name the recording or drop the row")
    first = samples.label(fields[named["label"]].split(";")[0], where)
    group = samples.nfc(fields.get(named.get("group", ""), "").strip())
    fold = samples.fold(fields.get("fold", ""), where)
    split = SPLITS[samples.split(fields.get("split", ""), where) or "none"]
    cut = samples.cut(fields.get("start", ""), fields.get("end", ""), where)
    return path, first, group, fields[named["recording"]].strip(), cut, -1 if fold is None else fold, split


def _said(path: str, start: float | None, end: float | None) -> str:
    """A row's name: two cuts of one file differ."""
    if start is None and end is None:
        return path
    return f"{path} [{start or 0:g} s to {'end' if end is None else f'{end:g} s'}]"


def _codes(texts: Sequence[str]) -> Numbers:
    """A number for each text, -1 for an empty one."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(text, len(seen)) if text else -1 for text in texts], np.int64)


def of_shards(one: ShardSet) -> Ledger:
    """The samples of a set of shards in its order."""
    rows = one.rows
    notes = records(one)
    group = np.unique(rows["group"], return_inverse=True)[1].astype(np.int64)
    sources = [str(note.get("source") or "") for note in notes]
    start = np.array([float(note.get("start") or 0.0) for note in notes])
    end = np.array([float(note.get("end") or np.inf) for note in notes])
    return Ledger(
        source=str(one.root),
        classes=one.classes,
        label=rows["label"].astype(np.int64),
        group=np.where(rows["group"] == 0, -1, group),
        recording=_codes(sources),
        digest=np.unique(rows["digest"], return_inverse=True)[1].astype(np.int64),
        start=start,
        end=np.where(np.isfinite(end), end, start + rows["frames"] / rows["rate"]),
        fold=rows["fold"].astype(np.int64),
        split=rows["split"].astype(np.int64),
        name=one.key,
        group_name=lambda row: str(notes[row].get("group") or f"that of {one.key(row)}"),
        one=one,
    )


def records(one: ShardSet) -> list[dict[str, Any]]:
    """What the JSON member of each sample says; {} where there is none. Only headers and JSON are read of the tars."""
    notes: list[dict[str, Any]] = [{} for _ in range(len(one))]
    counts = np.bincount(one.rows["shard"], minlength=len(one.names))
    ends = np.cumsum(counts).tolist()
    for name, count, end in zip(one.names, counts.tolist(), ends, strict=True):
        place = {one.key(row): row for row in range(end - count, end)}
        with Path(one.file(name)).open("rb") as file:
            for member in walk(file):
                key, suffix = split_name(member.name) or ("", "")
                if suffix == "json" and key in place and isinstance(member, Member) and member.size <= MAX_RECORD:
                    file.seek(member.offset)
                    notes[place[key]] = _record(file.read(member.size))
    return notes


def _record(raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
