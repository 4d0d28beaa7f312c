"""The training loop: a table of contents of a run.

open the world, the data, the run folder -> build model, front end, step -> resume -> step, log, evaluate, save, stop
"""

import math
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from dist_train import checkpoint, models, optim, order
from dist_train import config as configuration
from dist_train.evaluate import Scores, clip_windows, evaluate
from dist_train.feed import Feed, Views, views, windows
from dist_train.frontend import FrontEnd
from dist_train.norm import statistics
from dist_train.progress import Progress
from dist_train.reader import Reader
from dist_train.record import Record
from dist_train.settings import Config
from dist_train.step import Step
from dist_train.storage import Files
from dist_train.world import World

_MEASURED = 20_000  # clips whose frames give features.norm=dataset its statistics
SAVE, STOP = 1, 2  # what ranks may wish for between two steps


class Engine:
    """One run on one rank. Everything but `feed` and the clocks is equal on all ranks at all times."""

    def __init__(self, config: Config, world: World) -> None:
        self.config, self.world = config, world
        self.views: Views = views(config)
        self.half = precision(config, world)
        wide = torch.float64 if config.precision == "fp64" else torch.float32
        self.front = FrontEnd(
            config.audio, config.augment, config.features, seed=config.run.seed, device=world.device, dtype=wide
        )
        self.model = network(config, self.front.bins, len(self.views.train.classes), world, wide)
        self.step = Step(self.model, config, world, self.half, (self.front.frame_count, self.front.bins))
        train, data = self.views.train, config.data
        self.progress = Progress(
            config.run.seed, train.digest, len(train), data.lanes, data.shuffle_window, data.micro_batch
        )
        self.total = len(train) * config.run.epochs
        if config.run.max_steps is not None:
            self.total = min(self.total, config.run.max_steps * data.batch_size)
        self.record = Record(self)
        self.asked = False  # a signal asked for the end
        self.scores: Scores | None = None

    def run(self) -> bool:
        """Train to the end. False where a signal or STOP ended it before; its state is saved then."""
        self._listen()
        self.record.open()
        self.step.prime(min(self.config.data.micro_batch, self.config.data.batch_size))
        self.feed = self._feed()
        try:
            finished = self._loop()
        finally:
            self.feed.close()
        if finished:
            self.record.finish()
        self.record.close()
        return finished

    def _loop(self) -> bool:
        progress, agreed = self.progress, 0
        while True:
            if self._due() and not self._evaluate():
                agreed = STOP
            if agreed in (SAVE, STOP):
                self.record.save()
            if agreed == STOP:
                self.record.stopped()
                return False
            if progress.consumed >= self.total:
                return True
            before = progress.consumed
            self._step()
            self.record.step_done()
            agreed = max(self.world.agree(self._wish()), SAVE if self._mark(before) else 0)

    def _step(self) -> None:
        progress, data = self.progress, self.config.data
        size = order.step_size(progress.consumed, self.total, data.batch_size, data.micro_batch)
        groups = len(order.group_bounds(size, data.micro_batch)) - 1
        mine = [self.feed.take() for _ in order.rank_groups(groups, self.world.rank, self.world.size)]
        rate = optim.learning_rate(progress.consumed, self.total, progress.samples, self.config.optim)
        firsts = [int(raw.plan["position"][0]) for raw, _ in mine]
        self.step.run([batch for _, batch in mine], firsts, size, groups, rate)
        progress.consumed += size
        progress.step += 1
        for raw, _ in mine:
            self.record.delivered(raw.plan, raw.bad)
        self.record.rate, self.record.last = rate, mine[0][1] if mine else self.record.last

    def _feed(self) -> Feed:
        requests = windows(self.views.train, self.config, self.world, self.progress.consumed, self.total)
        return Feed(self.views.train, requests, self.front, self.config.data, training=True)

    def _due(self) -> bool:
        """An evaluation is due: so many epochs are over, or the run is."""
        progress = self.progress
        if self.views.evaluation is None and self.views.valid is None:
            return False
        over = progress.consumed >= self.total and progress.evaluated_step != progress.step
        return over or progress.epoch >= progress.evaluated + self.config.evaluation.every_epochs

    def _evaluate(self) -> bool:
        """Score the evaluation set, and the validation set where there is one. False: asked to stop meanwhile."""
        for kind, view in (("valid", self.views.valid), ("eval", self.views.evaluation)):
            if view is None:
                continue
            scores = self.score(view)
            if self.world.lead(lambda found=scores: found is None):  # type: ignore[misc]
                return False
            self.record.scored(kind, view, scores)
        self.progress.evaluated, self.progress.evaluated_step = self.progress.epoch, self.progress.step
        self.record.choose()
        return True

    def score(self, view: Any) -> Scores | None:
        """Scores of a view by the averaged weights where there are any, on rank 0."""
        average = self.step.average
        if average is not None:
            average.swap()
        try:
            stop = lambda: self.world.agree(self._wish()) == STOP  # noqa: E731
            return evaluate(self.model, view, self.config, self.front, self.world, stop)
        finally:
            if average is not None:
                average.swap()

    def score_saved(self, read: Callable[[], bytes]) -> Scores | None:
        """Scores on the evaluation set of a checkpoint that rank 0 reads; the live weights come back after."""
        assert self.views.evaluation is not None
        payload = checkpoint.decode(self.world.broadcast_bytes(read() if self.world.first else None), "best checkpoint")
        kept = self.step.weights()
        self.step.take(payload["step"]["model"], payload["step"]["ema"])
        scores = self.score(self.views.evaluation)
        self.step.take(*kept)
        return scores

    def measure(self) -> torch.Tensor:
        """Mean and deviation (2, bins) of the training view's features (features.norm=dataset): evenly spaced clips, at
        most 20,000, their frames counted in exact integers, so the same for any number of ranks."""
        view, world = self.views.train, self.world
        ids = np.unique(np.linspace(0, len(view) - 1, min(len(view), _MEASURED)).astype(np.int64))
        mine = ids[len(ids) * world.rank // world.size : len(ids) * (world.rank + 1) // world.size]
        reader = Reader(Files(view.files), clip_windows(view, mine, self.config), self.config.data.threads, 4, False)
        try:
            return statistics(world.add(self.front.sums(reader)))
        finally:
            reader.close()

    def payload(self) -> dict[str, Any]:
        """All that a checkpoint holds: plain tensors, numbers, strings."""
        return {
            "progress": self.progress.state(),
            "step": self.step.state(),
            "statistics": self.front.statistics,
            "config": configuration.plain(self.config),
            "classes": list(self.views.train.classes),
        }

    def resume(self, payload: dict[str, Any], where: str) -> None:
        """Go on from a payload. Errors: `ValueError` where it belongs to other data, another order or another model."""
        self.progress.resume(payload["progress"], where)
        self.step.load(payload["step"])
        self.front.statistics = payload["statistics"]

    def facts(self) -> dict[str, Any]:
        """What environment.json says of the world."""
        place, device = self.world.place, self.world.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        precise = str(self.half or next(self.model.parameters()).dtype).removeprefix("torch.")
        return {
            "launcher": place.launcher,
            "ranks": place.size,
            "local_ranks": place.local_size,
            "device": name,
            "backend": self.world.backend,
            "threads": self.world.threads,
            "precision": precise,
        }

    def _mark(self, before: int) -> bool:
        """An epoch mark of checkpoints lies in the step that began at `before`."""
        epochs = self.config.checkpoint.every_epochs
        if epochs is None:
            return self.progress.consumed >= self.total
        span = epochs * self.progress.samples
        return math.floor(self.progress.consumed / span) > math.floor(before / span) or (
            self.progress.consumed >= self.total
        )

    def _wish(self) -> int:
        if self.asked or self.record.stop_wanted():
            return STOP
        return SAVE if self.record.save_due() else 0

    def _listen(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._hear)

    def _hear(self, number: int, frame: object) -> None:
        self.asked = True


def precision(config: Config, world: World) -> torch.dtype | None:
    """The autocast type, or None for fp32 and fp64."""
    from dist_train.world import mixed_precision

    name = config.precision
    if name == "auto":
        native = world.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = {"bf16": "bf16", "fp16": "fp16", "no": "fp32"}.get(mixed_precision() or "", "bf16" if native else "fp32")  # type: ignore[assignment]
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)


def network(config: Config, bins: int, classes: int, world: World, wide: torch.dtype) -> nn.Module:
    """The model with its initial weights, the same on all ranks, on the device."""
    torch.manual_seed(order.key(config.run.seed, 4) >> 1)
    settings = config.model
    model = models.build(
        settings.name, bins, classes, channels=settings.channels, embedding=settings.embedding, pooling=settings.pooling
    )
    model = model.to(world.device, wide)
    if config.compile:
        compiled(model)
    return model


def compiled(model: nn.Module) -> None:
    """Compile in place. Errors: `ValueError` where no C++ compiler is found, before minutes are spent."""
    import os
    import shutil

    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")):
        raise ValueError("compile=true: no C++ compiler found (g++ or clang++); install one or set compile=false")
    model.compile(dynamic=False)
