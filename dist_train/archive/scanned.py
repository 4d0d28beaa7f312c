"""What the scan of a tar found, kept beside it, so that `index` need not read the tar again.

    DEST/.packing/shard-000003.scan   rows, activity, keys, names, checksum; and the state of the tar that was scanned

The state is the tar's bytes and time of change on a disk, its bytes and tag in a store. A tar in another state, or a
scan for other classes or with other samples left out, is scanned anew.
"""

import hashlib
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from dist_train.archive.row import VERSION
from dist_train.archive.scan import Scan

DIGEST = 32  # bytes: the file begins with the checksum of the rest
State = tuple[int, str]


def key(classes: Sequence[str] | None, skip: Collection[str], frame_rate: int) -> str:
    """Names what a scan depends on beside the tar."""
    return hashlib.sha256(json.dumps([VERSION, classes, sorted(skip), frame_rate]).encode()).hexdigest()


def on_disk(path: Path) -> State:
    """The state of a tar on a disk."""
    found = path.stat()
    return found.st_size, str(found.st_mtime_ns)


def dump(found: Scan, key: str, state: State) -> bytes:
    """A scan without damage as bytes."""
    assert not found.damage
    said = {
        "key": key,
        "state": state,
        "name": found.name,
        "bytes": found.bytes,
        "sha256": found.sha256,
        "keys": found.keys,
        "names": found.names,
        "bins": sorted(found.bins),
    }
    text = np.frombuffer(json.dumps(said).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, rows=found.rows, activity=found.activity, said=text)
    raw = file.getvalue()
    return hashlib.sha256(raw).digest() + raw


def load(path: Path, key: str, state: State) -> Scan | None:
    """The scan, None where there is none, or one of another state, or a damaged one."""
    if not path.is_file() or not state[1]:
        return None
    whole = path.read_bytes()
    digest, raw = whole[:DIGEST], whole[DIGEST:]
    if hashlib.sha256(raw).digest() != digest:
        return None
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        rows, activity, said = file["rows"], file["activity"], json.loads(file["said"].tobytes())
    if said["key"] != key or tuple(said["state"]) != state:
        return None
    names = [tuple(several) for several in said["names"]]
    found = Scan(said["name"], said["bytes"], said["sha256"], rows, activity, said["keys"], names)
    found.bins = set(said["bins"])
    return found
