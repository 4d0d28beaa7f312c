"""Where shards are made: the folder that was named, or a scratch folder whose files go to a store one after another.

    DEST a folder:       DEST/.packing/shard-000003.part -> DEST/shard-000003.tar
    DEST an address:     scratch/shard-000003.tar -> the object DEST/shard-000003.tar, and the scratch file goes

Either way the small files (plans, records, class list, index) are read and written below `root`; `put` brings one to
the store. A few shards wait for their upload at a time, so that scratch stays small.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dist_train.archive.scanned import State, on_disk
from dist_train.storage import local
from dist_train.stores import scratch
from dist_train.stores.bucket import Bucket, remote
from dist_train.stores.part import WORK
from dist_train.stores.remote import PATIENCE

PROBE = f"{WORK}/writable"
AT_ONCE = 2  # shards that are scanned and sent while the next one is written
MANY = 32  # small objects at once
SMALL = ("classes.txt", "skip.txt", "features.json", "index.json")
OF_PARTS = re.compile(rf"{re.escape(WORK)}/(plan|done)[^/]*\.json")


@dataclass(eq=False)
class Desk:
    """`root`: the folder to write into; `said`: how people name the place. `there`: the objects of a store, their
    bytes and tags."""

    root: Path
    said: str
    bucket: Bucket | None = None
    there: dict[str, State] = field(default_factory=dict)
    _waiting: deque[Future[None]] = field(default_factory=deque)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(AT_ONCE))

    def tars(self) -> dict[str, State]:
        """The state of each tar that is there, by name."""
        if self.bucket is not None:
            return {name: self.there[name] for name in sorted(self.there) if _tar(name)}
        return {path.name: on_disk(path) for path in sorted(self.root.glob("*.tar")) if _tar(path.name)}

    def size(self, name: str) -> int:
        """Bytes of a file that is there, -1 without."""
        if self.bucket is not None:
            return self.there.get(name, (-1, ""))[0]
        return (self.root / name).stat().st_size if (self.root / name).is_file() else -1

    def put(self, name: str, new: bool = False) -> None:
        """A file of `root` is done: send it. `new`: FileExistsError where the store has one."""
        if self.bucket is not None:
            data = (self.root / name).read_bytes()
            self.there[name] = len(data), self.bucket.put(name, data, new)

    def send(self, name: str) -> State:
        """A tar of `root` is done: send it and remove it here. Its state where it lies now."""
        path = self.root / name
        if self.bucket is None:
            return on_disk(path)
        size, tag = path.stat().st_size, self.bucket.put(name, path)
        path.unlink()
        self.there[name] = size, tag
        return size, tag

    def remove(self, name: str) -> None:
        """Remove a small file, here and in the store."""
        (self.root / name).unlink(missing_ok=True)
        if self.bucket is not None and name in self.there:
            self.bucket.delete(name)

    def fetch(self, names: Iterable[str]) -> None:
        """Bring small objects to `root`; nothing where the desk is no store's."""
        if self.bucket is None:
            return
        with ThreadPoolExecutor(MANY) as threads:
            for _ in threads.map(self._fetch, names):
                pass

    def _fetch(self, name: str) -> None:
        assert self.bucket is not None
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bucket.read(name))

    def later(self, job: Callable[[], None]) -> None:
        """Do a job while the next shard is written; an error of one before comes out here or in `finish`."""
        while len(self._waiting) >= AT_ONCE:
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(job))

    def finish(self) -> None:
        """Wait for all jobs."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """End the threads; what waits is dropped, what runs ends, and nobody is patient with the store any more."""
        if self.bucket is not None:
            self.bucket.give_up()
        self._threads.shutdown(cancel_futures=True)


@contextmanager
def opened(dest: Path | str, patience: float = PATIENCE, write: bool = True) -> Iterator[Desk]:
    """The desk of a folder or an address. ValueError, PermissionError, Unreachable: nothing can be read there, or
    written: told before the work."""
    if not remote(dest):
        desk = Desk(local(dest), str(dest))
        try:
            yield desk
        finally:
            desk.close()
        return
    bucket = Bucket(writable(str(dest)), patience)
    with scratch.folder() as root:
        desk = Desk(root, bucket.said, bucket)
        try:
            if write:
                bucket.put(PROBE, b"")
                bucket.delete(PROBE)
            desk.there = {name: (size, tag) for name, (size, tag, _) in bucket.entries().items()}
            desk.fetch(name for name in desk.there if name in SMALL or OF_PARTS.fullmatch(name))
            with spoken(root, bucket.said):
                yield desk
        finally:
            desk.close()


def writable(address: str) -> str:
    """The address. ValueError for one that takes no objects."""
    if address.lower().startswith("http"):
        raise ValueError(
            f"{Bucket(address).said}: a web server takes no objects and lists none; name s3://, gs:// or az://"
        )
    return address


def _tar(name: str) -> bool:
    return name.endswith(".tar") and "/" not in name and not name.startswith(".")


@contextmanager
def spoken(root: Path, address: str) -> Iterator[None]:
    """Errors that name files of a scratch folder name the objects that they stand for."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace(str(root), address)
        raise ValueError(text) from None
