"""A model -> rows of its layer table: name, type, output shape, parameters; the top two levels."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dist_train.models import compiled


@dataclass(frozen=True)
class Layer:
    """One row; `shape` of the output for a batch of one, empty where the module itself is never called."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layers(model: nn.Module, feat_shape: tuple[int, int]) -> list[Layer]:
    """Rows of the modules of the first two levels, in order, and one of the whole model, `total`.

    feat_shape: (frames, bins) of the dummy input. One forward in eval mode: weights, running statistics, modes and
    random state stay as they are. A compiled model runs eagerly: it would compile for this one shape.
    """
    chosen = {name: module for name, module in model.named_modules() if name and name.count(".") < 2}
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [module.register_forward_hook(_noting(shapes, name)) for name, module in chosen.items()]
    modes = {module: module.training for module in model.modules()}
    first = next(model.parameters())
    feat_BTF = torch.zeros(1, *feat_shape, device=first.device, dtype=first.dtype)
    try:
        model.eval()
        with torch.no_grad(), compiled.eager(model):
            whole = model.forward(feat_BTF)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    rows = [Layer(name, type(module).__name__, shapes.get(name, ()), _size(module)) for name, module in chosen.items()]
    return [*rows, Layer("total", type(model).__name__, _shape(whole), _size(model))]


def _noting(shapes: dict[str, tuple[int, ...]], name: str) -> Any:
    def note(module: nn.Module, given: Any, output: Any) -> None:
        shapes[name] = _shape(output)

    return note


def _shape(output: Any) -> tuple[int, ...]:
    """Of a tensor, or of the first one in a tuple."""
    if isinstance(output, list | tuple) and output:
        output = output[0]
    return tuple(output.shape) if isinstance(output, torch.Tensor) else ()


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
