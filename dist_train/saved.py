"""A run's folder -> its configuration and trained network. Nothing but tensors and plain values is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dist_train import checkpoint, folder, optim, packed, parts
from dist_train import config as configuration
from dist_train.checkpoint import Checkpoints
from dist_train.frontend import FrontEnd
from dist_train.packed import Stored
from dist_train.progress import refuse_model
from dist_train.settings import Augment, Config
from dist_train.world import World


@dataclass(frozen=True)
class Saved:
    """config: of the run, with overrides; model: in eval mode, averaged weights where there are any; path: its file."""

    config: Config
    classes: tuple[str, ...]
    model: nn.Module
    front: FrontEnd
    path: Path


def load(run: Path, overrides: Iterable[str], world: World, stored: Stored | None = None) -> Saved:
    """The best checkpoint where a validation set chose one, else the newest. ValueError: none, or another model.

    `stored`: the front end of the packed features that it shall hear; None: audio, also by a model of packed features.
    """
    config = read(run, overrides)
    path, payload = _payload(run)
    return restored(config, path, payload, world, stored)


def restored(config: Config, path: Path, payload: dict[str, Any], world: World, stored: Stored | None = None) -> Saved:
    """The network of a checkpoint's payload. ValueError: it is another model's than the configuration's."""
    refuse_model(payload["config"], config, str(path), "leave these settings as the run has them")
    if stored is None:
        config = packed.unpacked(config, payload.get("packed"))
    else:
        packed.same(payload.get("packed"), stored)
    wide = torch.float64 if config.precision == "fp64" else torch.float32
    plain = Augment()  # type: ignore[call-arg]
    kind = config.audio, plain, config.features
    front = FrontEnd(*kind, seed=config.run.seed, device=world.device, dtype=wide, listen=0, stored=stored)
    front.statistics = payload["statistics"]
    classes = tuple(payload["classes"])
    model = parts.network(config, front.bins, len(classes), world, wide, front.channels)
    model.load_state_dict(payload["step"]["model"])
    if (average := payload["step"]["ema"]) is not None:
        for tensor, kept in zip(optim.floating(model), average, strict=True):
            tensor.copy_(kept)
    return Saved(config, classes, model.eval(), front, path)


def read(run: Path, overrides: Iterable[str]) -> Config:
    """The run's configuration, not compiled. ValueError: no run there, or an override that does not fit."""
    folder.trained(run)
    return configuration.load(run / "config.yaml", [*overrides, "compile=false", "graphs=false"])


def _payload(run: Path) -> tuple[Path, dict[str, Any]]:
    broken: list[str] = []
    checkpoints = Checkpoints(run / "checkpoints", 1, broken.append)
    if (best := checkpoints.best()) is not None:
        return best[0], checkpoint.load(best[0])
    if (newest := checkpoints.newest()) is None:
        reason = f" ({broken[0]})" if broken else ""
        raise ValueError(f"{run / 'checkpoints'}: no sound checkpoint{reason}; train the run first")
    return newest
