"""Checkpoints of one run -> one checkpoint whose weights are their mean (Izmailov 2018, arXiv 1803.05407).

    step-*.pt ... -> mean in float64 -> BatchNorm's statistics anew, by a pass over training clips -> a run's folder

Where a run has a moving average of its weights, it is these that are averaged, since these are what is scored.
The statistics that the parts kept are those of their own activations, not of the mean's: they are measured again, as
Izmailov does and torch.optim.swa_utils.update_bn. Averaging them as well, as WeNet does, needs no data.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dist_train import checkpoint, disk, feed, flat, optim, packed, saved
from dist_train.checkpoint import Payload
from dist_train.models import compiled
from dist_train.settings import Config
from dist_train.view import View
from dist_train.world import World

MEASURED = 20_000  # clips that give the statistics, at most
NOTE = "average.json"

Progress = Callable[[str, int, int], None]  # stage, done, to do


def chosen(run: Path, steps: Sequence[int], last: int | None) -> list[Path]:
    """Checkpoints of these steps, or the `last` so many, or all, oldest first. ValueError: fewer than two, or none."""
    folder = run / "checkpoints"
    there = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.pt"))}
    have = ", ".join(map(str, there)) or "none"
    for step in steps:
        if step not in there:
            raise ValueError(f"{folder}: no checkpoint of step {step}; those there: {have}")
    found = [there[step] for step in sorted(set(steps))] if steps else list(there.values())
    if last is not None and last > len(found):
        raise ValueError(f"{folder}: --last {last}, and there are {len(found)} checkpoints; checkpoint.keep keeps more")
    found = found[-last:] if last is not None else found
    if len(found) < 2:
        raise ValueError(
            f"{folder}: an average takes two checkpoints or more, there: {have}; train with a larger checkpoint.keep"
        )
    return found


def mean(paths: Sequence[Path], progress: Progress) -> Payload:
    """The newest one's payload with the mean of all weights, and without what only training needs.

    Whole numbers, such as BatchNorm's counters, are the newest one's. ValueError: broken, or of other networks.
    """
    totals: dict[str, Tensor] = {}
    averages: list[Tensor] = []
    for done, path in enumerate(paths, 1):
        payload = checkpoint.load(path)
        if "averaged" in payload:
            raise ValueError(f"{path}: is an average itself; name checkpoints of a training run")
        model, ema = payload["step"]["model"], payload["step"]["ema"]
        if done > 1 and (model.keys() != totals.keys() or len(ema or []) != len(averages)):
            raise ValueError(f"{path}: is of another network than {paths[0]}; name checkpoints of one training")
        for name, tensor in model.items():
            totals[name] = totals[name] + tensor.double() if name in totals else tensor.double()
        averages = [one.double() + (averages[number] if done > 1 else 0.0) for number, one in enumerate(ema or [])]
        progress("reading", done, len(paths))
    count = len(paths)
    newest = payload["step"]
    found = {
        name: (totals[name] / count).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in newest["model"].items()
    }
    smooth = [(total / count).to(one.dtype) for total, one in zip(averages, newest["ema"] or [], strict=True)]
    kept = {name: payload[name] for name in ("progress", "statistics", "config", "classes", "packed")}
    names = [path.name for path in paths]
    return kept | {"step": {"model": found, "ema": smooth or None}, "averaged": names}


def measured(payload: Payload, path: Path, config: Config, world: World, progress: Progress) -> Payload:
    """The payload with BatchNorm's statistics of its own weights, on the training clips as training hears them.

    Each group of clips counts alike. A network without BatchNorm stays as it is. ValueError: the shards are gone.
    """
    view = feed.views(config).train
    network = saved.restored(config, path, payload, world, packed.of_view(view))
    if not flat.norms(network.model):
        return payload
    _pass(network, view, world, progress)
    found = {name: tensor.cpu() for name, tensor in network.model.state_dict().items()}
    step = payload["step"]
    if step["ema"] is None:
        return payload | {"step": step | {"model": found}}
    return payload | {"step": step | {"ema": [one.cpu() for one in optim.floating(network.model)]}}


@torch.no_grad()
def _pass(network: saved.Saved, view: View, world: World, progress: Progress) -> None:
    """Run training clips through the network, of which only the BatchNorms are in training."""
    config, total = network.config, min(len(view), MEASURED)
    counters = [one.num_batches_tracked for one in flat.norms(network.model)]
    kept = [one.clone() if one is not None else None for one in counters]
    for one in flat.norms(network.model):
        one.reset_running_stats()
        one.momentum = None  # the plain mean over all groups
        one.training = True
    batches = feed.Feed(view, feed.windows(view, config, world, 0, total), network.front, config, training=True)
    done = 0
    try:
        with compiled.eager(network.model):
            while done < total:
                raw, batch = batches.take()
                network.model.forward(batch.feat_BTF, batch.frames_B)
                done += len(raw.plan)
                progress("statistics", done, total)
    finally:
        batches.close()
        network.model.eval()
    for counter, before in zip(counters, kept, strict=True):
        if counter is not None and before is not None:
            counter.copy_(before)


def write(run: Path, out: Path, payload: Payload, paths: Sequence[Path], statistics: str) -> Path:
    """A run's folder with the one checkpoint; its path. ValueError where the folder is there already."""
    if out.exists():
        raise ValueError(f"{out}: is there already; name another by --out, or remove it")
    out.mkdir(parents=True)
    for name in ("config.yaml", "environment.json"):
        if (run / name).is_file():
            shutil.copyfile(run / name, out / name)
    (out / "checkpoints").mkdir()
    path = out / "checkpoints" / paths[-1].name
    data = checkpoint.encode(payload)
    disk.replace(path, lambda file: file.write(data))
    note: dict[str, Any] = {"run": str(run), "parts": [one.name for one in paths], "statistics": statistics}
    disk.replace_json(out / NOTE, note)
    return path
