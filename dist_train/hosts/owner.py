"""Who has a place that another job may want too: a mark there with the holder's name and a counter that it moves.

FileMark    RUN/.owner, on a disk that hosts may share        ObjectMark    STORE/NAME/owner.json

No clock but this process's own is read: a mark that stands still for `STILL` seconds is of a dead job, and is taken
over. That is not one indivisible act: two jobs that take over the same dead one's mark at the same moment may both
think it theirs, until each reads the mark again (`BEAT` seconds later at most) and the one whose it is not stops.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dist_train import environment
from dist_train.stores.bucket import Bucket

BEAT = 3.0  # seconds between two moves of the counter
STILL = 15.0  # seconds without one after which a holder counts as dead
_WIDTH = 1024  # bytes of a mark: it is overwritten in place, so that caches of a network's disk see the same file


class Mark(Protocol):
    """Where a mark lies; errors of the disk or the store are `OSError`s."""

    name: str

    def read(self) -> bytes:
        """Its bytes, none where there is none."""

    def write(self, data: bytes, new: bool) -> None:
        """`new`: FileExistsError where there is one."""

    def remove(self) -> None:
        """Nothing where there is none."""


class FileMark:
    """A mark in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path.parent)

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def write(self, data: bytes, new: bool) -> None:
        with self.path.open("xb" if new or not self.path.exists() else "r+b") as file:
            file.write(data)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class ObjectMark:
    """A mark in an object store. `patient`: for making it, which the run waits for; `bucket` is for its life."""

    def __init__(self, bucket: Bucket, patient: Bucket) -> None:
        self.bucket, self.patient, self.name, self._object = bucket, patient, bucket.address, "owner.json"

    def read(self) -> bytes:
        try:
            return self.bucket.read(self._object)
        except FileNotFoundError:
            return b""

    def write(self, data: bytes, new: bool) -> None:
        (self.patient if new else self.bucket).put(self._object, data, new=new)

    def remove(self) -> None:
        self.bucket.delete(self._object)


class Busy(ValueError):
    """Another process has a place; `job`: the launcher's name of its job, if it has one."""

    def __init__(self, text: str, job: str) -> None:
        super().__init__(text)
        self.job = job


def patiently(claim: Callable[[], None], job: str, seconds: float) -> None:
    """Claim a place; one that this same `job` has is waited for: its ranks are of before a new start, and about to end.

    Errors: `Busy` and others of `claim`.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return claim()
        except Busy as error:
            if not job or error.job != job or time.monotonic() > until:
                raise
        time.sleep(0.5)


class Owner:
    """This job's mark in one place, from `claim` to `release`; a thread moves its counter."""

    def __init__(self, mark: Mark, token: str, job: str = "") -> None:
        """`token`: this process's, unlike any other's; `job`: the launcher's name."""
        self.mark, self.token, self.taken = mark, token, ""
        self._me = {
            "token": token,
            "job": job,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": environment.now(),
            "command": " ".join(sys.argv)[:200],
        }
        self._beats = 0
        self._held = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def claim(self, dead: Callable[[dict[str, Any]], bool]) -> None:
        """Put the mark. `dead`: tells of another's mark that its job is known to be over.

        Errors: `Busy` naming the job that has the place, after `STILL` seconds at most; `OSError`.
        """
        try:
            self.mark.write(self._bytes(), new=True)
        except FileExistsError:
            self._take_over(dead)
        self._held = True
        self._thread = threading.Thread(target=self._beat, name="owner", daemon=True)
        self._thread.start()

    def refuse(self, found: bytes) -> Busy:
        """The line for one who wants a place that `found` marks."""
        record = _record(found)
        text = f"{self.mark.name}: in use by {_named(record)}; wait for it or give another run.name"
        return Busy(text, str(record.get("job", "")))

    def check(self) -> None:
        """Errors: `ValueError` where another job has taken the place over: this one must write no more."""
        if self.taken:
            raise ValueError(f"{self.mark.name}: taken over by {self.taken}; this job ends, that one goes on")

    def release(self) -> None:
        """Take the mark away, unless it is another's."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._held and not self.taken:
            with suppress(OSError, ValueError):
                self.mark.remove()
        self._held = False

    def _take_over(self, dead: Callable[[dict[str, Any]], bool]) -> None:
        found = self.mark.read()
        until = time.monotonic() + (0 if dead(_record(found)) else STILL)
        while time.monotonic() < until:
            time.sleep(BEAT / 3)
            now = self.mark.read()
            if now and now != found:
                raise self.refuse(now)
            if not now and not found:  # it has let go, not just begun to write
                break
            found = now
        self.mark.remove()
        try:
            self.mark.write(self._bytes(), new=True)
        except FileExistsError:
            raise self.refuse(self.mark.read()) from None

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with suppress(OSError, ValueError):  # a full disk, a store that is down: the next beat may pass
                found = _record(self.mark.read())
                if found and found.get("token") != self.token:
                    self.taken = _named(found)
                    return
                self._beats += 1
                self.mark.write(self._bytes(), new=False)

    def _bytes(self) -> bytes:
        return json.dumps(self._me | {"beat": self._beats}).encode().ljust(_WIDTH)


def token_of(mark: Mark) -> str:
    """The token of the job whose mark lies there; "" without one."""
    return str(_record(mark.read()).get("token", ""))


def _record(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _named(record: dict[str, Any]) -> str:
    if not {"pid", "host", "since", "command"} <= record.keys():
        return "another process"
    return f"process {record['pid']} on {record['host']} since {record['since']} ({record['command']})"
