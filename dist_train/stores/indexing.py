"""Tars in a folder or a store -> their index beside them; the parts of a packing taken together.

    kept scans (scanned.py) --+
                              +--> index.assemble --> index files, index.json last
    other tars ----- scan ----+

A tar of a store that must be scanned is downloaded to scratch, read once, and removed.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from dist_train import disk
from dist_train.archive import index, row, scanned
from dist_train.archive.scan import Progress, scan
from dist_train.stores import desk, part, scratch
from dist_train.stores.bucket import Bucket, remote
from dist_train.stores.desk import Desk
from dist_train.stores.part import WORK
from dist_train.stores.remote import PATIENCE

LEFT_OUT = "left_out.tsv"
Result = TypeVar("Result")


def build(
    path: Path | str, workers: int | None = None, progress: Progress | None = None, patience: float = PATIENCE
) -> dict[str, Any]:
    """Index the tars of a folder or an address; what index.json holds. `index.assemble` says what is refused
    (ValueError); a part of a packing that is missing is, too. PermissionError, Unreachable: of a store."""
    if remote(path):
        with desk.opened(path, patience) as place:
            return write(place, workers, progress)
    root, _ = index.find(path)
    return write(Desk(root, str(root)), workers, progress)


def write(place: Desk, workers: int | None, progress: Progress | None) -> dict[str, Any]:
    """Index the tars at a desk, on `workers` processes (None: the cores); the same bytes for any number of them."""
    root, tars = place.root, place.tars()
    if not tars:
        raise ValueError(f"{root}: no .tar in it: {index.PACK.format(root)}")
    left_out = part.merged(root, list(tars))
    classes, skip = index.read_lines(root / row.CLASSES), frozenset(index.read_lines(root / row.SKIP) or ())
    rate = index.read_features(root)["rate"]
    key = scanned.key(classes, skip, rate)
    files = {name: f"{WORK}/{name.removesuffix('.tar')}.scan" for name in tars}
    place.fetch(file for file in files.values() if file in place.there and not (root / file).is_file())
    scans = {name: scanned.load(root / files[name], key, state) for name, state in tars.items()}
    job = partial(scan, classes=classes, skip=skip, frame_rate=rate)
    todo = [name for name, found in scans.items() if found is None]
    for found in over(place, job, todo, workers, progress):
        scans[found.name] = found
    info = index.assemble(root, [found for found in scans.values() if found is not None], classes)
    if left_out is not None:
        list_left_out(place, left_out)
    _put(place, info)
    return info


def over(
    place: Desk, job: Callable[[Path], Result], names: Sequence[str], workers: int | None, progress: Progress | None
) -> Iterator[Result]:
    """job(path) for tars of a desk, in order; each of a store's is there for as long as its job."""
    if not names:
        return iter(())
    paths, sizes = [place.root / name for name in names], [place.tars()[name][0] for name in names]
    if place.bucket is None:
        return index.each(job, paths, sum(sizes), workers, progress)
    workers = min(workers or index.cores(), max(1, scratch.free() // max(*sizes, 1)))
    scratch.room(max(sizes), "shards that are fetched")
    fetch = partial(_fetched, address=place.bucket.address, patience=place.bucket.patience, job=job)
    return index.each(fetch, paths, sum(sizes), workers, progress)


def _fetched(path: Path, address: str, patience: float, job: Callable[[Path], Result]) -> Result:
    try:
        Bucket(address, patience).download(path.name, path)
        return job(path)
    finally:
        path.unlink(missing_ok=True)


def _put(place: Desk, info: dict[str, Any]) -> None:
    """Send the index: without index.json there is none, so that goes first and comes last."""
    if place.bucket is None:
        return
    for name in (row.INDEX, row.LABEL_ENDS, row.LABEL_IDS):
        if name in place.there:
            place.bucket.delete(name)
    for name in (*info["files"], row.INDEX):
        place.put(name)


def list_left_out(place: Desk, left_out: Iterable[tuple[str, str]]) -> None:
    """Write left_out.tsv; without anything there is none."""
    lines = [f"{name}\t{reason}\n" for name, reason in left_out]
    if lines:
        disk.replace(place.root / LEFT_OUT, lambda file: file.write("".join(lines).encode()))
        place.put(LEFT_OUT)
    else:
        place.remove(LEFT_OUT)


def indexed(place: Desk) -> bool:
    """Whether an index of these tars lies there, whole."""
    tars = {name: state[0] for name, state in place.tars().items()}
    try:
        info = json.loads((place.root / row.INDEX).read_bytes())
        sizes = {name: said["bytes"] for name, said in info["files"].items()}
        return (
            info["version"] == row.VERSION
            and {shard["name"]: shard["bytes"] for shard in info["shards"]} == tars
            and sizes == {name: place.size(name) for name in sizes}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
