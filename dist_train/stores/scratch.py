"""A folder on the local disk for what is on its way to or from a store; it is removed in the end.

It lies in TMPDIR. One that a killed process left behind goes when the next one is made: the lock in it is free then.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

PREFIX, LOCK = "make_shards-", "lock"
YOUNG = 60.0  # seconds in which a folder may not be locked yet


@contextmanager
def folder() -> Iterator[Path]:
    """A new empty folder in TMPDIR. ValueError where none can be made."""
    try:
        _sweep(Path(tempfile.gettempdir()))
        home = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise ValueError(f"no scratch folder can be made ({error.strerror}): set TMPDIR to a disk with room") from None
    try:
        with filelock.FileLock(home / LOCK):
            (home / "work").mkdir()
            yield home / "work"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _sweep(place: Path) -> None:
    for home in place.glob(f"{PREFIX}*"):
        with suppress(OSError, filelock.Timeout):
            if time.time() - home.stat().st_mtime > YOUNG:
                with filelock.FileLock(home / LOCK, timeout=0):
                    shutil.rmtree(home, ignore_errors=True)


def place() -> str:
    """How messages name where scratch folders lie."""
    return f"scratch in {tempfile.gettempdir()}"


def free() -> int:
    """Bytes that are free there."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def room(needed: int, what: str) -> None:
    """ValueError where there are not so many bytes free. `what`: for the message."""
    if needed > (there := free()):
        text = f"{what} take about {needed / 1e9:.2f} GB, the disk has {there / 1e9:.2f} GB free"
        raise ValueError(f"{place()}: {text}; set TMPDIR to a disk with more room")
