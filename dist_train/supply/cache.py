"""Whole shards of object stores in a local folder that all ranks and jobs of a host share.

    CACHE/shards/SHA256.tar     a shard, named by its bytes: sets that share it share the file, equal names never meet
    CACHE/shards/SHA256.part    one on its way: its checksum is compared before it is renamed
    CACHE/locks/SHA256.lock     held by who fetches it; dies with its process
    CACHE/claims/               what living jobs read now (claims.py): it is not evicted

A file's mtime is when its checksum was last found right, in whole seconds: a write by anyone else leaves a fraction.
Its atime is when a job last took it up. So nothing but the files has to be kept, and a kill at any moment leaves
nothing that could be taken for a shard.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from dist_train import disk
from dist_train.stores.bucket import Bucket
from dist_train.supply.claims import held

PIECE = 1 << 23  # bytes of a request: what is cut begins again there, and one shard in flight takes no more memory
DAY = 86400.0  # seconds for which a checksum counts
SPARE = 0.05  # share of the disk that stays free, whoever fills it
SECOND = 10**9


@dataclass(frozen=True)
class Shard:
    """A shard as its index has it."""

    bucket: Bucket = field(compare=False)
    name: str
    size: int
    sha256: str

    @property
    def address(self) -> str:
        return f"{self.bucket.address}/{self.name}"


class Full(Exception):
    """A shard does not fit into the cache's folder, or the folder cannot be written: one line, why."""


