"""Byte ranges of files -> bytes in the caller's memory: what every source of bytes does, and local files as one.

Reads carry their own offset, so threads share descriptors without a lock; few files are open at a time, however many
shards there are.
"""

import os
import re
import threading
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dist_train.clouds import remote, spoken

STORES = ("s3", "gs", "az", "http", "https")
FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0)
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/|(pipe):", re.IGNORECASE)  # two letters at least: C:/ is a disk

Read = Callable[[int, memoryview, int], int]
"""(descriptor, buffer, offset) -> bytes read into the buffer's start; 0 at the file's end."""


def local(name: str | Path) -> Path:
    """The path of a local file or folder; ValueError for an address such as s3://BUCKET/x or pipe:COMMAND."""
    match = ADDRESS.match(str(name))
    if match is None:
        return Path(name)
    if match[2]:
        raise ValueError(f"{name}: pipe: is refused, it runs a shell: copy the shards to a local folder and name that")
    if match[1].lower() in STORES and not remote(name):
        raise ValueError(f"{spoken(str(name))}: not an address: write SCHEME://BUCKET/PATH, such as s3://clips/esc10")
    if match[1].lower() in STORES:
        raise ValueError(f"{spoken(str(name))}: only local paths here, no store's address: copy it, or mount it")
    text = f"{match[1]}:// is not supported, only local paths, s3://, gs://, az:// and http(s)://"
    raise ValueError(f"{spoken(str(name))}: {text}: copy or mount the shards and name that")


def vector_read(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Straight into the buffer."""
    return os.preadv(descriptor, [buffer], offset)


def copied_read(descriptor: int, buffer: memoryview, offset: int) -> int:
    """For systems without preadv."""
    data = os.pread(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def locked_read() -> Read:
    """For systems without pread (Windows): the descriptor's own position is moved, by one thread at a time."""
    lock = threading.Lock()

    def read(descriptor: int, buffer: memoryview, offset: int) -> int:
        with lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    return read


def system_read() -> Read:
    """The best that this system has."""
    if hasattr(os, "preadv"):
        return vector_read
    return copied_read if hasattr(os, "pread") else locked_read()


class Source(Protocol):
    """Shards by number, wherever they lie; any thread may read. `source` picks one."""

    @property
    def far(self) -> bool:
        """Whether a read waits on a network, so that many should be under way."""

    def read_rows(
        self, files: Sequence[int], offsets: Sequence[int], buffers: Sequence[memoryview]
    ) -> dict[int, OSError]:
        """Fill each row's buffer with its shard's bytes from its offset on; what failed, by the row's number.

        Any other exception stops the run.
        """

    def traffic(self) -> tuple[int, int, int] | None:
        """Bytes that came over the network, requests, and requests that were sent again, so far; None: without one."""

    def close(self) -> None:
        """Let go of files and connections; a later read opens them again."""


class Descriptor:
    """An open file that closes when nobody holds it: the cache may forget one while another thread reads it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Files:
    """Files by number, opened when first read; at most `limit` stay open. Any thread may read.

    ValueError for a path that is not local; with `sizes`, the bytes of each file when it was indexed, also for one that
    is gone, was replaced, or has changed since `times` (ns; 0: since it was first opened): its bytes then are not what
    the index says.
    """

    far = False

    def __init__(
        self,
        paths: Sequence[str | Path],
        limit: int = 256,
        read: Read | None = None,
        sizes: Sequence[int] | None = None,
        times: Sequence[int] | None = None,
    ) -> None:
        self.paths = [local(path) for path in paths]
        self.limit, self.sizes = limit, sizes
        self._times = array("q", times or bytes(8 * len(paths) if sizes is not None else 0))
        self.read = read or system_read()
        self._lock = threading.Lock()
        self._open: dict[int, Descriptor] = {}  # the longest unused first

    def read_rows(
        self, files: Sequence[int], offsets: Sequence[int], buffers: Sequence[memoryview]
    ) -> dict[int, OSError]:
        """As a Source does, fastest where a file's rows lie side by side; what failed names the file."""
        failed = dict[int, OSError]()
        used = dict[int, Descriptor]()
        opened, descriptor = -1, None
        for row, (file, offset, buffer) in enumerate(zip(files, offsets, buffers, strict=True)):
            try:
                if file != opened or descriptor is None:
                    used[file] = descriptor = self._descriptor(file)
                    opened = file
                self._fill(descriptor, file, offset, buffer)
            except OSError as error:
                failed[row] = error
        for file, descriptor in used.items():
            self._unchanged(file, descriptor)
        return failed

    def traffic(self) -> None:
        """Nothing comes over a network that we would see."""

    def forget(self, file: int) -> None:
        """Close a file; a later read opens what is there by then."""
        with self._lock:
            self._open.pop(file, None)

    def close(self) -> None:
        """Forget all open files; a read in progress ends first, a later one opens its file again."""
        with self._lock:
            self._open.clear()

    def _descriptor(self, file: int) -> Descriptor:
        with self._lock:
            descriptor = self._open.pop(file, None) or self._opened(file)
            self._open[file] = descriptor
            if len(self._open) > self.limit:
                del self._open[next(iter(self._open))]
            return descriptor

    def _opened(self, file: int) -> Descriptor:
        if self.sizes is None:
            return Descriptor(os.open(self.paths[file], FLAGS))
        try:
            descriptor = Descriptor(os.open(self.paths[file], FLAGS))
        except FileNotFoundError:
            raise ValueError(f"{self.paths[file]}: is gone, and the index names it; restore it") from None
        self._unchanged(file, descriptor)
        return descriptor

    def _unchanged(self, file: int, descriptor: Descriptor) -> None:
        """Looked at when a file is opened and after it was read: ValueError where it is not the one that was indexed.

        A file that another was renamed over stays what it was for who has it open.
        """
        if self.sizes is None:
            return
        found, size, before = os.fstat(descriptor.number), self.sizes[file], self._times[file]
        if found.st_size != size:
            text = f"{found.st_size} bytes, the index says {size}: it was replaced"
            raise ValueError(f"{self.paths[file]}: {text}; restore it, or index again")
        if before and before != found.st_mtime_ns:
            raise ValueError(f"{self.paths[file]}: was changed under the run; restore it, or index again")
        self._times[file] = found.st_mtime_ns

    def _fill(self, descriptor: Descriptor, file: int, offset: int, buffer: memoryview) -> None:
        try:
            got = self.read(descriptor.number, buffer, offset)
            while got < len(buffer) and (more := self.read(descriptor.number, buffer[got:], offset + got)):
                got += more
        except OSError as error:
            raise OSError(f"{self.paths[file]}, byte {offset}: {error.strerror}") from error
        if got < len(buffer):
            text = f"{len(buffer)} bytes wanted, {got} are there: the shard was cut after it was indexed"
            raise OSError(f"{self.paths[file]}, byte {offset}: {text}")
