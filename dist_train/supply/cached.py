"""Byte ranges of shards in object stores -> bytes, from whole shards in a local cache; from the store where one is not.

    plan (ahead.py) --> wanted --(threads)--> cache.fetch --> ready --> read as a local file
                           '-- no room, or long overdue, or only a little of it is read --> ranges

A read waits for a shard that is on its way. A run never ends for lack of disk: it reads ranges then, with one warning.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from numpy.typing import NDArray

from dist_train.settings import Config
from dist_train.storage import Files, Source
from dist_train.stores.bucket import Bucket, remote
from dist_train.supply.ahead import Ahead, Plan
from dist_train.supply.cache import Cache, Full, Shard
from dist_train.supply.claims import Claims
from dist_train.view import View

THREADS = 2  # shards under way, for each rank
WAIT = 30.0  # seconds that a read waits for its shard: a fraction of what ranks wait for each other
AGAIN = 0.05  # seconds until a shard that somebody else fetches is looked for again
JOIN = 2.0  # seconds


class Cached:
    """A storage.Source over files by number, of which those with a shard lie in a store. Any thread may read.

    Errors of a shard that is gone, closed to us, or not the one that was indexed: ValueError; Unreachable for a store.
    """

    far = True

    def __init__(
        self,
        cache: Cache,
        files: Sequence[Path | str],
        shards: dict[int, Shard],
        ranges: Source,
        plan: Plan | None,
        note: Callable[[str], None],
        wait: float = WAIT,
    ) -> None:
        """shards: by the file's number; ranges: reads any of the files without the cache; plan: which shards to fetch
        when (None: none, but those that are there are read); note: takes a line when ranges are read for want of one.
        """
        self.cache, self.shards, self.ranges, self.plan, self.note, self.wait = cache, shards, ranges, plan, note, wait
        self.files = Files([cache.path(shards[one]) if one in shards else file for one, file in enumerate(files)])
        self.claims = Claims(cache.folder / "claims")
        self.turn = threading.Condition()
        self.ready: set[int] = set()  # in the cache
        self.planned: set[int] = set()
        self.wanted: dict[int, float] = {}  # on their way, the soonest needed first; when to look for them
        self.asked: set[int] = set()  # of these, what reads wait for
        self.busy: set[int] = set()
        self.behind = self.full = self.closed = False
        self.error: Exception | None = None
        self.threads: list[threading.Thread] = []

    def follow(self, requests: Iterator[NDArray[Any]], depth: int) -> Iterator[NDArray[Any]]:
        """The requests of a reader; as it asks for them, the plan moves on. depth: requests that it reads at once."""
        firsts = deque[int](maxlen=depth + 1)
        for request in requests:
            firsts.append(int(request["position"].min(initial=2**62)))
            self.reach(firsts[0], firsts[-1])
            yield request

    def reach(self, read: int, asked: int) -> None:
        """All before `read` was read, `asked` is next: let go of shards that are over, and fetch what comes."""
        with self.turn:
            files = self.plan.move(read, asked) if self.plan is not None and not self.closed else None
            if files is None:
                return
            here = [file for file in files if file in self.shards]
            self.claims.hold([self.shards[file].sha256 for file in here])
            self.ready -= set(here) - self.planned  # these may have gone since
            self.planned = set(here)
            self.wanted = {file: 0.0 for file in here if file not in self.ready}
            if self.wanted and not self.threads:
                self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
                for thread in self.threads:
                    thread.start()
            self.turn.notify_all()

    def read_rows(
        self, files: Sequence[int], offsets: Sequence[int], buffers: Sequence[memoryview]
    ) -> dict[int, OSError]:
        """As a Source does."""
        local = self._local(set(files))
        near = [row for row, file in enumerate(files) if file in local]
        far = [row for row, file in enumerate(files) if file not in local]
        for row in _rows(self.files, near, files, offsets, buffers):  # evicted, or damaged on our disk
            self._lost(files[row])
            far.append(row)
        return _rows(self.ranges, far, files, offsets, buffers)

    def traffic(self) -> tuple[int, int, int]:
        """Bytes that came over the network, requests, and requests that were sent again, so far."""
        buckets = {id(shard.bucket): shard.bucket for shard in self.shards.values()}.values()
        fetched, requests, repeated = self.ranges.traffic() or (0, 0, 0)
        sums = sum(b.fetched for b in buckets), sum(b.requests for b in buckets), sum(b.repeated for b in buckets)
        return fetched + sums[0], requests + sums[1], repeated + sums[2]

    def close(self) -> None:
        """Stop fetching; what is half fetched is removed."""
        with self.turn:
            self.closed = True
            self.turn.notify_all()
        for bucket in {id(shard.bucket): shard.bucket for shard in self.shards.values()}.values():
            bucket.give_up()
        until = time.monotonic() + JOIN
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.files.close()
        self.ranges.close()
        self.claims.close()

    def _local(self, files: set[int]) -> set[int]:
        """Which of the files to read on this disk, after a wait for those that are on their way."""
        with self.turn:
            coming = self.wanted.keys() & files
            if coming and not self.behind:
                self.asked |= coming
                self.turn.notify_all()
                if not self.turn.wait_for(partial(self._settled, coming), self.wait):
                    # Reads would crawl from one wait to the next. They wait again when all that is wanted is here.
                    self.behind = True
                    self.note(f"{self.cache.folder}: shards come too late, ranges of them are read meanwhile")
            if self.error is not None:
                raise self.error
            others = (files & self.shards.keys()) - self.ready - self.wanted.keys()
            self.ready |= {file for file in others if self.cache.have(self.shards[file])}
            return self.ready & files

    def _settled(self, coming: set[int]) -> bool:
        """There is no more to wait for."""
        return self.closed or self.error is not None or not coming & self.wanted.keys()

    def _lost(self, file: int) -> None:
        """A file that was there cannot be read any more."""
        with self.turn:
            self.ready.discard(file)
            self.files.forget(file)
            self.cache.doubt(self.shards[file])
            if file in self.planned:
                self.wanted.setdefault(file, 0.0)
                self.turn.notify_all()

    def _work(self) -> None:
        """A thread's life: the next shard that is wanted, and again."""
        while True:
            with self.turn:
                while (file := self._next()) is None and not self.closed:
                    self.turn.wait(AGAIN if len(self.wanted) > sum(one in self.wanted for one in self.busy) else None)
                if file is None or self.closed:
                    return
                self.busy.add(file)
            found, error = None, cast(Exception | None, None)
            try:
                shard = self.shards[file]
                found = self.cache.find(shard) or self.cache.fetch(shard, partial(self._unwanted, file))
            except Full as problem:
                self._no_room(problem)
            except (FileNotFoundError, PermissionError) as problem:
                error = ValueError(str(problem))
            except Exception as problem:
                error = problem
            self._done(file, found is not None, error)

    def _next(self) -> int | None:
        now = time.monotonic()
        order = itertools.chain((file for file in self.asked if file in self.wanted), self.wanted)
        return next((file for file in order if file not in self.busy and self.wanted[file] <= now), None)

    def _unwanted(self, file: int) -> bool:
        return self.closed or file not in self.wanted

    def _done(self, file: int, found: bool, error: Exception | None) -> None:
        with self.turn:
            self.busy.discard(file)
            self.asked.discard(file)
            if found:
                self.ready.add(file)
                self.wanted.pop(file, None)
            elif file in self.wanted:
                self.wanted[file] = time.monotonic() + AGAIN
            self.behind = self.behind and bool(self.wanted)
            if error is not None and not self.closed:
                self.error = error
            self.turn.notify_all()

    def _no_room(self, problem: Full) -> None:
        """What is not here is read as ranges until the plan moves on."""
        with self.turn:
            self.wanted.clear()
            if not self.full:
                self.full = True
                self.note(f"{problem}; ranges are read instead")


