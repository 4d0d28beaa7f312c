"""A file of `tools/export.py --to safetensors` -> what a run's folder gives: classes and settings lie in its header."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from dist_train import config, saved, weights
from dist_train.world import World

SUFFIX = ".safetensors"


def read(file: Path, overrides: Iterable[str], world: World) -> tuple[saved.Saved, float | None]:
    """The network with its front end, and the threshold of unknown. ValueError: no such file, or one of others."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; name one of tools/export.py, or a run's folder")
    state, said = weights.safetensors(file)
    if not {"classes", "settings", "threshold"} <= said.keys():
        raise ValueError(
            f"{file}: weights without classes and settings: no file of tools/export.py RUN --to safetensors; "
            "a run can start from it (model.pretrained=FILE)"
        )
    payload = {"step": {"model": state, "ema": None}, **_payload(file, said)}
    changed = config.over(json.loads(said["settings"]), [*overrides, "compile=false", "graphs=false"], str(file))
    if changed.features.name == "hf":
        raise ValueError(f"{file}: features.name=hf needs the encoder's own settings; name the run's folder")
    try:
        found = saved.restored(changed, file, payload, world)
    except (RuntimeError, KeyError) as error:  # torch's, in as many lines as there are tensors
        raise ValueError(f"{file}: its tensors are not those of its settings; export it again") from error
    return found, float(said["threshold"]) if said["threshold"] else None


def _payload(file: Path, said: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says beside its weights."""
    try:
        settings, classes = json.loads(said["settings"]), json.loads(said["classes"])
        statistics = json.loads(said.get("statistics", "null"))
        float(said["threshold"] or 0)
        made = None if statistics is None else torch.tensor(statistics, dtype=torch.float64)
        if not isinstance(settings, dict) or not isinstance(classes, list):
            raise TypeError
    except (ValueError, TypeError):
        raise ValueError(f"{file}: what it says of itself is damaged; export it again") from None
    plain = config.plain(config.check(settings, str(file)))
    return {"config": plain, "classes": classes, "statistics": made}
