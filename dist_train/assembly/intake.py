"""Recordings in a store -> a folder on the local disk that layouts, headers and decoders take for the source.

    listing --> an empty file of each object's size and time; tables and lists with their content
    task    --> the files it names are fetched, many at once and a little ahead; emptied again when it is done

Files that were fetched stay while there is room: up to half of what was free on the scratch disk. So a source that fits
is fetched once; a larger one again for each pass over it: digests, where folds are made, and packing. Headers of WAV
and FLAC are read from a file's first bytes, where the whole will not stay or is another machine's to pack.
"""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dist_train.assembly import jobs
from dist_train.assembly.jobs import Spread
from dist_train.sources.recordings import SUFFIXES
from dist_train.sources.tables import LISTS
from dist_train.storage import local
from dist_train.stores import scratch
from dist_train.stores.bucket import Bucket, remote
from dist_train.stores.desk import spoken

TABLES = frozenset((".csv", ".json", *LISTS, ""))
TABLE_BYTES = 1 << 30
MANY = 32  # files at once
AHEAD = 3  # tasks a process
PIECE = 1 << 26  # bytes of files a task
HEAD = 1 << 14  # bytes that hold a header
HEADED = (".wav", ".wave", ".flac")  # headers at the start, and the length in them or in the file's size
Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def opened(
    source: Path | str, patience: float, whole: bool, say: Callable[[str], None]
) -> Iterator[tuple[Path, Spread]]:
    """The folder to read a source from, and how tasks on its files are given to processes. whole: all is to be packed.

    ValueError, PermissionError, Unreachable: of a store; its errors name addresses, not scratch files.
    """
    if not remote(source):
        yield local(source), jobs.in_order
        return
    if str(source).lower().startswith("http"):
        text = "a web server does not list its files: copy them to a folder, or name s3://, gs:// or az://"
        raise ValueError(f"{Bucket(str(source)).said}: {text}")
    address, _, table = str(source).rstrip("/").rpartition("/")
    if Path(table).suffix.lower() not in (".csv", *LISTS):
        address, table = str(source).rstrip("/"), ""
    with scratch.folder() as root, spoken(root, address):
        intake = Intake(Bucket(address, patience), root)
        try:
            intake.build(whole, say)
            yield root / table, intake.spread
        finally:
            intake.close()


