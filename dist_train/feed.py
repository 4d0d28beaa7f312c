"""Configuration -> views of the data -> this rank's feature batches, in the order of the stream, one batch ahead.

views        which samples are trained on, scored, and choose the best checkpoint
training     positions -> groups of this rank -> windows -> bytes (threads) -> features (device)
Feed         hands over batches; knows what was delivered, what was bad and how long the step waited
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import objective, order, packed
from dist_train.frontend import FrontBatch, FrontEnd
from dist_train.reader import RawBatch, Reader
from dist_train.settings import Config, Data
from dist_train.shards import ShardSet, open_set
from dist_train.supply import cached, source
from dist_train.supply.ahead import Ahead, Plan
from dist_train.supply.route import Route
from dist_train.view import View, choose
from dist_train.window import train_windows
from dist_train.world import World

_ROWS = 2**16  # looked through at once
_PLANNED = 1024  # rows planned at once


@dataclass(frozen=True)
class Views:
    """What is trained on, what is scored, and what chooses the best checkpoint. All share the training's classes."""

    train: View
    evaluation: View | None
    valid: View | None


def views(config: Config) -> Views:
    """Open the shards and choose. Errors: `ValueError` for missing shards, folds or splits that hold nothing."""
    data = config.data
    sets = opened(config, data.shards)
    packed.agree(config, [*sets, *opened(config, [*data.eval_shards, *data.valid_shards])])
    held = [*data.eval_folds, *data.valid_folds]
    split = bool(data.eval_split or data.valid_split)
    train = choose(
        sets,
        without_folds=held or None,
        without_splits=("valid", "test") if split else (),
        min_seconds=config.audio.min_seconds,
        balance=data.balance,
    )
    if len(train.classes) < 2:
        raise ValueError(f"{', '.join(data.shards)}: holds one class ({train.classes[0]}); a classifier needs two")
    found = Views(train, _scored(config, "eval", sets, train), _scored(config, "valid", sets, train))
    for view in (found.evaluation, found.valid):
        if view is not None and (unknown := _present(view) - _present(train)):
            name = train.classes[min(unknown)]
            raise ValueError(
                f"class `{name}` is scored but has no clips to train on; choose other folds, or drop the class"
            )
    for view in (found.train, found.evaluation, found.valid) if config.objective.name != "bce" else ():
        if view is not None and (key := view.several) is not None:
            text = f"{key} has several labels, objective.name={config.objective.name} takes one"
            raise ValueError(f"{view.sets[0].root}: {text}; set objective.name=bce")
    return found


def _present(view: View) -> set[int]:
    """Numbers of the classes that have clips in a view."""
    found: set[int] = set()
    for start in range(0, len(view), _ROWS):
        ids = np.arange(start, min(start + _ROWS, len(view)))
        found.update(np.unique(view.labels(ids)).tolist())
        if len(found) == len(view.classes):
            break
    return found


def opened(config: Config, names: Sequence[str]) -> list[ShardSet]:
    """The shard sets of folders and addresses."""
    return [open_set(name, config.patience, config.data.cache) for name in names]


def _scored(config: Config, kind: str, sets: list[ShardSet], train: View) -> View | None:
    data = config.data
    shards: list[str] = getattr(data, f"{kind}_shards")
    folds: list[int] = getattr(data, f"{kind}_folds")
    split: str | None = getattr(data, f"{kind}_split")
    if shards:
        return choose(opened(config, shards), classes=train.classes)
    if folds:
        return choose(sets, folds=folds, classes=train.classes)
    if split:
        return choose(sets, split=split, classes=train.classes)
    return None


def stream_order(view: View, config: Config) -> order.Order:
    """The order of a view under a configuration."""
    data = config.data
    return order.Order(view.sizes, config.run.seed, data.lanes, data.shuffle_window, data.micro_batch)


def ahead(view: View, config: Config, world: World, consumed: int, total: int) -> Ahead | None:
    """Which shards this rank caches when, from position `consumed` on; None without a cache."""
    if config.data.cache_dir is None:
        return None
    stream = stream_order(view, config)
    return Ahead(Route(stream, consumed, total, config.data.batch_size, world.rank, world.host, world.size), view)


