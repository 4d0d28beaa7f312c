"""A hundred million samples in a hundred thousand shards, and a thousand ranks: what each rank pays for the order.

The index is sparse: files of the right size that hold zeros, but for index.json, so nothing of it fills a disk. What is
measured is real for it: opening, choosing, finding rows; the order needs the sizes of shards only. Times are CPU
seconds of one core: all of it runs in one thread, and waits of the machine's other work are not a rank's.
"""

import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dist_train.archive import row
from dist_train.bench.row import Row, Work
from dist_train.order import Order, group_bounds, rank_groups
from dist_train.settings import Config
from dist_train.shards import open_set
from dist_train.view import View, choose
from dist_train.window import train_windows

GROUP = "scale"
RANKS, LOCAL = 1000, 32  # clips of a rank a step


def sparse_index(folder: Path, samples: int, shards: int) -> Path:
    """A folder of `shards` empty tars and an index that says they hold `samples`."""
    each, names = samples // shards, [f"s-{number:06d}.tar" for number in range(shards)]
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    arrays: dict[str, tuple[Any, tuple[int, ...]]] = {
        row.ROWS: (row.ROW, (samples,)),
        row.ACTIVITY: (np.dtype("u1"), (samples, row.SEGMENTS)),
        row.KEY_ENDS: (np.dtype("<u8"), (samples + 1,)),
    }
    files = {}
    for name, (dtype, shape) in arrays.items():
        with (folder / name).open("wb") as file:
            head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            file.truncate(file.tell() + math.prod(shape) * dtype.itemsize)
            files[name] = {"bytes": file.tell(), "sha256": "0" * 64}
    (folder / row.KEYS).touch()
    files[row.KEYS] = {"bytes": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
    listed = [
        {"name": name, "bytes": 0, "samples": each, "sha256": f"{number:064x}"} for number, name in enumerate(names)
    ]
    info = {"version": row.VERSION, "fingerprint": "0" * 64, "totals": {"samples": samples, "seconds": 0.0}}
    info |= {"classes": ["a", "b"], "files": files, "shards": listed}
    (folder / row.INDEX).write_text(json.dumps(info, indent=1))
    return folder


def measure(work: Work) -> list[Row]:
    """Opening, choosing and ordering, each beside its goal where it has one."""
    samples, shards = work.size(100_000_000, 4_000_000), work.size(100_000, 1000)
    ranks = work.size(RANKS, 20)
    rows = _order(np.full(shards, samples // shards), ranks)
    folder = sparse_index(work.folder / f"sparse-{samples}", samples, shards)
    before = anonymous()
    begun = time.process_time()
    one = open_set(folder)
    opened = time.process_time() - begun
    view = choose([one])
    note = f"{samples:,} rows, index.json of {(folder / row.INDEX).stat().st_size / 1e6:.1f} MB, {shards:,} shards"
    rows.append(Row(GROUP, "opening an index", "s", ours=opened, note=note))
    rows.append(Row(GROUP, "memory of an open index", "MB", ours=anonymous() - before, goal_most=200, note="RssAnon"))
    random = np.random.default_rng(0)
    found, chosen = [], [random.integers(0, samples, 1024) for _ in range(20)]
    for ids in chosen:
        begun = time.process_time()
        view.rows(ids)
        found.append((time.process_time() - begun) / len(ids))
    rows.append(Row(GROUP, "a row, found at random", "us", ours=1e6 * float(np.median(found)), note="1024 at a time"))
    rows += _choices(one, samples)
    return [*rows, _plan(view, samples)]


def _order(sizes: Any, ranks: int) -> list[Row]:
    """The order of each rank, with one lane and with a lane a rank, simulated one after another."""
    rows = []
    for lanes, some in ((1, ranks // 20), (RANKS, ranks)):
        cold, warm, spent, held = [], [], [], []
        for rank in range(some):
            before = anonymous()
            begun = time.process_time()
            order = Order(sizes, 1, lanes, 2**20, LOCAL)
            step = _steps(order, rank * RANKS // some)
            step(1000)
            cold.append(time.process_time() - begun)
            begun = time.process_time()
            for number in range(1001, 1011):
                step(number)
            warm.append((time.process_time() - begun) / 10)
            begun = time.process_time()
            for number in range(1011, 1111) if rank < 5 else ():
                step(number)
            spent += [(time.process_time() - begun) / 100] if rank < 5 else []
            held.append(anonymous() - before)
        name = f"{lanes} lane{'s' if lanes > 1 else ''}"
        said = f"{some} ranks, batch {RANKS * LOCAL:,}, {int(sizes.sum()):,} samples, {len(sizes):,} shards"
        rows += [
            Row(GROUP, f"order, first step, {name}", "s", ours=max(cold), goal_most=2, note=f"slowest of {said}"),
            Row(GROUP, f"order, a step, {name}", "ms", ours=1e3 * float(np.median(warm)), goal_most=1, note=said),
            Row(
                GROUP,
                f"order, with new windows, {name}",
                "ms a step",
                ours=1e3 * float(np.mean(spent)),
                note="100 steps",
            ),
            Row(GROUP, f"order, memory, {name}", "MB", ours=max(held), goal_most=200, note="RssAnon, largest rank"),
        ]
    return rows


def _steps(order: Order, rank: int) -> Callable[[int], None]:
    bounds = group_bounds(RANKS * LOCAL, LOCAL)

    def step(number: int) -> None:
        for group in rank_groups(len(bounds) - 1, rank, RANKS):
            order.ids(number * RANKS * LOCAL + int(bounds[group]), int(bounds[group + 1] - bounds[group]))

    return step


def _choices(one: Any, samples: int) -> list[Row]:
    """What choosing takes where rows must be looked at: all of them, once or (balanced) three times."""
    rows = []
    for name, choice in (("a fold held out", {"without_folds": [1]}), ("classes balanced", {"balance": "class"})):
        before, begun = anonymous(), time.process_time()
        view = choose([one], **choice)
        spent, held = time.process_time() - begun, anonymous() - before
        assert len(view) == samples
        rows.append(Row(GROUP, f"choosing, {name}", "s", ours=spent, note=f"{samples:,} rows"))
        rows.append(Row(GROUP, f"memory, {name}", "MB", ours=held, goal_most=200, note="RssAnon"))
    return rows


def _plan(view: View, samples: int) -> Row:
    """The plan of one rank's groups, 32 of them at once as in training: rows, crops, speeds and draws."""
    config = Config()  # type: ignore[call-arg]
    spent = []
    for turn in range(10):
        positions = np.arange(1024) * RANKS + turn
        begun = time.process_time()
        ids = positions * 7919 % samples
        rows = view.rows(ids)
        for name, value in (("rate", 16000), ("frames", 80000), ("codec", row.CODECS.S16), ("channels", 1)):
            rows[name] = value  # the sparse index has zeros
        train_windows(rows, ids, positions, None, config.audio, config.augment, 0)
        spent.append((time.process_time() - begun) / LOCAL)
    return Row(GROUP, "a group's plan", "ms", ours=1e3 * float(np.median(spent)), note="32 clips; 1024 at a time")


def anonymous() -> float:
    """MB of this process that are no file's; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    match = re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(match[1]) / 1024 if match else 0.0


MEASUREMENTS = {f"{GROUP}/index and order": measure}
