"""An address of an object store -> its objects' sizes, bytes, byte ranges; and objects from bytes and files.

s3://BUCKET/PATH  gs://BUCKET/PATH  az://CONTAINER/PATH  http(s)://HOST/PATH

obstore speaks the protocols, finds credentials as the clouds' own tools do, and keeps connections. A request that
fails for a reason that may pass (5xx, a cut connection, silence) is sent again, ever later, for `patience` seconds.
"""

import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore import exceptions

ADDRESS = re.compile(r"(s3|gs|az|https?)://[^/]+", re.IGNORECASE)
SILENCE = timedelta(seconds=20)  # of a server in the middle of an answer
CONNECT = timedelta(seconds=10)
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
Value = TypeVar("Value")


def remote(name: object) -> bool:
    """Whether a name is an address of an object store and no path."""
    return ADDRESS.match(str(name)) is not None


class Unreachable(ConnectionError):
    """A store did not do what was asked for as long as one was patient: the run cannot go on, no sample is bad."""


@dataclass(eq=False)
class Bucket:
    """The objects under one address. Any thread may use it.

    Errors, each one line that names the object: FileNotFoundError, PermissionError, Unreachable; ValueError for an
    address or an object that cannot be what was asked for.
    """

    address: str
    patience: float = 120.0
    fetched: int = 0  # bytes
    requests: int = 0
    repeated: int = 0  # requests that were sent again
    _store: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.address = self.address.rstrip("/")
        self._store = _open(self.address)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of each object by its name under the address. ValueError where the store has no list (http)."""
        if self.address.lower().startswith("http"):
            raise ValueError(f"{self.address}: a web server lists no objects")
        pages = self._patiently(prefix, lambda: list(obstore.list(self._store, prefix or None)))
        return {one["path"]: one["size"] for page in pages for one in page}

    def size(self, name: str) -> int:
        """Bytes of an object."""
        return int(self._patiently(name, lambda: obstore.head(self._store, name))["size"])

    def read(self, name: str) -> bytes:
        """A whole object (a small one)."""
        return self._patiently(name, lambda: self._body(obstore.get(self._store, name)))

    def range(self, name: str, start: int, stop: int, size: int | None = None) -> memoryview:
        """The bytes [start, stop). ValueError where the object ends before, or has not `size` bytes in all."""

        def get() -> Any:
            return obstore.get(self._store, name, options={"range": (start, stop)})

        def body() -> memoryview:
            answer = get()
            if size is not None and answer.meta["size"] != size:
                raise ValueError(
                    f"{self.address}/{name}: {answer.meta['size']} bytes, the index says {size}: it was replaced"
                )
            return memoryview(self._body(answer))

        return self._patiently(name, body)

    def download(self, name: str, path: Path) -> None:
        """An object into a local file, in pieces."""

        def load() -> None:
            with path.open("wb") as file:
                for piece in obstore.get(self._store, name).stream(1 << 20):
                    self.fetched += file.write(piece)

        self._patiently(name, load)

    def put(self, name: str, data: bytes | Path, new: bool = False) -> None:
        """Bytes or a file as an object, whole or not at all. `new`: FileExistsError where there is one already."""
        try:
            mode: Any = "create" if new else "overwrite"
            self._patiently(name, lambda: obstore.put(self._store, name, data, mode=mode))
        except exceptions.AlreadyExistsError:
            raise FileExistsError(f"{self.address}/{name}: is there already") from None

    def delete(self, name: str) -> None:
        """Remove an object; nothing where there is none."""
        with suppress(FileNotFoundError):
            self._patiently(name, lambda: obstore.delete(self._store, name))

    def move(self, name: str, to: str) -> None:
        """An object under another name, in the store itself; nothing where there is none."""
        with suppress(FileNotFoundError):
            self._patiently(name, lambda: obstore.rename(self._store, name, to))

    def _body(self, answer: Any) -> bytes:
        data = answer.bytes().to_bytes()
        start, stop = answer.range
        if len(data) != stop - start:
            raise Short(f"{len(data)} bytes came of {stop - start}")
        self.fetched += len(data)
        return bytes(data)

    def _patiently(self, name: str, work: Callable[[], Value]) -> Value:
        """`work`, again and again while its failure may pass."""
        until, pause = time.monotonic() + self.patience, FIRST_PAUSE
        while True:
            self.requests += 1
            try:
                return work()
            except FileNotFoundError:
                raise FileNotFoundError(f"{self.address}/{name}: is not there") from None
            except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
                raise PermissionError(f"{self.address}/{name}: access denied ({_reason(error)})") from None
            except (exceptions.GenericError, Short, OSError) as error:
                if time.monotonic() + pause > until:
                    text = f"no answer in {self.patience:g} s ({_reason(error)})"
                    raise Unreachable(f"{self.address}/{name}: {text}; is the store up?") from None
            self.repeated += 1
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)


class Short(Exception):
    """An answer ended before its end."""


def _open(address: str) -> Any:
    from obstore.store import HTTPStore, from_url

    options: Any = {
        "connect_timeout": CONNECT,
        "read_timeout": SILENCE,
        "timeout": timedelta(hours=1),
        "allow_http": True,
    }
    retry: Any = {"max_retries": 0}
    if address.lower().startswith("http"):
        return HTTPStore.from_url(address, client_options=options, retry_config=retry)
    return from_url(address, client_options=options, retry_config=retry)


def _reason(error: BaseException) -> str:
    """An error's first line, without the library's own dump."""
    return " ".join(str(error).split("\n\nDebug source")[0].split())[:300]
