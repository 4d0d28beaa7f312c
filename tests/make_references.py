"""Writes tests/reference/networks.npz from the systems themselves: `python tests/make_references.py`.

Needs macls 1.0.6, speakerlab 0.0.6 and speechbrain 1.1 (`pip install --no-deps`, with hyperpyyaml, ruamel.yaml, loguru).
"""

import importlib
from typing import Any
from unittest import mock

import numpy as np
import torch
from references import CLASSES, FILE, MACLS, TWINS, Twin, features, loss, wave, weight
from torch import Tensor, nn


def build(twin: Twin) -> nn.Module:
    """The other system's network in float64 with weights by the formula."""
    path, _, name = twin.system.partition(":")
    arguments: dict[str, Any] = dict(twin.arguments)
    if path.startswith(MACLS):
        arguments |= {"num_class": CLASSES, "input_size": twin.bins}
    model: nn.Module = getattr(importlib.import_module(path), name)(**arguments).double()
    state = {key: weight(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def values(twin: Twin) -> dict[str, np.ndarray]:
    """What is stored of a case."""
    model = build(twin)
    keys = list(model.state_dict())
    found: dict[str, np.ndarray] = {"keys": np.frombuffer("\n".join(keys).encode(), dtype=np.uint8)}
    with torch.no_grad():
        for frames in twin.frames:
            found[f"eval.{frames}"] = _vector(model.eval()(features(frames, twin.bins)))
    with mock.patch("torch.nn.functional.dropout", lambda x, *_, **__: x):
        output = _flat(model.train()(features(twin.frames[0], twin.bins)))
    total = loss(output)
    total.backward()
    found["train"], found["loss"] = output.detach().numpy(), np.array(total.item())
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    buffers = dict(model.named_buffers())
    nothing = torch.tensor(torch.nan)
    norms = [gradients[key].norm() if key in gradients else nothing for key in keys]
    waves = [wave(gradients[key]) if key in gradients else nothing for key in keys]
    after = [wave(buffers[key]) if key in buffers else nothing for key in keys]
    found["steps"] = torch.stack([torch.stack([v.double() for v in row]) for row in (norms, waves, after)]).numpy()
    return found


def _flat(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    output = output if isinstance(output, Tensor) else output[-1]
    return output.flatten(1)


def _vector(output: Tensor | tuple[Tensor, ...]) -> np.ndarray:
    return _flat(output).numpy()


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    stored = {f"{case}/{key}": value for case, twin in TWINS.items() for key, value in values(twin).items()}
    np.savez_compressed(FILE, **stored)
    print(f"{FILE}: {len(TWINS)} networks, {FILE.stat().st_size} bytes")
