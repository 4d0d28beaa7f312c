"""An address of an object store -> its objects' sizes, bytes, byte ranges; and objects from bytes and files.

    a request -> fails for a reason that may pass (5xx, a cut connection, silence) -> pause, ever longer -> again
                                                                                        ... for `patience` seconds

obstore speaks the protocols and keeps connections; `clouds` opens it.
"""

import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore import exceptions

from dist_train.clouds import open_store, remote, spoken

__all__ = ["Bucket", "Unreachable", "remote"]

SILENCE = 10.0  # seconds of a server in the middle of an answer: what hangs that long is asked anew
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
DOWNLOAD = 3600.0  # seconds that a whole object may take
ANSWER = re.compile(r"status code: (\d{3})")
PASSING = re.compile(r"status code: (408|425|429|5\d\d)|RequestTimeout|SlowDown|ExpiredToken")
TOLD = re.compile(r"<Code>([^<]+)</Code>.*?<Message>([^<]+)</Message>")
DENIED = re.compile(r"status code: 40[13]")
METADATA = re.compile(r"/latest/(api/token|meta-data)|/computeMetadata/|/metadata/identity")  # a cloud machine's own
UNKNOWN = 10.0  # seconds that such a machine may take to say who it is; elsewhere nobody answers
Value = TypeVar("Value")


class Unreachable(ConnectionError):
    """A store did not do what was asked for as long as one was patient: the run cannot go on, no sample is bad."""


class Short(Exception):
    """An answer ended before its end."""


