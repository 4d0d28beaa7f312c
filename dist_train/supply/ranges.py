"""Shards in an object store: byte ranges of many samples at once -> the caller's memory.

    rows of a group, by shard and offset  -->  spans (neighbours joined)  -->  requests, many in flight  -->  buffers

A request's answer takes tens of milliseconds however short it is, so what counts is how many are under way.
What fails here is the store's or the set's failure, never a sample's: it stops the run.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dist_train.stores.bucket import Bucket

IN_FLIGHT = 128  # requests
GAP = 1 / 32  # of the wanted bytes beside it: what is fetched between neighbours for nothing
LONGEST = 8 << 20  # bytes of joined neighbours: longer ones are not worth waiting for in one piece


@dataclass
class Span:
    """Bytes [start, stop) of a shard, and the rows that lie in them."""

    file: int
    start: int
    stop: int
    wanted: int  # bytes of its rows, each counted once
    rows: list[int]


class Ranges:
    """Shards by number, at addresses. Any thread may read; connections are opened by the process that first does.

    Errors: ValueError for a shard that is gone, closed to us, or not the one that was indexed; Unreachable for a store
    that is down for longer than `patience` seconds.
    """

    far = True

    def __init__(self, addresses: Sequence[str], sizes: Sequence[int], patience: float) -> None:
        """`sizes`: bytes of each shard, as the index says."""
        assert len(addresses) == len(sizes)
        self.addresses, self.sizes = list(addresses), list(sizes)
        places = [address.rpartition("/") for address in addresses]
        self.names = [name for _, _, name in places]
        self.buckets = {root: Bucket(root, patience) for root, _, _ in places}
        self.of = [self.buckets[root] for root, _, _ in places]
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def read_rows(
        self, files: Sequence[int], offsets: Sequence[int], buffers: Sequence[memoryview]
    ) -> dict[int, OSError]:
        """As a Source does; what failed are rows that lie behind their shard's end."""
        failed = dict[int, OSError]()
        for row, (file, offset, buffer) in enumerate(zip(files, offsets, buffers, strict=True)):
            if offset + len(buffer) > self.sizes[file]:
                text = f"{len(buffer)} bytes wanted, the shard has {self.sizes[file]}: the index is damaged"
                failed[row] = OSError(f"{self.addresses[file]}, byte {offset}: {text}")
        good = [row for row in range(len(files)) if row not in failed]
        found = spans(good, files, offsets, [len(buffer) for buffer in buffers])
        if not found:
            return failed
        waiting = [self._submit(span, offsets, buffers) for span in found[1:]]
        try:
            self._fetch(found[0], offsets, buffers)
            for future in waiting:
                future.result()
        finally:
            for future in waiting:
                future.cancel()
        return failed

    def close(self) -> None:
        """Give up what is under way, so that no thread outlives the reader for long; a later read begins anew."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
            for bucket in self.buckets.values():
                bucket.give_up()

    def traffic(self) -> tuple[int, int, int]:
        """Bytes fetched, requests, and requests that were sent again, so far."""
        buckets = self.buckets.values()
        return sum(b.fetched for b in buckets), sum(b.requests for b in buckets), sum(b.repeated for b in buckets)

    def _submit(self, span: Span, offsets: Sequence[int], buffers: Sequence[memoryview]) -> "Future[None]":
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(IN_FLIGHT, "ranges")
            return self._pool.submit(self._fetch, span, offsets, buffers)

    def _fetch(self, span: Span, offsets: Sequence[int], buffers: Sequence[memoryview]) -> None:
        try:
            data = self.of[span.file].range(self.names[span.file], span.start, span.stop, self.sizes[span.file])
        except (FileNotFoundError, PermissionError) as error:
            raise ValueError(str(error)) from None
        for row in span.rows:
            begin = offsets[row] - span.start
            buffers[row][:] = data[begin : begin + len(buffers[row])]


def spans(rows: Sequence[int], files: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> list[Span]:
    """What to request for the rows: side by side or nearly so, in one shard, they are one request."""
    found: list[Span] = []
    for row in sorted((row for row in rows if sizes[row]), key=lambda row: (files[row], offsets[row])):
        start, stop = offsets[row], offsets[row] + sizes[row]
        last = found[-1] if found and found[-1].file == files[row] else None
        if (
            last is not None
            and start - last.stop <= GAP * min(last.wanted, sizes[row])
            and (stop - last.start <= LONGEST or stop <= last.stop)
        ):
            last.wanted += max(0, stop - max(start, last.stop))
            last.stop = max(last.stop, stop)
            last.rows.append(row)
        else:
            found.append(Span(files[row], start, stop, sizes[row], [row]))
    return found
