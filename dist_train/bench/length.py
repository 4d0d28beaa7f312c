"""Ten times the samples: the same clips a second, and no more memory. Each size in a process of its own.

Both take as many clips in training order, index, order, reader and front end: the large view once, the small one ten
times.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from dist_train.bench import material, training
from dist_train.bench.pair import Pair, seconds
from dist_train.bench.row import Row, Work
from dist_train.config import check
from dist_train.feed import Feed, windows
from dist_train.frontend import FrontEnd

TIMES = 10
WITHIN = 50.0  # MB
NAME = f"{TIMES} times the samples"
BATCH = 64


def anonymous(status: str) -> float | None:
    """MB of RssAnon in the text of /proc/PID/status: memory that is no file's."""
    match = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) / 1024 if match else None


def one_pass(times: int) -> Callable[[Work], list[Row]]:
    """The measurement of one size; `combine` makes the row that people see of several."""

    def measure(work: Work) -> list[Row]:
        few, device = work.size(5120, 512), torch.device("cpu")
        count, taken = few * times, few * TIMES
        chosen = {"audio": {"seconds": 0.19}, "data": {"batch_size": BATCH, "micro_batch": BATCH, "threads": 1}}
        config = check(chosen, "bench")
        view = material.opened(material.shard_folder(work, count, 0.19))
        front = FrontEnd(config.audio, config.augment, config.features, seed=0, device=device, listen=0)

        def run(clips: int) -> None:
            requests = windows(view, config, training.world(device), 0, clips)
            feed = Feed(view, requests, front, config, training=True)
            for _ in range(clips // BATCH):
                feed.take()[0].release()
            feed.close()

        run(4 * BATCH)  # warm up
        spent = seconds(lambda: run(taken))
        status = Path("/proc/self/status")
        held = anonymous(status.read_text(encoding="ascii")) if status.exists() else None
        return [Row("linear", str(times), "clips/s", ours=taken / spent, more={"clips": count, "RssAnon MB": held})]

    return measure


def combine(small: Sequence[Row], large: Sequence[Row]) -> list[Row]:
    """Rows of passes in turns, small, large, small, ... -> the rate of the large beside the small, and the memory."""
    pairs = list(zip(small, large, strict=False))
    if not pairs:
        return [Row("linear", NAME, "clips/s", note="not measured")]
    rates = Pair(tuple(1 / (one.ours or 1) for _, one in pairs), tuple(1 / (one.ours or 1) for one, _ in pairs))
    few, many = small[0].more["clips"], large[0].more["clips"]
    row = Row(
        *("linear", NAME, "clips/s"),
        ours=1 / (rates.ours_seconds or 1),
        peer=f"{few} clips",
        peer_value=1 / (rates.peer_seconds or 1),
        ratio=rates.ratio,
        low=rates.low,
        high=rates.high,
        goal=0.95,
        goal_most=None,
        note=f"{many} clips",
    )
    held = [[one.more["RssAnon MB"] for one in rows] for rows in (small, large)]
    if any(value is None for values in held for value in values):
        return [row, Row("linear", "memory", "MB", note="this system does not tell RssAnon")]
    before, after = (sorted(values)[len(values) // 2] for values in held)
    note = f"RssAnon {before:.0f} MB at {few} clips, {after:.0f} MB at {many}"
    return [row, Row("linear", "more memory", "MB", ours=after - before, goal_most=WITHIN, note=note)]