@dataclass(eq=False)
class Bucket:
    """The objects under one address. Any thread may use it; the process that first asks opens the connections.

    Errors, each one line that names the object: FileNotFoundError, PermissionError, Unreachable; ValueError for an
    address or an object that cannot be what was asked for; OSError of the local disk.
    """

    address: str
    patience: float = 120.0
    fetched: int = 0  # bytes
    requests: int = 0
    repeated: int = 0  # requests that were sent again
    _stores: dict[bool, Any] = field(init=False, repr=False, default_factory=dict)
    _tags: dict[str, str] = field(init=False, repr=False, default_factory=dict)  # of objects whose ranges were read
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _given_up: threading.Event = field(init=False, repr=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.address = self.address.rstrip("/")
        self.said = spoken(self.address)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of each object by its name under the address. ValueError where the store has no list (http)."""
        if self.address.lower().startswith("http"):
            raise ValueError(f"{self.said}: a web server lists no objects")
        pages = self._patiently(prefix, lambda: list(obstore.list(self._store(), prefix or None, chunk_size=1000)))
        return {one["path"]: one["size"] for page in pages for one in page}

    def entries(self) -> dict[str, tuple[int, str, int]]:
        """Of each object by its name: bytes, tag (other bytes, another tag; empty where the store has none), and the
        time of its last change in nanoseconds. ValueError as `sizes`."""
        if self.address.lower().startswith("http"):
            raise ValueError(f"{self.said}: a web server lists no objects")
        pages = self._patiently("", lambda: list(obstore.list(self._store(long=True), chunk_size=1000)))
        return {
            one["path"]: (one["size"], one["e_tag"] or "", round(one["last_modified"].timestamp() * 1e6) * 1000)
            for page in pages
            for one in page
        }

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return int(self._head(name)["size"])

    def version(self, name: str) -> str:
        """What changes when the object is replaced; empty where the store does not say."""
        found = self._head(name)
        when = found["last_modified"].timestamp() if found["last_modified"] else 0
        return f"{found['e_tag']} {when} {found['size']}" if found["e_tag"] else ""

    def read(self, name: str) -> bytes:
        """A whole object (a small one)."""
        return self._patiently(name, lambda: bytes(self._body(obstore.get(self._store(), name))))

    def range(self, name: str, start: int, stop: int, size: int | None = None) -> memoryview:
        """The bytes [start, stop). ValueError where the object ends before, has not `size` bytes in all, or is not the
        one that it was at the first time."""

        def body() -> memoryview:
            try:
                answer = obstore.get(self._store(), name, options={"range": (start, stop)})
            except exceptions.NotSupportedError:
                raise ValueError(f"{self.said}/{name}: the server sends whole objects only, no byte ranges") from None
            except exceptions.GenericError as error:
                if "status code: 416" in str(error) or "Requested" in str(error):
                    self._same(name, obstore.head(self._store(), name), size or stop)
                raise
            self._same(name, answer.meta, size)
            return self._body(answer)

        return self._patiently(name, body)

    def _same(self, name: str, found: Any, size: int | None) -> None:
        """ValueError unless an object is the one that was indexed, and that was read before."""
        if size is not None and found["size"] != size:
            text = f"{found['size']} bytes, the index says {size}"
            raise ValueError(f"{self.said}/{name}: {text}: it was replaced; restore it, or index again")
        tag = found["e_tag"]
        if tag and not tag.startswith("W/") and self._tags.setdefault(name, tag) != tag:
            raise ValueError(f"{self.said}/{name}: it was replaced while it was read; restore it, or index again")

    def download(self, name: str, path: Path) -> None:
        """An object into a local file, in pieces."""

        def load() -> None:
            answer, written = obstore.get(self._store(long=True), name), 0
            with path.open("wb") as file:
                for piece in answer.stream(1 << 20):
                    written += file.write(piece)
            self._count(fetched=written)
            if written != answer.meta["size"]:
                raise Short(f"{written} bytes came of {answer.meta['size']}")

        self._patiently(name, load)

    def put(self, name: str, data: bytes | Path, new: bool = False) -> str:
        """Bytes or a file as an object, whole or not at all; its tag. `new`: FileExistsError where there is one."""
        try:
            mode: Any = "create" if new else "overwrite"
            found = self._patiently(name, lambda: obstore.put(self._store(long=True), name, data, mode=mode))
        except exceptions.AlreadyExistsError:
            raise FileExistsError(f"{self.said}/{name}: is there already") from None
        return str(found["e_tag"] or "")

    def delete(self, name: str) -> None:
        """Remove an object; nothing where there is none."""
        with suppress(FileNotFoundError):
            self._patiently(name, lambda: obstore.delete(self._store(), name))

    def move(self, name: str, to: str) -> None:
        """An object under another name, in the store itself; nothing where there is none."""
        with suppress(FileNotFoundError):
            self._patiently(name, lambda: obstore.rename(self._store(), name, to))

    def give_up(self) -> None:
        """End the pauses of requests that are being repeated: they fail with Unreachable."""
        self._given_up.set()
        self._given_up = threading.Event()

    def _head(self, name: str) -> Any:
        return self._patiently(name, lambda: obstore.head(self._store(), name))

    def _store(self, long: bool = False) -> Any:
        """`long`: for answers that may take longer than one is patient. Opened here, since a fork must not share it."""
        with self._lock:
            if long not in self._stores:
                silence = min(SILENCE, self.patience / 3)
                self._stores[long] = open_store(self.address, silence, DOWNLOAD if long else self.patience)
            return self._stores[long]

    def _body(self, answer: Any) -> memoryview:
        data = memoryview(answer.bytes())
        start, stop = answer.range
        self._count(fetched=len(data))
        if len(data) != stop - start:
            raise Short(f"{len(data)} bytes came of {stop - start}")
        return data

    def _count(self, fetched: int = 0, requests: int = 0, repeated: int = 0) -> None:
        with self._lock:
            self.fetched += fetched
            self.requests += requests
            self.repeated += repeated

    def _patiently(self, name: str, work: Callable[[], Value]) -> Value:
        """`work`, again and again while its failure may pass."""
        began, pause, given_up = time.monotonic(), FIRST_PAUSE, self._given_up
        where = f"{self.said}/{name}".rstrip("/")
        while True:
            self._count(requests=1)
            try:
                return work()
            except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
                raise PermissionError(f"{where}: access denied ({_reason(error)})") from None
            except (exceptions.AlreadyExistsError, ValueError):
                raise
            except (exceptions.BaseError, Short, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the local disk
                if isinstance(error, FileNotFoundError):
                    raise FileNotFoundError(f"{where}: is not there") from None
                unknown = METADATA.search(str(error)) is not None
                patience = min(UNKNOWN, self.patience) if unknown else self.patience
                late = time.monotonic() + pause > began + patience
                if unknown and (late or not _may_pass(error)):
                    text = "no credentials found; docs/shards.md says where they are looked for"
                    raise PermissionError(f"{where}: {text} ({_reason(error)})") from None
                if not _may_pass(error) and DENIED.search(str(error)):  # a list's: obstore has no kind of its own
                    raise PermissionError(f"{where}: access denied ({_reason(error)})") from None
                if not _may_pass(error):
                    raise ValueError(f"{where}: {_reason(error)}") from None
                if late or given_up.wait(pause * random.uniform(0.5, 1.0)):
                    text = f"no answer in {self.patience:g} s ({_reason(error)})"
                    raise Unreachable(f"{where}: {text}; is the store up?") from None
            self._count(repeated=1)
            pause = min(2 * pause, LONGEST_PAUSE)


def _may_pass(error: Exception) -> bool:
    """Not what the server refuses by its answer, such as 400, or a redirection to another region."""
    if not isinstance(error, exceptions.GenericError | Short | OSError):
        return False
    text = str(error)
    return bool(PASSING.search(text)) or not (ANSWER.search(text) or "redirect" in text)


def _reason(error: BaseException) -> str:
    """An error's first line, without the library's own dump; of a store that says why, its words."""
    text = " ".join(str(error).split("\n\nDebug source")[0].split())
    told = TOLD.search(text)
    return spoken(f"{told[2]} ({told[1]})" if told else text)[:300]
