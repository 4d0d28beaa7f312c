"""Byte ranges of shards in object stores -> bytes, from whole shards in a local cache; from the store where one is not.

    plan (ahead.py) --> wanted --(threads)--> cache.fetch --> ready --> read as local files
                           '-- no room, or much later than it is needed, or little of it is read --> ranges

A read waits for a shard that is on its way. A run never ends for lack of disk: it reads ranges then, with one warning.
"""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from dist_train.bucket import Unreachable
from dist_train.cache import Cache, Full, Shard
from dist_train.claims import Claims
from dist_train.storage import Files, Source

THREADS = 2  # shards in flight, for each rank
WAIT = 30.0  # seconds that a read waits for its shard: a fraction of what ranks wait for each other
AGAIN = 0.05  # seconds until a shard that somebody else fetches is looked for again


class Plan(Protocol):
    """Such as ahead.Ahead."""

    def move(self, position: int) -> list[int] | None:
        """The numbers of the files to have, the soonest needed first; None: as before."""


class Cached:
    """A storage.Source over files by number: `shards[i]`, where it is not None, in a store. Any thread may read.

    far: reads any of the files without the cache; note: takes one line when shards cannot be kept.
    Errors of a shard that is not as its index says, or not there: ValueError; Unreachable.
    """

    def __init__(
        self,
        cache: Cache,
        paths: Sequence[str],
        shards: Sequence[Shard | None],
        far: Source,
        plan: Plan,
        note: Callable[[str], None],
        wait: float = WAIT,
    ) -> None:
        self.cache, self.shards, self.far, self.plan, self.note, self.wait = cache, shards, far, plan, note, wait
        places = zip(paths, shards, strict=True)
        self.near = Files([path if shard is None else cache.path(shard) for path, shard in places])
        self.claims = Claims(cache.folder / "claims")
        self.turn = threading.Condition()
        self.local = {number for number, shard in enumerate(shards) if shard is None}
        self.ready = set(self.local)
        self.wanted: dict[int, float] = {}  # on their way, the soonest needed first; when to look for them
        self.asked: set[int] = set()  # of these, what reads wait for
        self.busy: set[int] = set()
        self.noted: set[str] = set()
        self.behind = self.closed = False
        self.error: Exception | None = None
        self.threads: list[threading.Thread] = []

    def reach(self, position: int) -> None:
        """All before `position` was read: fetch what comes next, and let go of what is over."""
        with self.turn:
            files = self.plan.move(position)
            if files is None or self.closed:
                return
            here = [number for number in files if self.shards[number] is not None]
            self.claims.hold([shard.sha256 for number in here if (shard := self.shards[number]) is not None])
            keep = self.held & set(here)
            self.ready -= {number for number in here if number not in keep} - self.local
            self.held = set(here)
            self.wanted = {number: 0.0 for number in here if number not in self.ready}
            if self.wanted and not self.threads:
                self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
                for thread in self.threads:
                    thread.start()
            self.turn.notify_all()