class Cache:
    """The folder. `limit`: bytes of all shards in it at most; None: as the disk allows, SPARE of which stays free.

    Any thread, process and job of a host may use it at the same time. Errors: ValueError where it cannot be written.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self.limit, self.began = folder, limit, time.time_ns()
        for name in ("shards", "locks", "claims"):
            disk.writable(folder / name)

    def path(self, shard: Shard) -> Path:
        return self.folder / "shards" / f"{shard.sha256}.tar"

    def have(self, shard: Shard) -> bool:
        """Whether it is there and needs no check."""
        return self._state(shard) == GOOD

    def find(self, shard: Shard) -> Path | None:
        """The shard's file if it is there and sound; one that is not is removed.

        Its size is compared each time, its checksum once a day, or where somebody wrote to it.
        """
        state, path = self._state(shard), self.path(shard)
        if state == UNCHECKED and self._sound(shard):
            state = GOOD
        if state == GOOD:
            with suppress(OSError):  # evicted this moment
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
                return path
        if state != ABSENT:
            with suppress(OSError):
                path.unlink()  # who has it open reads on
        return None

    def doubt(self, shard: Shard) -> None:
        """A read failed: the checksum is compared before the file is used again."""
        with suppress(OSError):
            os.utime(self.path(shard), ns=(time.time_ns(), time.time_ns() // SECOND * SECOND + SECOND // 2))

    def fetch(self, shard: Shard, stopped: Callable[[], bool] = lambda: False) -> Path | None:
        """The shard's file, fetched unless it is there. None: somebody else is fetching it, or one has stopped.

        Errors: Full; ValueError where the store's bytes are not the index's; the bucket's own.
        """
        lock = self._lock(shard.sha256)
        with _writing(self.folder):
            try:
                lock.acquire()
            except Timeout:
                return None
        try:
            return self.find(shard) or self._fetch(shard, stopped)
        finally:
            lock.release()

    def _state(self, shard: Shard) -> int:
        try:
            found = self.path(shard).stat()
        except FileNotFoundError:
            return ABSENT
        if found.st_size != shard.size:
            return BROKEN
        fresh = 0 <= time.time() - found.st_mtime < DAY and found.st_mtime_ns % SECOND == 0
        return GOOD if fresh else UNCHECKED

    def _sound(self, shard: Shard) -> bool:
        with suppress(OSError), self.path(shard).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256:
                _stamp(self.path(shard))
                return True
        return False

    def _fetch(self, shard: Shard, stopped: Callable[[], bool]) -> Path | None:
        path, part = self.path(shard), self.path(shard).with_suffix(".part")
        digest: str | None = ""
        try:
            for _ in range(2):  # a transfer may go wrong once; the same wrong bytes twice are the store's
                with _writing(self.folder):
                    self._reserve(shard, part)
                digest = self._load(shard, part, stopped)
                if digest is None:
                    return None
                if digest == shard.sha256:
                    with _writing(self.folder), self._room():  # renamed while another counts, it would count as nothing
                        _stamp(part)
                        part.replace(path)
                    return path
        finally:
            with suppress(OSError):
                part.unlink()
        text = f"its sha256 is {str(digest)[:16]}..., the index says {shard.sha256[:16]}...: it was replaced"
        raise ValueError(f"{shard.address}: {text}: restore it, or index the shards again")

    def _load(self, shard: Shard, part: Path, stopped: Callable[[], bool]) -> str | None:
        """Fill a reserved file; the sha256 of what came, None where one has stopped."""
        digest = hashlib.sha256()
        with _writing(self.folder):
            file = part.open("r+b")
        with file:
            for start in range(0, shard.size, PIECE):
                if stopped():
                    return None
                stop = min(start + PIECE, shard.size)
                piece = shard.bucket.range(shard.name, start, stop, shard.size)
                digest.update(piece)
                with _writing(self.folder):
                    file.write(piece)
            with _writing(self.folder):
                file.flush()
                os.fsync(file.fileno())
        return digest.hexdigest()

    def _reserve(self, shard: Shard, part: Path) -> None:
        """Make room for a shard and take it at once, so that others count it; Full where there is none."""
        with self._room():
            self._sweep()
            part.unlink(missing_ok=True)
            needed = self._excess(shard.size)
            for victim in self._victims() if needed > 0 else ():
                needed -= _size(victim)
                victim.unlink(missing_ok=True)
                if needed <= 0:
                    break
            if needed > 0:
                raise Full(f"{self.folder}: no room for {shard.name} ({shard.size / 1e6:.1f} MB): {self._bound()}")
            _allocate(part, shard.size)

    def _excess(self, size: int) -> float:
        """Bytes that must go before `size` more may come."""
        total, _, free = shutil.disk_usage(self.folder)
        needed = SPARE * total + size - free
        if self.limit is not None:
            used = sum(_size(path) for path in (self.folder / "shards").iterdir())
            needed = max(needed, used + size - self.limit)
        return needed

    def _bound(self) -> str:
        if self.limit is not None:
            return f"data.cache_gb={self.limit / 1e9:g}, or the disk, is full of shards in use"
        return f"the disk is full but for {SPARE:.0%}"

    def _victims(self) -> list[Path]:
        """Files that no living job claims, the first to go first.

        First those that were not used since this process began, the longest unused before others. Then, of those that
        were, the latest: a pass over shards in a new order each epoch needs what it has just used not before the next.
        """
        claimed = held(self.folder / "claims")
        files = [path for path in (self.folder / "shards").glob("*.tar") if path.stem not in claimed]
        used = {}
        for path in files:
            with suppress(FileNotFoundError):
                used[path] = path.stat().st_atime_ns
        return sorted(used, key=lambda path: used[path] if used[path] < self.began else 2**63 - used[path])

    def _sweep(self) -> None:
        """Remove what killed jobs left of their downloads."""
        for part in (self.folder / "shards").glob("*.part"):
            with suppress(Timeout), self._lock(part.stem):
                part.unlink(missing_ok=True)

    def _room(self) -> FileLock:
        """Held by who counts what is there, and by who changes names."""
        return FileLock(self.folder / "locks" / "room.lock")

    def _lock(self, sha256: str) -> FileLock:
        return FileLock(self.folder / "locks" / f"{sha256}.lock", timeout=0)


ABSENT, BROKEN, UNCHECKED, GOOD = range(4)


def _size(path: Path) -> int:
    """Bytes of a file, 0 where it has gone meanwhile."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _stamp(path: Path) -> None:
    """Its checksum was found right now."""
    now = time.time_ns()
    os.utime(path, ns=(now, now // SECOND * SECOND))


def _allocate(path: Path, size: int) -> None:
    """A file of `size` bytes that are the disk's already, where the system can."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """The disk's errors as Full."""
    try:
        yield
    except OSError as error:
        raise Full(f"{folder}: {error.strerror or error}") from None
