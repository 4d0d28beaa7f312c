"""Indexed shard sets and choices -> a View: the samples of a run, numbered 0 ... N-1 in the order of their shards.

    view id -> place among the chosen rows -> row of the joined sets -> (set, row of its index)

Sets are joined by class name. Where everything is chosen no step holds an array, so ten million rows cost nothing;
with balance=class a row repeated k times takes k view ids side by side, found by bisection, never written out.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.row import ROW, SEGMENTS, SPLITS
from dist_train.shards import ShardSet

VIEW_ROW = np.dtype([("file", "<i4") if name == "shard" else (name, ROW[name]) for name in ROW.names or ()])
"""ROW with `file` (number in View.files) in the place of `shard`; `label` is a number in View.classes."""

Ids = NDArray[np.int64]
_ROWS = 2**16  # looked through at once


@dataclass(frozen=True, eq=False)
class View:
    """files: the shards of all sets, paths or addresses; sizes: (shards with samples,) samples of the view in each, in
    view-id order; digest: sha256 of what was chosen from what; left_out: samples shorter than min_seconds."""

    sets: tuple[ShardSet, ...]
    classes: tuple[str, ...]
    files: tuple[Path | str, ...]
    sizes: Ids
    digest: str
    left_out: int
    starts: Ids = field(repr=False)  # (sets + 1,) first row of each set among the joined rows
    class_maps: tuple[NDArray[np.int32], ...] = field(repr=False)  # per set: its class number -> the view's
    picked: Ids | None = field(repr=False, default=None)  # joined rows that are chosen; None: all
    ends: Ids | None = field(repr=False, default=None)  # view id behind each chosen row's last repeat; None: once each

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @property
    def bytes(self) -> tuple[int, ...]:
        """(files,) size of each, as its index says."""
        return tuple(shard["bytes"] for one in self.sets for shard in one.info["shards"])

    def rows(self, ids: Ids) -> NDArray[np.void]:
        """(n,) of VIEW_ROW for (n,) view ids."""
        out = np.empty(len(ids), VIEW_ROW)
        first_file = 0
        for number, (here, rows) in enumerate(self._by_set(ids)):
            one = self.sets[number]
            part = np.asarray(one.rows[rows]).view(VIEW_ROW)
            part["file"] += first_file
            part["label"] = self.class_maps[number][part["label"]]
            out[here] = part
            first_file += len(one.names)
        return out

    def labels(self, ids: Ids) -> NDArray[np.int32]:
        """Class numbers of all labels of (n,) samples, set by set."""
        parts = enumerate(self._by_set(ids))
        return np.concatenate([self.class_maps[one][row_labels(self.sets[one], rows)[1]] for one, (_, rows) in parts])

    def targets(self, ids: Ids) -> NDArray[np.uint8]:
        """(n, classes) 1 where a sample has a label."""
        out = np.zeros((len(ids), len(self.classes)), np.uint8)
        for number, (here, rows) in enumerate(self._by_set(ids)):
            place, label = row_labels(self.sets[number], rows)
            out[np.arange(len(ids))[here][place], self.class_maps[number][label]] = 1
        return out

    @property
    def several(self) -> str | None:
        """The key of the first sample with more than one label, None where each has one."""
        for start in range(0, len(self) if any(one.label_ends is not None for one in self.sets) else 0, _ROWS):
            ids = np.arange(start, min(start + _ROWS, len(self)))
            for number, (here, rows) in enumerate(self._by_set(ids)):
                many = np.bincount(row_labels(self.sets[number], rows)[0], minlength=len(rows)) > 1
                if many.any():
                    return self.key(int(ids[here][many.argmax()]))
        return None

    def counts(self) -> Ids:
        """(classes,) samples that have each label, as often as the view has them."""
        total = np.zeros(len(self.classes), np.int64)
        for start in range(0, len(self), _ROWS):
            total += np.bincount(self.labels(np.arange(start, min(start + _ROWS, len(self)))), minlength=len(total))
        return total

    def activity(self, ids: Ids) -> NDArray[np.uint8]:
        """(n, 16) level of sixteen equal parts of each clip."""
        out = np.empty((len(ids), SEGMENTS), np.uint8)
        for number, (here, rows) in enumerate(self._by_set(ids)):
            out[here] = self.sets[number].activity[rows]
        return out

    def key(self, view_id: int) -> str:
        """The sample's key in its shard."""
        joined = self._joined(np.array([view_id]))[0]
        number = int(np.searchsorted(self.starts, joined, "right")) - 1
        return self.sets[number].key(int(joined - self.starts[number]))

    def _joined(self, ids: Ids) -> Ids:
        places = ids if self.ends is None else np.searchsorted(self.ends, ids, "right")
        return places if self.picked is None else self.picked[places]

    def _by_set(self, ids: Ids) -> Iterable[tuple[NDArray[np.bool_] | slice, Ids]]:
        """For each set: which of the ids lie in it, and their rows in its index."""
        joined = self._joined(np.asarray(ids, np.int64))
        if len(self.sets) == 1:
            return [(slice(None), joined)]
        inside = [(joined >= start) & (joined < end) for start, end in zip(self.starts, self.starts[1:], strict=False)]
        return [(here, joined[here] - start) for here, start in zip(inside, self.starts, strict=False)]


