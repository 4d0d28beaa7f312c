"""Configuration -> what a run is made of, on one rank: data views, front end, model, step, progress.

Everything here is equal on all ranks at all times; `engine` moves it, `record` writes it down.
"""

import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from dist_train import checkpoint, models, objective, order, packed, scores
from dist_train import config as configuration
from dist_train.encoders import encoded
from dist_train.evaluate import clip_windows, evaluate
from dist_train.feed import Views, views
from dist_train.frontend import FrontEnd
from dist_train.models import compiled
from dist_train.models.cosine import Cosine
from dist_train.progress import Progress
from dist_train.reader import Reader
from dist_train.scores import Scores
from dist_train.settings import Config
from dist_train.spectra.norm import statistics
from dist_train.speed import device_peak
from dist_train.step import SHARED, Step
from dist_train.supply import source
from dist_train.view import View
from dist_train.world import World, mixed_precision

FEW = 200  # steps under which a run is told that it has few
_MEASURED = 20_000  # clips whose frames give features.norm=dataset its statistics


class Parts:
    """The parts of one run on one rank."""

    def __init__(self, config: Config, world: World) -> None:
        """Errors: `ValueError` for shards, folds, sizes or settings that do not fit."""
        self.config, self.world = config, world
        self.metric = scores.metric(config)
        self.views: Views = views(config)
        self.half = precision(config, world)
        wide = torch.float64 if config.precision == "fp64" else torch.float32
        self.front = FrontEnd(
            config.audio,
            config.augment,
            config.features,
            seed=config.run.seed,
            device=world.device,
            dtype=wide,
            listen=config.log.examples,
            compile=config.compile,
            rows=config.data.micro_batch,
            stored=packed.of_view(self.views.train),
        )
        classes = len(self.views.train.classes)
        self.model = network(config, self.front.bins, classes, world, wide, self.front.channels)
        shape, weights = (self.front.frame_count, self.front.bins), class_weights(config, self.views.train)
        weight_C = torch.from_numpy(weights).to(world.device, wide) if weights is not None else None
        self.step = Step(self.model, config, world, self.half, shape, weight_C)
        train, data = self.views.train, config.data
        self.progress = Progress(
            config.run.seed, train.digest, len(train), data.lanes, data.shuffle_window, data.micro_batch
        )
        self.total = len(train) * config.run.epochs
        if config.run.max_steps is not None:
            self.total = min(self.total, config.run.max_steps * data.batch_size)
        if order.least_group(self.total, data.batch_size, data.micro_batch) == 1:
            learn_from_one(self.model, shape)

    def few(self) -> str | None:
        """Why the run may end before it has learnt anything; None where its steps suffice, or were counted by hand."""
        size, clips, run = self.config.data.batch_size, self.progress.samples, self.config.run
        steps = -(-self.total // size)
        if steps >= FEW or run.max_steps is not None or run.epochs < 2:
            return None
        smaller = next((half for half in (32, 16, 8, 4) if half < size and half * FEW <= self.total), None)
        both = f"data.batch_size={smaller} data.micro_batch={min(smaller or 1, self.config.data.micro_batch)}"
        cure = f"{both} make {-(-self.total // smaller)}" if smaller else "raise run.epochs"
        return f"{clips} clips x {run.epochs} epochs are {steps} steps, few to learn from: {cure}"

    def score(self, view: View, stop: Callable[[], bool]) -> Scores | None:
        """Scores of a view by the averaged weights where there are any, on rank 0; None where `stop` said so."""
        average = self.step.average
        if average is not None:
            average.swap()
        try:
            return evaluate(self.model, view, self.config, self.front, self.world, stop)
        finally:
            if average is not None:
                average.swap()

    def score_saved(self, read: Callable[[], bytes], stop: Callable[[], bool]) -> Scores | None:
        """Scores on the evaluation set of a checkpoint that rank 0 reads; the live weights come back after."""
        assert self.views.evaluation is not None
        payload = checkpoint.decode(self.world.broadcast_bytes(read() if self.world.first else None), "best checkpoint")
        kept = self.step.weights()
        self.step.take(payload["step"]["model"], payload["step"]["ema"])
        scores = self.score(self.views.evaluation, stop)
        self.step.take(*kept)
        return scores

    def measure(self) -> torch.Tensor:
        """Mean and deviation (2, bins) of the training view's features (features.norm=dataset): evenly spaced clips, at
        most 20,000, their frames counted in exact integers, so the same for any number of ranks."""
        view, world = self.views.train, self.world
        ids = np.unique(np.linspace(0, len(view) - 1, min(len(view), _MEASURED)).astype(np.int64))
        mine = ids[len(ids) * world.rank // world.size : len(ids) * (world.rank + 1) // world.size]
        files = source.of_view(view, self.config)
        reader = Reader(files, clip_windows(view, mine, self.config), self.config.data.threads, 4, False)
        try:
            return statistics(world.add(self.front.sums(reader)))
        finally:
            reader.close()
            files.close()

    def payload(self, sums: torch.Tensor) -> dict[str, Any]:
        """All that a checkpoint holds, plain tensors and numbers. `sums`: of all ranks, since the last log line."""
        return {
            "progress": self.progress.state(),
            "step": self.step.state(),
            "sums": sums,
            "statistics": self.front.statistics,
            "config": configuration.plain(self.config),
            "classes": list(self.views.train.classes),
            "packed": self.front.stored.record() if self.front.stored is not None else None,
        }

    def resume(self, payload: dict[str, Any]) -> None:
        """Go on from a payload whose progress and model fit (`resume.origin` has seen to that)."""
        packed.same(payload.get("packed"), self.front.stored)
        self.progress.resume(payload["progress"])
        self.step.load(payload["step"], payload["config"]["optim"]["name"] == self.config.optim.name)
        self.front.statistics = payload["statistics"]
        if self.world.first:
            self.step.sums[:SHARED] = payload["sums"].to(self.step.sums)

    def peak(self) -> float | None:
        """Largest FLOP/s of this rank's device in the run's precision, where it is known."""
        return device_peak(self.world.device, self.half, next(self.model.parameters()).dtype)

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
        } | ({"packed": self.front.stored.record()} if self.front.stored is not None else {})


def precision(config: Config, world: World) -> torch.dtype | None:
    """The autocast type, or None for fp32 and fp64."""
    name = config.precision
    if name == "auto":
        native = world.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = {"bf16": "bf16", "fp16": "fp16", "no": "fp32"}.get(mixed_precision() or "", "bf16" if native else "fp32")  # type: ignore[assignment]
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)


