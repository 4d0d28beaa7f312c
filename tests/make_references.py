"""Writes tests/reference/*.npz: `python tests/make_references.py`.

networks.npz is made by the systems themselves: macls 1.0.6, speakerlab 0.0.6 and speechbrain 1.1 (`pip install
--no-deps`, with hyperpyyaml, ruamel.yaml, loguru). excerpts.npz is cut from the stored values of the others' networks
and of all poolings, in the folder that DIST_TRAIN_PARITY names.
"""

import importlib
from typing import Any
from unittest import mock

import numpy as np
import torch
from networks import PARITY
from references import CLASSES, EXCERPTS, FILE, MACLS, TWINS, Twin, features, loss, wave, weight
from safetensors.torch import load_file
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


def excerpts() -> dict[str, np.ndarray]:
    """Weights, the first clip of one input and what is made of it; of the poolings all but float32's results."""
    found: dict[str, np.ndarray] = {}
    for case, tag in EXCERPTS.items():
        for key, value in load_file(PARITY / f"{case}.safetensors").items():
            if key.startswith("state."):
                found[f"{case}/{key}"] = value.numpy()
            elif key in (f"input.{tag}", f"eval64.{tag}.logits", f"eval64.{tag}.embedding"):
                found[f"{case}/{key}"] = value[:1].numpy()
    poolings = load_file(PARITY / "poolings.safetensors")
    return found | {f"poolings/{key}": v.numpy() for key, v in poolings.items() if not key.startswith("out.")}


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    stored = {f"{case}/{key}": value for case, twin in TWINS.items() for key, value in values(twin).items()}
    np.savez_compressed(FILE, **stored)
    np.savez_compressed(FILE.with_name("excerpts.npz"), **excerpts())
    for path in sorted(FILE.parent.iterdir()):
        print(f"{path}: {path.stat().st_size} bytes")
