"""Shards and their index -> a line for every damage, none where all is sound.

Every tar is read whole and held against the checksum in the index; one that differs is walked member by member, so
that the line names the sample and the byte. One damage hides neither those of other shards nor later ones of its own.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dist_train.archive import index, level, row
from dist_train.archive.info import read_info
from dist_train.archive.scan import Progress, Scan, line, scan
from dist_train.shards import ShardSet, map_set
from dist_train.stores import desk, indexing
from dist_train.stores.bucket import remote
from dist_train.stores.desk import Desk
from dist_train.stores.remote import PATIENCE

RESTORE = "restore the shard, or index the folder anew if it was changed on purpose"
SIDE_FILES = (row.ROWS, row.ACTIVITY, row.KEY_ENDS, row.KEYS, row.LABEL_ENDS, row.LABEL_IDS)
AUDIO_FIELDS = ("digest", "size", "frames", "rate", "channels", "codec")
LABEL_FIELDS = ("fold", "split", "group")


def check(
    path: str | Path, progress: Progress | None = None, workers: int | None = None, patience: float = PATIENCE
) -> list[str]:
    """What is wrong with the shards of a folder or an address and their index, a line each; [] where all is sound.

    Without an index the tars themselves are checked. ValueError: there are no shards at all. PermissionError,
    Unreachable: of a store.
    """
    if not remote(path):
        root, _ = index.find(path)
        return _check(Desk(root, str(root)), progress, workers)
    with desk.opened(path, patience, write=False) as place:
        place.fetch(name for name in SIDE_FILES if name in place.there)
        if not place.tars():
            raise ValueError(f"{place.said}: no .tar in it: {index.PACK.format(place.said)}")
        return [line.replace(str(place.root), place.said) for line in _check(place, progress, workers)]


def _check(place: Desk, progress: Progress | None, workers: int | None) -> list[str]:
    root, names = place.root, list(place.tars())
    classes, skip = index.read_lines(root / row.CLASSES), frozenset(index.read_lines(root / row.SKIP) or ())
    damage, one, expected = _open(place, names, classes)
    rate = index.read_features(root)["rate"]
    job = partial(changed, expected=expected, classes=classes, skip=skip, frame_rate=rate)
    scans = [found for found in indexing.over(place, job, names, workers, progress) if found is not None]
    for found in scans:
        damage += found.damage
        if found.name in expected and one is not None:
            damage += compare(one, found)
        elif found.name in expected and not found.damage:
            damage.append(_differs(found.name))
    return damage + index.twins(scans)


def changed(
    path: Path,
    expected: dict[str, str],
    classes: Sequence[str] | None,
    skip: frozenset[str],
    frame_rate: int = level.FRAME_RATE,
) -> Scan | None:
    """What a tar holds, None where its checksum is the expected one."""
    with path.open("rb") as file:
        if level.checksum(file, 0, path.stat().st_size).hex() == expected.get(path.name):
            return None
    return scan(path, classes, skip, frame_rate)


def compare(one: ShardSet, found: Scan) -> list[str]:
    """How a tar whose checksum is wrong differs from its rows in the index; damage that its scan named is left out."""
    first, end = np.searchsorted(one.rows["shard"], one.names.index(found.name) + np.array([0, 1]))
    rows = {one.key(number): number for number in range(first, end)}
    places = {key: place for place, key in enumerate(found.keys)}
    pairs = [(key, rows[key], places[key]) for key in rows if key in places]
    differing = [(key, place, what) for key, number, place in pairs if (what := _difference(one, number, found, place))]
    lost = [key for key in rows if key not in places and key not in found.named]
    added = [key for key in places if key not in rows]
    if (not pairs and not found.damage) or (len(differing) == len(pairs) > 1):
        return [f"{found.name}: the index was made of another tar of this name: {index.REINDEX.format(one.root)}"]
    damage = [line(found.name, int(found.rows["offset"][place]), key, what, RESTORE) for key, place, what in differing]
    if lost:
        damage.append(f"{found.name}: {len(lost)} samples of the index are not in it, the first {lost[0]!r}: {RESTORE}")
    if added:
        damage.append(f"{found.name}: {len(added)} samples are not in the index, the first {added[0]!r}: {RESTORE}")
    return damage or ([] if found.damage else [_differs(found.name)])


def _open(
    place: Desk, names: Sequence[str], classes: Sequence[str] | None
) -> tuple[list[str], ShardSet | None, dict[str, str]]:
    """The index's own damage, the index unless it cannot be read, and the checksum that it has of each tar."""
    root, again = place.root, index.REINDEX.format(place.root)
    try:
        info = read_info(root)
    except ValueError as error:
        return [str(error)], None, {}
    expected = {shard["name"]: shard["sha256"] for shard in info["shards"]}
    where = "on disk" if place.bucket is None else "in the store"
    damage = [f"{name}: in the index but not {where}: restore it, or {again}" for name in expected if name not in names]
    damage += [f"{name}: not in the index: {again}" for name in names if name not in expected]
    if classes is not None and classes != info["classes"]:
        damage.append(f"{row.CLASSES}: not the classes of the index: restore it, or {again}")
    try:
        one = map_set(root, root, info)
    except ValueError as error:
        return [*damage, str(error)], None, expected
    if wrong := [f"{name}: its bytes are not those that were written: {again}" for name in _wrong_files(one)]:
        return damage + wrong, None, expected
    return damage + [f"{row.INDEX}: {what}: {again}" for what in _wrong_sums(one)], one, expected


def _wrong_files(one: ShardSet) -> Iterator[str]:
    """The index files that do not have the checksum that index.json says."""
    for name, said in one.info["files"].items():
        with (one.root / name).open("rb") as file:
            if level.checksum(file, 0, (one.root / name).stat().st_size).hex() != said["sha256"]:
                yield name


def _wrong_sums(one: ShardSet) -> Iterator[str]:
    """Counts and a fingerprint in index.json that are not those of the rows."""
    shards = one.info["shards"]
    counts = np.bincount(one.rows["shard"], minlength=len(shards))
    for shard, count in zip(shards, counts, strict=True):
        if shard["samples"] != count:
            yield f"a wrong count, {shard['samples']} samples in {shard['name']}, {row.ROWS} has {count}"
    if index.fingerprint([shard["sha256"] for shard in shards], one.rows, one.classes) != one.fingerprint:
        yield "its fingerprint is not that of its checksums, rows and classes"


def _difference(one: ShardSet, number: int, found: Scan, place: int) -> str:
    """What of a sample is not as its row in the index says; empty: nothing."""
    old, new = one.rows[number], found.rows[place]
    if old["digest"] != new["digest"]:
        return "its audio is not what was indexed"
    if any(old[name] != new[name] for name in AUDIO_FIELDS):
        return "its audio's header is not what was indexed"
    names = tuple(one.classes[label] for label in one.labels(number))
    if names != found.names[place] or any(old[name] != new[name] for name in LABEL_FIELDS):
        return "its label, fold, split or group is not what was indexed"
    return ""


def _differs(name: str) -> str:
    return f"{name}: its checksum is not the index's, though every sample reads well: {RESTORE}"