def network(config: Config, bins: int, classes: int, world: World, wide: torch.dtype, sources: int = 1) -> nn.Module:
    """The model with its initial weights, the same on all ranks, on the device. `sources`: channels of the audio."""
    torch.manual_seed(order.key(config.run.seed, 4) >> 1)
    loss = config.objective
    classes *= len(objective.variants(config.augment, loss))
    if config.features.name == "hf":
        model = encoded(config, classes, world)
    elif (config.features.name == "waveform") != (config.model.name == "m5"):
        raise ValueError(
            f"model.name={config.model.name} does not fit features.name={config.features.name}: m5 hears samples "
            "(features.name=waveform), all other networks frames of bins"
        )
    else:
        model = models.build(config.model.name, bins, classes, sources=sources, **config.model.sizes())
    if loss.name in objective.MARGINS:
        model.head = Cosine(model.head.in_features, classes, centres=loss.subcenters, scale=loss.scale)  # type: ignore[arg-type, union-attr]
    model.to(world.device, wide)
    if world.device.type != "cpu" or not _overruns(model):
        # Channels-last kernels: a fifth off an ERes2Net step on the CPU, and what tensor cores want.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        compile_blocks(model, config.graphs, world.device)
    return model


def _overruns(model: nn.Module) -> bool:
    """oneDNN's channels-last backward of a strided 1x1 convolution writes past its memory where a map has under 16
    channels (torch 2.11, AVX-512: double free, or a segmentation fault)."""
    kernels = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return any(one.in_channels < 16 and max(one.kernel_size) == 1 and max(one.stride) > 1 for one in kernels)


def class_weights(config: Config, view: View) -> NDArray[np.float64] | None:
    """Weights of the model's outputs in the loss, None where all weigh the same."""
    counts_C = view.counts() if config.objective.class_weights == "balanced" else np.zeros(0, np.int64)
    weight_C = objective.class_weights(counts_C, len(view), view.classes, config.objective)
    repeats = len(objective.variants(config.augment, config.objective))
    return np.tile(weight_C, repeats) if weight_C is not None else None


def learn_from_one(model: nn.Module, shape: tuple[int, int]) -> None:
    """Errors: `ValueError` where a BatchNorm would see one value a channel in a group of one clip."""
    first = next(model.parameters())
    feat_BTF = torch.zeros(1, *shape, device=first.device, dtype=first.dtype)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # the statistics stay as they are
    try:
        with torch.no_grad(), compiled.eager(model):
            functional_call(model, buffers, (feat_BTF,))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "data.micro_batch and data.batch_size leave a group of one clip, which the network's BatchNorm cannot learn"
            " from: set both to 3 or more"
        ) from None


def compile_blocks(model: nn.Module, graphs: bool, device: torch.device) -> None:
    """Compile in place. Errors: `ValueError` where that cannot work here, before minutes are spent."""
    if graphs and device.type != "cuda":
        raise ValueError(f"graphs=true: CUDA graphs need a CUDA device, and this run is on {device.type}; leave it out")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++", "cl")):
        raise ValueError("compile=true: no C++ compiler found (g++ or clang++); install one or set compile=false")
    compiled.compile_blocks(model, graphs)
