"""A folder of WebDataset tars -> its index files beside them (row.py lists them).

Comes in: anybody's tars with .wav, .flac, .ogg, .opus, .mp3, .m4a ... beside .json, .cls or .txt; classes.txt (one
class a line) if the order of classes is to be fixed; skip.txt (one key a line) for samples to leave out. Goes out: the
index, each file written whole under another name first; index.json last, so that half an index is none.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dist_train.archive import intact, label, level, row
from dist_train.archive.scan import Progress, Scan
from dist_train.storage import local

REINDEX = intact.REINDEX
PACK = "python tools/make_shards.py pack SOURCE {}"
CHECK = "python tools/make_shards.py check {}"
WORTH_PROCESSES = 1 << 26  # bytes; starting processes takes half a second
Result = TypeVar("Result")


def assemble(root: Path, scans: Sequence[Scan], classes: Sequence[str] | None) -> dict[str, Any]:
    """The index files of scanned tars, in `root`; what index.json holds.

    ValueError: no samples, or what a reader would lose or trip over: a damaged header, a cut tar, data after the end,
    doubled members, samples in pieces or not complete, audio that cannot be decoded, equal shards, an unknown class.
    """
    refuse(root, scans)
    if not sum(len(found.keys) for found in scans):
        raise ValueError(f"{root}: the tars hold no samples: {PACK.format(root)}")
    order = classes or label.order({name for found in scans for several in found.names for name in several})
    return save(root, scans, order, features_of(root, scans, read_features(root)))


def read_features(root: Path) -> dict[str, Any]:
    """features.json: what packed features are of; FRAME_RATE frames a second where nobody says. ValueError: damaged."""
    path, fields = root / row.FEATURES, dict[str, Any]()
    if path.is_file():
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{path}: not JSON; pack again, or take it away: features count as unknown then") from None
    known: dict[str, Any] = {"rate": level.FRAME_RATE, "channels": 1, "settings": None}
    fields = known | (fields if isinstance(fields, dict) else {})
    for name in ("rate", "channels"):
        if not isinstance(fields[name], int) or fields[name] < 1:
            raise ValueError(f"{path}: {name} {fields[name]!r} is no whole number from 1 up")
    return fields


def features_of(root: Path, scans: Sequence[Scan], stored: dict[str, Any]) -> dict[str, Any] | None:
    """What the index says of packed features; None: the samples are audio. ValueError: several kinds."""
    widths = sorted({width for found in scans for width in found.bins})
    if widths == [0]:
        return None
    if len(widths) > 1:
        kinds = ", ".join(f"features of {width} bins" if width else "audio" for width in widths)
        raise ValueError(f"{root}: holds {kinds}: one set of shards holds one kind; pack them apart")
    if widths[0] % stored["channels"] or stored.get("bins", widths[0]) != widths[0]:
        text = f"{stored.get('bins', widths[0])} bins of {stored['channels']} channels, the shards have {widths[0]}"
        raise ValueError(f"{root / row.FEATURES}: says {text}; it is of other shards")
    said = {"bins": widths[0], **{name: stored[name] for name in ("channels", "rate", "settings")}}
    return said | {"digest": front_digest(widths[0], stored["channels"], stored["settings"])}


def front_digest(bins: int, channels: int, settings: dict[str, Any] | None) -> str:
    """What tells packed features of one front end from those of another."""
    return hashlib.sha256(json.dumps([bins, channels, settings], sort_keys=True).encode()).hexdigest()


def find(path: str | Path) -> tuple[Path, list[str]]:
    """The folder and its tars' names, sorted. `path` may be the folder's index.json. ValueError: no tars there."""
    root = local(path)
    root = root.parent if root.name == row.INDEX else root
    if not root.is_dir():
        raise ValueError(f"{root}: no folder of shards there: {PACK.format(root)}")
    files = sorted(entry.name for entry in os.scandir(root) if entry.is_file() and not entry.name.startswith("."))
    if names := [name for name in files if name.endswith(".tar")]:
        return root, names
    if packed := [name for name in files if name.endswith((".tar.gz", ".tgz"))]:
        raise ValueError(f"{root / packed[0]}: compressed tars cannot be read at random: gunzip them")
    raise ValueError(f"{root}: no .tar in it: {PACK.format(root)}")


def read_lines(path: Path) -> list[str] | None:
    """The lines of classes.txt or skip.txt without blank ones, None without the file; ValueError for doubles."""
    if not path.is_file():
        return None
    try:
        lines = [line.strip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text: save it as UTF-8") from None
    if len(set(lines)) < len(lines):
        twice = next(line for number, line in enumerate(lines) if line in lines[:number])
        raise ValueError(f"{path}: {twice!r} is there twice: take one out")
    return lines


def each(
    job: Callable[[Path], Result], paths: Sequence[Path], size: int, workers: int | None, progress: Progress | None
) -> Iterator[Result]:
    """job(path) for every tar, in order; on processes where there is much to read (threads would share one lock).
    `size`: bytes of all tars."""
    workers = max(1, min(len(paths), workers or cores()))
    parallel = workers > 1 and size >= WORTH_PROCESSES
    # spawn: a fork would copy the locks of whatever threads the caller runs (torch's among them)
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if parallel else None
    try:
        for done, result in enumerate(pool.map(job, paths) if pool else map(job, paths), 1):
            if progress is not None:
                progress(done, len(paths))
            yield result
    except BrokenProcessPool:
        text = "a worker died (no memory left, or a script without `if __name__ == '__main__'`): use one worker"
        raise ValueError(f"{paths[0].parent}: {text}") from None
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use; macOS and Windows tell only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse(root: Path, scans: Sequence[Scan]) -> None:
    """ValueError with the first damage, and how many more there are."""
    damage = [line for found in scans for line in found.damage] + twins(scans)
    if damage:
        more = f" ({len(damage) - 1} more: {CHECK.format(root)})" if damage[1:] else ""
        raise ValueError(f"{root / damage[0]}{more}")


def twins(scans: Iterable[Scan]) -> list[str]:
    """A line for each tar that has the bytes of one before it."""
    seen = dict[str, str]()
    pairs = [(found.name, seen.setdefault(found.sha256, found.name)) for found in scans]
    return [f"{name}: the same bytes as {other}: take one away" for name, other in pairs if name != other]


def save(
    root: Path, scans: Sequence[Scan], classes: Sequence[str], features: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the index of shards that were found sound; what index.json holds. `features`: what packed ones are of."""
    number = {name: index for index, name in enumerate(classes)}
    labels = [[number[name] for name in names] for found in scans for names in found.names]
    rows = np.concatenate([found.rows for found in scans])
    rows["shard"] = np.repeat(np.arange(len(scans)), [len(found.rows) for found in scans])
    rows["label"] = [several[0] for several in labels]
    intact.seal(rows)
    keys = [key.encode("utf-8", "surrogateescape") for found in scans for key in found.keys]
    files = {
        row.ROWS: _npy(rows),
        row.ACTIVITY: _npy(np.concatenate([found.activity for found in scans])),
        row.KEY_ENDS: _npy(_ends(keys)),
        row.KEYS: b"".join(keys),
    }
    if any(len(several) > 1 for several in labels):
        files[row.LABEL_ENDS] = _npy(_ends(labels))
        files[row.LABEL_IDS] = _npy(np.array([one for several in labels for one in several], "<i4"))
    info = {
        "version": row.VERSION,
        intact.SEALED: True,
        "fingerprint": fingerprint([found.sha256 for found in scans], rows, classes),
        "totals": {"samples": len(rows), "seconds": seconds(rows)},
        "classes": list(classes),
        "files": {name: {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()},
        "shards": [
            {"name": found.name, "bytes": found.bytes, "samples": len(found.rows), "sha256": found.sha256}
            for found in scans
        ],
    }
    if features is not None:
        info["features"] = features
    # Without index.json there is no index: a crash between two renames leaves none, never two halves of different ones.
    for name in (row.INDEX, row.LABEL_ENDS, row.LABEL_IDS):
        (root / name).unlink(missing_ok=True)
    for name, raw in files.items():
        _write(root / name, raw)
    _write(root / row.INDEX, (json.dumps(info, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "surrogatepass"))
    return info


def fingerprint(checksums: Iterable[str], rows: NDArray[np.void], classes: Sequence[str]) -> str:
    """sha256 of the shards' checksums, the rows and the class names: what a run may depend on."""
    digest = hashlib.sha256()
    for checksum in checksums:
        digest.update(bytes.fromhex(checksum))
    for start in range(0, len(rows), 1 << 20):
        digest.update(intact.unsealed(rows[start : start + (1 << 20)]).tobytes())
    digest.update(json.dumps(list(classes), ensure_ascii=True).encode())
    return digest.hexdigest()


def seconds(rows: NDArray[np.void]) -> float:
    """Length of all samples together."""
    rates, which = np.unique(rows["rate"], return_inverse=True)
    frames = np.bincount(which, rows["frames"].astype(np.float64))
    return round(float((frames / rates).sum()), 3)


def _ends(items: Sequence[Sequence[Any] | bytes]) -> NDArray[np.uint64]:
    return np.fromiter(accumulate((len(item) for item in items), initial=0), "<u8", len(items) + 1)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write(path: Path, raw: bytes) -> None:
    """All of the file or nothing of it."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