class Intake:
    """The files of a store's recordings, there when they are needed."""

    def __init__(self, bucket: Bucket, root: Path) -> None:
        self.bucket, self.root = bucket, root
        self.left = scratch.free() // 2
        self.heads = False  # headers are read from the files' first bytes
        self.states: dict[Path, tuple[int, int]] = {}  # bytes and time of change of each recording
        self.here: dict[Path, Future[None]] = {}  # recordings that are fetched, or being fetched
        self.users = Counter[Path]()
        self.lock = threading.Lock()
        self.threads = ThreadPoolExecutor(MANY)

    def build(self, whole: bool, say: Callable[[str], None]) -> None:
        """The tree. ValueError: nothing there, or names that no folder can have."""
        entries = self.bucket.entries()
        entries = {name: entry for name, entry in entries.items() if name and not name.endswith("/")}
        if not entries:
            raise ValueError(f"{self.bucket.said}: no objects there")
        tables = []
        for name, (size, _, changed) in entries.items():
            path = self.root / _safe(name, self.bucket.said)
            self._place(path, name, size, changed)
            if path.suffix.lower() in SUFFIXES:
                self.states[path] = size, changed
            elif path.suffix.lower() in TABLES and 0 < size < TABLE_BYTES:
                tables.append((name, path))
        for _ in self.threads.map(lambda pair: self.bucket.download(*pair), tables):
            pass
        total = sum(size for size, _ in self.states.values())
        self.heads = not whole or total > self.left
        say(f"{self.bucket.said}: {len(self.states)} recordings, {total / 1e9:.2f} GB, fetched as they are needed")

    def _place(self, path: Path, name: str, size: int, changed: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _empty(path, size, changed)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            text = "is an object and the folder of others: no disk can hold both; rename one"
            raise ValueError(f"{self.bucket.said}/{name}: {text}") from None
        except OSError as error:
            raise ValueError(f"{scratch.place()}: no file for {name}: {error.strerror}") from None

    def spread(
        self, function: Callable[[list[Task]], list[Result]], tasks: Iterable[list[Task]], workers: int
    ) -> Generator[list[Result], None, None]:
        """`jobs.in_order`, the files of each task fetched before and let go after it; large ones are cut in pieces."""
        heads = self.heads and function is jobs.headers
        given: deque[tuple[list[Task], list[Path]]] = deque()
        fetched = self._ahead(self._pieces(tasks), given, AHEAD * workers, self._fetch_heads if heads else self._fetch)
        results = jobs.in_order(function, fetched, workers)
        try:
            for result in results:
                task, paths = given.popleft()
                self._release(paths)
                yield self._mended(function, task, result) if heads else result
        finally:
            results.close()

    def _mended(self, function: Any, paths: Sequence[Any], found: list[Result]) -> list[Result]:
        """Headers; of a file whose first bytes did not do, the whole is read."""
        again = [path for path, head in zip(paths, found, strict=True) if isinstance(head, str) and self._headed(path)]
        for one in self._fetch(again):
            one.result()
        whole = dict(zip(again, function(again), strict=True))
        self._release(again)
        return [whole.get(path, head) for path, head in zip(paths, found, strict=True)]

    def _pieces(self, tasks: Iterable[list[Task]]) -> Iterator[list[Task]]:
        """The tasks in pieces whose files take at most PIECE bytes together, or are one."""
        for task in tasks:
            piece: list[Task] = []
            size = 0
            for one in task:
                more = sum(self.states[path][0] for path in self._paths([one]))
                if piece and size + more > PIECE:
                    yield piece
                    piece, size = [], 0
                piece.append(one)
                size += more
            yield piece

    def _ahead(
        self,
        tasks: Iterable[list[Task]],
        given: deque[tuple[list[Task], list[Path]]],
        depth: int,
        fetch: Callable[[list[Path]], list[Future[None]]],
    ) -> Iterator[list[Task]]:
        """The tasks, each once its files are here."""
        waiting = deque[tuple[list[Task], list[Path], list[Future[None]]]]()

        def first() -> list[Task]:
            task, paths, fetched = waiting.popleft()
            for one in fetched:
                one.result()
            given.append((task, paths))
            return task

        for task in tasks:
            waiting.append((task, paths := self._paths(task), fetch(paths)))
            if len(waiting) > depth:
                yield first()
        while waiting:
            yield first()

    def _paths(self, task: Sequence[Any]) -> list[Path]:
        """The recordings of a task that are the store's, each once."""
        named = (one if isinstance(one, Path) else one[0] for one in task)
        return [path for path in dict.fromkeys(named) if path in self.states]

    def _fetch(self, paths: list[Path]) -> list[Future[None]]:
        with self.lock:
            self.users.update(paths)
            for path in paths:
                if path not in self.here:
                    self.left -= self.states[path][0]
                    self.here[path] = self.threads.submit(self._bring, path)
            return [self.here[path] for path in paths]

    def _fetch_heads(self, paths: list[Path]) -> list[Future[None]]:
        begun = [self.threads.submit(self._bring_head, path) for path in paths if self._headed(path)]
        return begun + self._fetch([path for path in paths if not self._headed(path)])

    def _headed(self, path: Path) -> bool:
        return path.suffix.lower() in HEADED and self.states.get(path, (0, 0))[0] > 4 * HEAD

    def _bring_head(self, path: Path) -> None:
        size, changed = self.states[path]
        with self._fetching(path) as name:
            data = self.bucket.range(name, 0, HEAD, size)
            with path.open("r+b") as file:
                file.write(data)
            os.utime(path, ns=(changed, changed))

    def _bring(self, path: Path) -> None:
        changed = self.states[path][1]
        with self._fetching(path) as name:
            self.bucket.download(name, path)
            os.utime(path, ns=(changed, changed))

    @contextmanager
    def _fetching(self, path: Path) -> Iterator[str]:
        """The object's name; what fails in fetching it, in words."""
        name = path.relative_to(self.root).as_posix()
        try:
            yield name
        except FileNotFoundError:  # it went after it was listed: a recording that cannot be read
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno is None:  # of the store
                raise
            text = f"{name} cannot be fetched: {error.strerror}; make room, or set TMPDIR to another disk"
            raise ValueError(f"{scratch.place()}: {text}") from None

    def _release(self, paths: list[Path]) -> None:
        """The files are let go; those that nobody needs are emptied where room is short."""
        with self.lock:
            for path in paths:
                if path not in self.here:  # only its head is
                    _empty(path, *self.states[path])
                    continue
                self.users[path] -= 1
                if self.left < 0 and not self.users[path]:
                    del self.here[path]
                    self.left += self.states[path][0]
                    _empty(path, *self.states[path])

    def close(self) -> None:
        """End the threads; what waits is dropped, and nobody is patient with the store any more."""
        self.bucket.give_up()
        self.threads.shutdown(cancel_futures=True)


def _empty(path: Path, size: int, changed: int) -> None:
    """A file of a size that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)
    os.utime(path, ns=(changed, changed))


def _safe(name: str, address: str) -> str:
    """The name. ValueError for one that would lie elsewhere on a disk."""
    if name.startswith("/") or "\\" in name or {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"{address}/{name}: no disk can hold a file of this name; rename the object")
    return name