def of_view(
    view: View, ranges: Source, config: Config, plan: Plan | None = None, note: Callable[[str], None] | None = None
) -> Source:
    """`ranges` with the cache of a configuration before it; `ranges` as they are where there is none, or no store.

    ValueError where the cache's folder cannot be written and a run begins (`plan` is Ahead); a pass goes on without it.
    """
    folder, size = config.data.cache, config.data.cache_gb
    shards: dict[int, Shard] = {}
    first = 0
    for one in view.sets:
        if remote(one.root):
            bucket = Bucket(str(one.root), config.patience)
            for file, said in enumerate(one.info["shards"], first):
                shards[file] = Shard(bucket, said["name"], said["bytes"], said["sha256"])
        first += len(one.names)
    if folder is None or not shards:
        return ranges
    note = note or (lambda text: None)
    if isinstance(plan, Ahead) and plan.advice is not None:
        note(plan.advice)
    try:
        cache = Cache(folder, None if size is None else int(size * 1e9))
        return Cached(cache, view.files, shards, ranges, plan, note)
    except (ValueError, OSError) as error:
        if isinstance(plan, Ahead):
            raise ValueError(f"data.cache_dir: {error}") from None
        return ranges


def _rows(
    source: Source,
    rows: Sequence[int],
    files: Sequence[int],
    offsets: Sequence[int],
    buffers: Sequence[memoryview],
) -> dict[int, OSError]:
    """Some of the rows from a source."""
    if not rows:
        return {}
    some = ([values[row] for row in rows] for values in (files, offsets, buffers))
    return {rows[place]: error for place, error in source.read_rows(*some).items()}  # type: ignore[arg-type]