def row_labels(one: ShardSet, rows: Ids) -> tuple[Ids, NDArray[np.int32]]:
    """All labels (m,) of (n,) rows of a set, by its own class numbers, and whose each is: a place in `rows`."""
    if one.label_ends is None or one.label_ids is None:
        return np.arange(len(rows)), one.rows["label"][rows]
    start, end = one.label_ends[rows].astype(np.int64), one.label_ends[rows + 1].astype(np.int64)
    place = np.repeat(np.arange(len(rows)), end - start)
    within = np.arange(len(place)) - np.repeat(np.cumsum(end - start) - (end - start), end - start)
    return place, one.label_ids[start[place] + within]


def choose(
    sets: Sequence[ShardSet],
    *,
    folds: Collection[int] | None = None,
    without_folds: Collection[int] | None = None,
    split: str | None = None,
    without_splits: Collection[str] = (),
    min_seconds: float = 0.0,
    balance: str = "none",
    classes: Sequence[str] | None = None,
) -> View:
    """The view of the samples in `folds` and `split`, not in `without_*`, of `min_seconds` at least.

    balance=class: each row is there max(1, round(n_max / n_class)) times, by the rarest of its labels. classes: the
    training's; without them the sets' names in the order they first appear. ValueError: a choice that is not there or
    leaves nothing, or a chosen sample whose class is not in `classes`.
    """
    assert balance in ("none", "class") and sets, "the settings allow no other"
    names = tuple(dict.fromkeys(name for one in sets for name in one.classes)) if classes is None else tuple(classes)
    choices = {
        "folds": None if folds is None else sorted(set(folds)),
        "without_folds": sorted(set(without_folds or ())),
        "split": split,
        "without_splits": sorted(set(without_splits)),
        "min_seconds": float(min_seconds),
        "balance": balance,
        "classes": names,
    }
    starts = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    picked, left_out = _pick(sets, choices)
    if not (starts[-1] if picked is None else len(picked)):
        raise ValueError(f"{_roots(sets)}: no samples left of {starts[-1]} by {_said(choices)}: widen the choice")
    class_maps = _class_maps(sets, names, starts, picked)
    ends = np.cumsum(_repeats(sets, class_maps, picked, len(names))) if balance == "class" else None
    view_of = [one.fingerprint for one in sets], choices
    return View(
        sets=tuple(sets),
        classes=names,
        files=tuple(one.file(name) for one in sets for name in one.names),
        sizes=_sizes(sets, starts, picked, ends),
        digest=hashlib.sha256(json.dumps(view_of, sort_keys=True).encode()).hexdigest(),
        left_out=left_out,
        starts=starts,
        class_maps=class_maps,
        picked=picked,
        ends=ends,
    )


def _pick(sets: Sequence[ShardSet], choices: dict[str, Any]) -> tuple[Ids | None, int]:
    """The joined rows that are chosen (None: all), and how many min_seconds left out; unasked, no row is looked at."""
    asked_for = ("without_folds", "split", "without_splits", "min_seconds")
    if choices["folds"] is None and not any(choices[name] for name in asked_for):
        return None, 0
    if choices["folds"]:
        _check_folds(sets, choices["folds"])
    asked = [_asked(one.rows, choices) for one in sets]
    long = [one.rows["frames"] >= choices["min_seconds"] * one.rows["rate"] for one in sets]
    picked = np.flatnonzero(np.concatenate(asked) & np.concatenate(long))
    left_out = sum(int(mask.sum()) for mask in asked) - len(picked)
    return (None if len(picked) == sum(map(len, sets)) else picked), left_out


