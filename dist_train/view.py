"""Indexed shard sets and choices -> a View: the samples of a run, numbered 0 ... N-1 in the order of their shards.

    view id -> place among the chosen rows -> row of the joined sets -> (set, row of its index)

Sets are joined by class name. Where everything is chosen no step holds an array, so ten million rows cost nothing;
with balance=class a row repeated k times takes k view ids side by side, found by bisection, never written out.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import intact
from dist_train.archive.row import ROW, SEGMENTS
from dist_train.choice import PASS, pick, roots, said
from dist_train.shards import ShardSet
from dist_train.subset import Repeats, Subset

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
    picked: Subset | None = field(repr=False, default=None)  # joined rows that are chosen; None: all
    repeats: Repeats | None = field(repr=False, default=None)  # of the chosen rows; None: once each

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @property
    def bytes(self) -> tuple[int, ...]:
        """(files,) size of each, as its index says."""
        return tuple(shard["bytes"] for one in self.sets for shard in one.info["shards"])

    @property
    def times(self) -> tuple[int, ...]:
        """(files,) when each was last changed as its set was opened, ns; 0 where that is not known."""
        return tuple(time for one in self.sets for time in one.times or (0,) * len(one.names))

    def rows(self, ids: Ids) -> NDArray[np.void]:
        """(n,) of VIEW_ROW for (n,) view ids."""
        out = np.empty(len(ids), VIEW_ROW)
        first_file = 0
        for number, (here, rows) in enumerate(self._by_set(ids)):
            one = self.sets[number]
            plain = np.asarray(one.rows[rows])
            intact.refuse_rows(one, plain, rows)
            part = plain.view(VIEW_ROW)
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
        places = ids if self.repeats is None else self.repeats.places(ids)
        return places if self.picked is None else self.picked.rows(places)

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
        labels = one.rows["label"][rows]
        intact.refuse_labels(one.root, labels, len(one.classes))
        return np.arange(len(rows)), labels
    start, end = one.label_ends[rows].astype(np.int64), one.label_ends[rows + 1].astype(np.int64)
    intact.refuse_spans(one.root, start, end, len(one.label_ids))
    place = np.repeat(np.arange(len(rows)), end - start)
    within = np.arange(len(place)) - np.repeat(np.cumsum(end - start) - (end - start), end - start)
    labels = one.label_ids[start[place] + within]
    intact.refuse_labels(one.root, labels, len(one.classes))
    return place, labels


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
    picked, left_out = pick(sets, starts, choices)
    if not (starts[-1] if picked is None else len(picked)):
        raise ValueError(f"{roots(sets)}: no samples left of {starts[-1]} by {said(choices)}: widen the choice")
    class_maps = _class_maps(sets, names, starts, picked)
    repeats = _repeats(sets, class_maps, starts, picked, len(names)) if balance == "class" else None
    view_of = [one.fingerprint for one in sets], choices
    return View(
        sets=tuple(sets),
        classes=names,
        files=tuple(one.file(name) for one in sets for name in one.names),
        sizes=_sizes(sets, starts, picked, repeats),
        digest=hashlib.sha256(json.dumps(view_of, sort_keys=True).encode()).hexdigest(),
        left_out=left_out,
        starts=starts,
        class_maps=class_maps,
        picked=picked,
        repeats=repeats,
    )


def _class_maps(
    sets: Sequence[ShardSet], names: Sequence[str], starts: Ids, picked: Subset | None
) -> tuple[NDArray[np.int32], ...]:
    """Per set (classes of the set,): their numbers in `names`; -1 for one that is not there and no chosen row has."""
    number = {name: index for index, name in enumerate(names)}
    maps = []
    for one, start in zip(sets, starts.tolist(), strict=False):
        mapped = np.array([number.get(name, -1) for name in one.classes], np.int32)
        if (mapped < 0).any():
            used = np.zeros(len(mapped), np.bool_)
            for rows in _own(one, start, picked):
                used[row_labels(one, rows)[1]] = True
            if len(strange := np.flatnonzero(used & (mapped < 0))):
                text = f"class {one.classes[strange[0]]!r} is not among the {len(names)} classes of the training shards"
                raise ValueError(f"{one.root}: {text}: take its samples out, or train with it")
        maps.append(mapped)
    return tuple(maps)


def _repeats(
    sets: Sequence[ShardSet],
    class_maps: Sequence[NDArray[np.int32]],
    starts: Ids,
    picked: Subset | None,
    classes: int,
) -> Repeats:
    """How often each chosen row is in a balanced view."""
    count = np.zeros(classes, np.int64)
    for one, mapped, start in zip(sets, class_maps, starts.tolist(), strict=False):
        for rows in _own(one, start, picked):
            count += np.bincount(mapped[row_labels(one, rows)[1]], minlength=classes)
    times = np.maximum(1, np.rint(count.max() / np.maximum(count, 1))).astype(np.int64)

    def of_rows() -> Iterator[Ids]:
        for one, mapped, start in zip(sets, class_maps, starts.tolist(), strict=False):
            for rows in _own(one, start, picked):
                place, label = row_labels(one, rows)
                repeats = np.ones(len(rows), np.int64)
                np.maximum.at(repeats, place, times[mapped[label]])
                yield repeats

    return Repeats(int(starts[-1]) if picked is None else len(picked), of_rows(), int(times[count > 0].max()))


def _own(one: ShardSet, start: int, picked: Subset | None) -> Iterator[Ids]:
    """The chosen rows of a set whose first joined row is `start`, some at a time."""
    for begin in range(0, len(one), PASS):
        end = min(begin + PASS, len(one))
        yield np.arange(begin, end) if picked is None else picked.inside(start + begin, start + end) - start


def _sizes(sets: Sequence[ShardSet], starts: Ids, picked: Subset | None, repeats: Repeats | None) -> Ids:
    """Samples of the view in each shard that has any."""
    samples = [shard["samples"] for one in sets for shard in one.info["shards"]]
    bounds = np.cumsum([0, *samples], dtype=np.int64)
    assert bounds[-1] == starts[-1], "open_set compares the counts"
    places = bounds if picked is None else picked.below(bounds)
    sizes = np.diff(places if repeats is None else repeats.below(places))
    return np.asarray(sizes[sizes > 0])