def windows(view: View, config: Config, world: World, consumed: int, total: int) -> Iterator[NDArray[np.void]]:
    """The windows of each group of this rank, from position `consumed` on."""
    stream, active = stream_order(view, config), config.audio.crop == "active"
    audio = packed.heard(config.audio, packed.of_view(view))
    for groups in _portions(_groups(config.data, world, consumed, total)):
        positions = np.concatenate([np.arange(first, first + count) for first, count in groups])
        ids = np.concatenate([stream.ids(first, count) for first, count in groups])
        activity = view.activity(ids) if active else None
        plan = train_windows(view.rows(ids), ids, positions, activity, audio, config.augment, config.run.seed)
        if config.objective.speed_classes:
            objective.speed_labels(plan, len(view.classes), config.augment, config.objective)
        yield from np.split(plan, np.cumsum([count for _, count in groups])[:-1])


def _groups(data: Data, world: World, consumed: int, total: int) -> Iterator[tuple[int, int]]:
    """First position and size of each group of this rank."""
    while size := order.step_size(consumed, total, data.batch_size, data.micro_batch):
        bounds = order.group_bounds(size, data.micro_batch)
        for group in order.rank_groups(len(bounds) - 1, world.rank, world.size):
            yield int(consumed + bounds[group]), int(bounds[group + 1] - bounds[group])
        consumed += size


def _portions(groups: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Groups in lists of `_PLANNED` rows: a plan's hundred small array operations cost the same for one group."""
    portion: list[tuple[int, int]] = []
    rows = 0
    for group in groups:
        portion.append(group)
        rows += group[1]
        if rows >= _PLANNED:
            yield portion
            portion, rows = [], 0
    if portion:
        yield portion


class Feed:
    """Feature batches of `requests`, in order. On CUDA they are made on a stream of their own, one batch ahead."""

    def __init__(
        self,
        view: View,
        requests: Iterator[NDArray[np.void]],
        front: FrontEnd,
        config: Config,
        training: bool,
        targets: bool = False,
        plan: Plan | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        """`targets`: batches say all labels of each clip (`target_BC`); `plan`: which shards to cache when; `note`:
        takes a line where the cache fails.
        """
        self.front, self.training = front, training
        self.targets = view.targets if targets else None
        self.cuda = front.device.type == "cuda"
        self.source, data = cached.of_view(view, source.of_view(view, config), config, plan, note), config.data
        if isinstance(self.source, cached.Cached):
            requests = self.source.follow(requests, data.ahead)
        self.reader = Reader(self.source, requests, threads=data.threads, depth=data.ahead, pin=self.cuda)
        self.raws = iter(self.reader)
        self.stream = torch.cuda.Stream() if self.cuda else None  # type: ignore[no-untyped-call]
        self.waited = 0.0  # seconds that the consumer waited for bytes
        self.pending = self._make() if self.cuda else None

    def take(self) -> tuple[RawBatch, FrontBatch]:
        """The next batch: what was read, and its features. Raises StopIteration at the end."""
        if self.stream is None:
            made = self._make()
        else:
            made, self.pending = self.pending, None
            torch.cuda.current_stream().wait_stream(self.stream)
            if made is not None:
                _keep(made[1], torch.cuda.current_stream())
                self.pending = self._make()
        if made is None:
            raise StopIteration
        return made

    def _make(self) -> tuple[RawBatch, FrontBatch] | None:
        begun = time.perf_counter()
        raw = next(self.raws, None)
        self.waited += time.perf_counter() - begun
        if raw is None:
            return None
        if self.stream is None:
            return raw, self._front(raw)
        with torch.cuda.stream(self.stream):
            batch = self._front(raw)
            raw.release(self.stream.record_event())
        return raw, batch

    def _front(self, raw: RawBatch) -> FrontBatch:
        batch = self.front(raw, self.training)
        if self.targets is not None:
            target_BC = torch.from_numpy(self.targets(raw.plan["id"]))
            target_BC = target_BC.pin_memory() if self.cuda else target_BC  # from pageable memory the host would wait
            batch.target_BC = target_BC.to(self.front.device, non_blocking=True)
        return batch

    def close(self) -> None:
        """Stop the threads."""
        self.reader.close()
        self.source.close()


def _keep(batch: FrontBatch, stream: Any) -> None:
    """Tell the allocator that `stream` uses what another stream made."""
    for value in vars(batch).values():
        if isinstance(value, torch.Tensor):
            value.record_stream(stream)