def _asked(rows: NDArray[np.void], choices: dict[str, Any]) -> NDArray[np.bool_]:
    """Which rows of a set the folds and splits ask for."""
    mask = np.ones(len(rows), np.bool_)
    if choices["folds"] is not None:
        mask &= np.isin(rows["fold"], choices["folds"])
    if choices["without_folds"]:
        mask &= ~np.isin(rows["fold"], choices["without_folds"])
    if choices["split"] is not None:
        mask &= rows["split"] == _split(choices["split"])
    if choices["without_splits"]:
        mask &= ~np.isin(rows["split"], [_split(name) for name in choices["without_splits"]])
    return mask


def _check_folds(sets: Sequence[ShardSet], folds: Sequence[int]) -> None:
    there = {int(fold) for one in sets for fold in np.unique(one.rows["fold"])}
    if missing := sorted(set(folds) - there):
        have = ", ".join(str(fold) for fold in sorted(there) if fold >= 0) or "none"
        raise ValueError(f"{_roots(sets)}: no sample is in fold {missing[0]}; the folds there: {have}")


def _split(name: str) -> int:
    if name not in SPLITS:
        raise ValueError(f"split {name!r}: there are {', '.join(SPLITS)}")
    return SPLITS[name]


def _class_maps(
    sets: Sequence[ShardSet], names: Sequence[str], starts: Ids, picked: Ids | None
) -> tuple[NDArray[np.int32], ...]:
    """Per set (classes of the set,): their numbers in `names`; -1 for one that is not there and no chosen row has."""
    number = {name: index for index, name in enumerate(names)}
    maps = []
    for one, start in zip(sets, starts, strict=False):
        mapped = np.array([number.get(name, -1) for name in one.classes], np.int32)
        if (mapped < 0).any():
            used = np.bincount(row_labels(one, _own(one, start, picked))[1], minlength=len(mapped)) > 0
            if len(strange := np.flatnonzero(used & (mapped < 0))):
                text = f"class {one.classes[strange[0]]!r} is not among the {len(names)} classes of the training shards"
                raise ValueError(f"{one.root}: {text}: take its samples out, or train with it")
        maps.append(mapped)
    return tuple(maps)


def _repeats(
    sets: Sequence[ShardSet], class_maps: Sequence[NDArray[np.int32]], picked: Ids | None, classes: int
) -> NDArray[np.int64]:
    """How often each chosen row is in a balanced view."""
    starts = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    places, found = [], []
    first = 0
    for one, mapped, start in zip(sets, class_maps, starts, strict=False):
        rows = _own(one, start, picked)
        place, label = row_labels(one, rows)
        places.append(place + first)
        found.append(mapped[label])
        first += len(rows)
    label = np.concatenate(found)
    count = np.bincount(label, minlength=classes)
    times = np.maximum(1, np.rint(count.max() / np.maximum(count, 1))).astype(np.int64)
    repeats = np.ones(first, np.int64)
    np.maximum.at(repeats, np.concatenate(places), times[label])
    return repeats


def _own(one: ShardSet, start: int, picked: Ids | None) -> Ids:
    """The chosen rows of a set whose first joined row is `start`."""
    if picked is None:
        return np.arange(len(one))
    return picked[(picked >= start) & (picked < start + len(one))] - start


def _sizes(sets: Sequence[ShardSet], starts: Ids, picked: Ids | None, ends: Ids | None) -> Ids:
    """Samples of the view in each shard that has any."""
    samples = [shard["samples"] for one in sets for shard in one.info["shards"]]
    bounds = np.cumsum([0, *samples], dtype=np.int64)
    assert bounds[-1] == starts[-1], "open_set compares the counts"
    places = bounds if picked is None else np.searchsorted(picked, bounds)
    sizes = np.diff(places if ends is None else np.concatenate([[0], ends])[places])
    return np.asarray(sizes[sizes > 0])


def _roots(sets: Sequence[ShardSet]) -> str:
    return ", ".join(str(one.root) for one in sets)


def _said(choices: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in choices.items() if name != "classes" and value)
