"""Shards -> reader -> front end -> step, as the engine runs them, beside the same step on a batch that stays in place.

What is lost is the wait for data: 1 - ratio. On a CPU the front end works on the same cores, so it is its share too.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import torch

from dist_train import parts
from dist_train.bench import material, training
from dist_train.bench.pair import Pair, paired
from dist_train.bench.row import Row, Work, rate
from dist_train.config import check, load
from dist_train.feed import Feed, windows
from dist_train.frontend import FrontEnd
from dist_train.settings import Config
from dist_train.step import Step

SMALL = {"model": {"name": "ecapa", "channels": 64, "embedding": 64}, "audio": {"seconds": 1.0}}
FULL = {"model": {"name": "ecapa"}, "audio": {"seconds": 3.0}}


class Trainer:
    """One process that trains on a folder of shards."""

    def __init__(self, folder: Path, config: Config, device: torch.device) -> None:
        self.view, self.config, self.world = material.opened(folder), config, training.world(device)
        self.front = FrontEnd(config.audio, config.augment, config.features, seed=0, device=device, listen=0)
        if config.features.norm == "dataset":  # any will do: the figures are not looked at
            self.front.statistics = torch.stack([torch.zeros(self.front.bins), torch.ones(self.front.bins)])
        model = parts.network(config, self.front.bins, len(self.view.classes), self.world, torch.float32)
        half = parts.precision(config, self.world)
        self.step = Step(model, config, self.world, half, (self.front.frame_count, self.front.bins))
        self.rows, self.waited = config.data.batch_size, 0.0
        self.step.prime(self.rows)
        first = Feed(self.view, self._requests(1), self.front, config, training=True)
        self.fixed = first.take()[1]
        first.close()

    def _requests(self, steps: int) -> Any:
        return windows(self.view, self.config, self.world, 0, steps * self.rows)

    def run(self, steps: int) -> float:
        """Seconds of so many steps, data and all; the first batch, which starts the reader, does not count."""
        feed = Feed(self.view, self._requests(steps + 1), self.front, self.config, training=True)
        try:
            self._one(feed.take()[1])
            begun, before = time.perf_counter(), feed.waited
            for _ in range(steps):
                raw, batch = feed.take()
                self._one(batch)
                raw.release()
            self._settle()
            spent = time.perf_counter() - begun
            self.waited = (feed.waited - before) / spent
        finally:
            feed.close()
        return spent

    def synthetic(self, steps: int) -> float:
        """Seconds of so many steps on one batch."""
        self._one(self.fixed)
        begun = time.perf_counter()
        for _ in itertools.repeat(None, steps):
            self._one(self.fixed)
        self._settle()
        return time.perf_counter() - begun

    def _one(self, batch: Any) -> None:
        self.step.run([batch], [0], self.rows, 1, 1e-3)

    def _settle(self) -> None:
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()


def wait(pair: Pair) -> float | None:
    """Share of the time that goes to data: 1 - (time on a synthetic batch / time with data)."""
    return None if pair.ratio is None else max(0.0, 1.0 - pair.ratio)


def training_run(work: Work) -> list[Row]:
    """A small ECAPA on one core; the full one on a GPU."""
    cuda = work.device.type == "cuda"
    rows, steps = (512, 50) if cuda else (32, work.size(12, 4))
    chosen: dict[str, Any] = {**(FULL if cuda else SMALL), "augment": {"spec": {}}}
    chosen |= {"data": {"batch_size": rows, "micro_batch": rows, "threads": 2 if cuda else 1, "ahead": 4}}
    trainer = Trainer(material.shard_folder(work, work.size(2048, 512), 3.0), check(chosen, "bench"), work.device)
    name, said = "training end to end", "ECAPA-512, 3 s" if cuda else "ECAPA-64, 1 s"
    return _row(work, trainer, name, said, steps, work.size(work.times, 2), 0.97 if cuda else None)


def recipe(work: Work) -> list[Row]:
    """One rank of configs/esc10.yaml, on clips of 5 s, alone or beside a batch that stays in place."""
    if work.quick:
        return []
    path = Path(__file__).parents[2] / "configs" / "esc10.yaml"
    group = {"data.batch_size": 16, "data.micro_batch": 16, "data.threads": 1}
    config = load(path, [f"{key}={value}" for key, value in group.items()])
    trainer = Trainer(material.shard_folder(work, 256, 5.0), config, work.device)
    return _row(work, trainer, "the ESC-10 recipe", "ResNetMini-16, 5 s", 6, min(work.times, 5), 0.98)


def _row(work: Work, trainer: Trainer, name: str, said: str, steps: int, times: int, goal: float | None) -> list[Row]:
    pair = paired(lambda: trainer.run(steps), lambda: trainer.synthetic(steps), times)
    lost, count = wait(pair), steps * trainer.rows
    note = f"{work.device.type}, {said}, batch {trainer.rows}"
    if lost is not None:
        note += f"; data_wait {lost:.1%}, waiting for bytes {trainer.waited:.1%}"
    more = {"data_wait": lost, "waited": trainer.waited}
    beside: dict[str, Any] = {"peer": "same step, batch in place", "version": "", "goal": goal}
    return [rate("whole", name, pair, count, "clips/s", note=note, more=more, **beside)]
