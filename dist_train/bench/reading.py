"""The reader beside webdataset and beside a DataLoader's worker.

raw records     shards in the page cache -> bytes: ours in random order into a ring of buffers, webdataset in the order
                of the shards
hand-over       a batch of raw audio made elsewhere -> the training loop: from the ring, or from a worker process
"""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from dist_train.bench import material, peer
from dist_train.bench.pair import paired
from dist_train.bench.row import Row, Work, duration, rate
from dist_train.reader import RawBatch, Reader
from dist_train.settings import Audio
from dist_train.storage import Files
from dist_train.view import View
from dist_train.window import full_windows

Planner = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]
"""(ids, positions) -> PLAN rows."""

BATCH = 64
PLANNED = 1024
PAGE = 4096
STARTING = 8
ALONE = "what the loop spends on a batch that is ready, each page touched"
PAUSE = 0.06  # seconds in which a batch of 6 MB gets ready on either side


class Stream:
    """A reader over endless requests, in random order: as in training, its buffers outlive each measurement.

    `plan` makes PLAN rows of ids and positions. The first batches, whose memory is new, are taken at once.
    """

    def __init__(self, view: View, batch: int, plan: Planner, depth: int = 4) -> None:
        self.batch, self.depth = batch, depth
        self.reader = Reader(Files(view.files), requests(view, batch, plan), threads=1, depth=depth)
        self.run(4 * depth * batch)

    def run(self, count: int, use: Callable[[RawBatch], object] = lambda raw: None) -> None:
        """Take batches of `count` clips in all."""
        for _ in range(max(1, count // self.batch)):
            raw = next(self.reader)
            use(raw)
            raw.release()

    def timed(self, count: int) -> float:
        """Seconds of `count` clips in all, of which none was read before they began."""
        self.run((self.depth + 1) * self.batch)
        begun = time.perf_counter()
        self.run(count)
        return time.perf_counter() - begun


def requests(view: View, batch: int, plan: Planner) -> Iterator[NDArray[Any]]:
    """Clips in random order, batch by batch without end, planned about a thousand at once as training plans them."""
    order, position = np.random.default_rng(1).permutation(len(view)), 0
    size = max(1, PLANNED // batch) * batch
    while True:
        positions = np.arange(position, position + size)
        rows = plan(order[positions % len(order)], positions)
        yield from (rows[start : start + batch] for start in range(0, size, batch))
        position += size


def whole(view: View) -> Planner:
    """Whole clips."""
    return lambda ids, positions: full_windows(view.rows(ids), ids, Audio(), 1000.0)  # type: ignore[call-arg]


def _records(work: Work, name: str, count: int, seconds: float, batch: int, goal: float) -> list[Row]:
    folder = material.shard_folder(work, count, seconds)
    view, count = material.opened(folder), count // batch * batch
    webdataset, version = peer.take("webdataset")

    def theirs() -> None:
        tars = sorted(str(path) for path in Path(folder).glob("*.tar"))
        for sample in webdataset.WebDataset(tars, shardshuffle=False):
            assert sample["wav"]

    stream = Stream(view, batch, whole(view))
    pair = paired(lambda: stream.timed(count), theirs if webdataset else None, work.times)
    said = {"peer": "webdataset", "version": version, "goal": goal, "note": f"batches of {batch}, random order"}
    return [rate("read", name, pair, count, "clips/s", **said)]


def large(work: Work) -> list[Row]:
    """Records of 96 KB: 3 s of 16 kHz PCM16."""
    return _records(work, "96 KB records", work.size(2048, 512), 3.0, BATCH, 6.0)


def small(work: Work) -> list[Row]:
    """Records of 6 KB: 0.19 s."""
    return _records(work, "6 KB records", work.size(20480, 2048), 0.19, 512, 25.0)


class Batches(IterableDataset[torch.Tensor]):
    """The same reader in a worker process; its batches go to the loop through shared memory."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __iter__(self) -> Iterator[torch.Tensor]:
        view = material.opened(self.folder)
        with Reader(Files(view.files), requests(view, BATCH, whole(view)), threads=1, depth=2) as reader:
            for raw in islice(reader, self.count // BATCH):
                yield raw.data.clone()  # its own: the buffer is written to again
                raw.release()


def hand_over(work: Work) -> list[Row]:
    """64 x 96 KB from the ring, or from one worker: all the work of both sides on one core; then only what the loop
    itself spends on taking a batch that is ready and touching each of its pages once."""
    folder = material.shard_folder(work, work.size(2048, 512), 3.0)
    view = material.opened(folder)
    said = {"peer": "torch DataLoader, 1 worker", "version": torch.__version__}

    def from_ring(batches: int, pause: float) -> float:
        with Reader(Files(view.files), requests(view, BATCH, whole(view)), threads=1, depth=2) as reader:
            return _taken(((raw.data, raw) for raw in reader), batches, pause)

    def from_worker(batches: int, pause: float) -> float:
        loader = DataLoader(Batches(folder, batches * BATCH), batch_size=None, num_workers=1)
        return _taken(((data, None) for data in loader), batches, pause)

    many = work.size(40, 16)
    every = paired(lambda: from_ring(many, 0.0), lambda: from_worker(many, 0.0), work.times)
    few, times = work.size(24, 12), max(1, work.times // 3)
    ready = paired(lambda: from_ring(few, PAUSE), lambda: from_worker(few, PAUSE), times)
    note = "reading included, each page touched: one core for all"
    return [
        duration("read", "64 x 96 KB read, handed over", every, 1, "ms a batch", note=note, **said),
        duration("read", "hand-over of 64 x 96 KB", ready, 1, "ms a batch", goal=10.0, note=ALONE, **said),
    ]


def _taken(source: Iterator[tuple[torch.Tensor, Any]], batches: int, pause: float) -> float:
    """Seconds a batch: to take it and touch its pages; the first eight, whose memory may be new, do not count."""
    spent = 0.0
    for number in range(batches):
        time.sleep(pause)
        begun = time.perf_counter()
        data, raw = next(source)
        data.view(-1)[::PAGE].sum()
        if raw is not None:
            raw.release()
        if number >= STARTING:
            spent += time.perf_counter() - begun
        del data
    return spent / max(1, batches - STARTING)
