"""A file of weights, ours or another system's -> named tensors. Nothing but tensors, numbers and texts is unpickled.

runs/NAME, runs/NAME/checkpoints/step-*.pt      ours: state, average, classes, configuration
.pt .pth .bin .ckpt                             torch's, perhaps inside {"state_dict": ...} and behind "module."
.safetensors                                    names, types and offsets as JSON, then the numbers
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dist_train.checkpoint import Checkpoints

_WRAPPERS = ("state_dict", "model", "model_state_dict", "embedding_model")
_PREFIXES = ("module.", "_orig_mod.", "embedding_model.", "encoder.", "model.")
_TYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Weights:
    """What a file holds. Only our checkpoints know an average, their classes and their configuration."""

    path: Path
    state: dict[str, Tensor]
    average: list[Tensor] | None = None
    classes: tuple[str, ...] = ()
    config: dict[str, Any] | None = None


def read(path: str) -> Weights:
    """The weights of a file, or of a run's folder: its best checkpoint, else its newest.

    Errors: `ValueError` where it is missing, broken, without weights, or would have to be unpickled.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        file = _of_run(file)
    if not file.is_file():
        raise ValueError(f"model.pretrained: {file}: no such file or run folder; give a checkpoint or a run's folder")
    if file.suffix == ".safetensors":
        state, said = safetensors(file)
        if {"classes", "settings"} <= said.keys():  # of tools/export.py
            return Weights(file, state, None, tuple(_said(file, said, "classes")), _said(file, said, "settings"))
        return Weights(file, _stripped(state))
    payload = _load(file)
    if _ours(payload):
        step = payload["step"]
        return Weights(file, step["model"], step["ema"], tuple(payload["classes"]), _heard(payload))
    while isinstance(payload, dict) and (inner := [w for w in _WRAPPERS if isinstance(payload.get(w), dict)]):
        payload = payload[inner[0]]
    found = payload if isinstance(payload, dict) else {}
    state = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{file}: holds no named tensors; give the file of a network's state_dict")
    return Weights(file, _stripped(state))


def _heard(payload: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint, with the front end by which its packed features were made."""
    config: dict[str, Any] = payload["config"]
    said = (payload.get("packed") or {}).get("settings")
    return config if not said else config | {part: config[part] | said[part] for part in ("audio", "features")}


def _ours(payload: Any) -> bool:
    """Whether it is a checkpoint of this program; others' have a `step` too, which is a number."""
    if not isinstance(payload, dict) or not {"step", "classes", "config"} <= payload.keys():
        return False
    step, classes, config = payload["step"], payload["classes"], payload["config"]
    parts = isinstance(step, dict) and {"model", "ema"} <= step.keys() and isinstance(step["model"], dict)
    return parts and isinstance(classes, list | tuple) and isinstance(config, dict) and "model" in config


def _of_run(folder: Path) -> Path:
    """The checkpoint of a run to start from."""
    inside = folder / "checkpoints"
    checkpoints = Checkpoints(inside if inside.is_dir() else folder, 1, lambda line: None)
    best = checkpoints.best()
    found = best or checkpoints.newest()
    if found is None:
        raise ValueError(f"model.pretrained: {folder}: holds no sound checkpoint (step-*.pt); give a file")
    return found[0]


def _load(file: Path) -> Any:
    """What torch saved. A flipped bit is found by the zip's checksums, which torch does not look at."""
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                if (wrong := archive.testzip()) is not None:
                    raise ValueError(f"{wrong} is damaged")
        with torch.serialization.safe_globals(_arrays()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # a dozen kinds; the unpickler's own would need an import of pickle
        told = str(error)
        if "weights_only" in told or "WeightsUnpickler" in told:
            reason = next((line for line in told.splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
            raise ValueError(
                f"{file}: holds more than tensors and is not unpickled ({reason.strip()[:120] or 'torch refuses it'}); "
                "where you trust it, convert it: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)"
            ) from None
        raise ValueError(
            f"{file}: cannot be read as weights ({told.splitlines()[0][:120] if told else error!r})"
        ) from None


def _arrays() -> list[Any]:
    """What arrays of numbers are made of: PANNs' files hold some beside the weights."""
    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQfd"}
    old = [(rebuild, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar")]
    return [rebuild, scalar, *old, np.ndarray, np.dtype, *kinds]


def safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and what the header says beside them. ValueError: it is broken, or cut short."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        state: dict[str, Tensor] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = (8 + size + int(offset) for offset in entry["data_offsets"])
            if not 8 + size <= first <= last <= len(data):
                raise ValueError(f"{name} lies outside it")
            flat = torch.empty(0, dtype=_TYPES[entry["dtype"]])
            if last > first:
                flat = torch.frombuffer(bytearray(data[first:last]), dtype=_TYPES[entry["dtype"]])
            state[name] = flat.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        told = str(error).splitlines()[0][:120]
        raise ValueError(f"{file}: not a whole safetensors file ({told})") from None
    return state, header.get("__metadata__") or {}


def _said(file: Path, said: dict[str, Any], name: str) -> Any:
    try:
        return json.loads(said[name])
    except (ValueError, TypeError):
        raise ValueError(f"{file}: what it says of its {name} is not JSON; export it again") from None


def _stripped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers put before most of them."""
    for prefix in _PREFIXES:
        if sum(name.startswith(prefix) for name in state) > len(state) / 2:
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)
