"""A network -> its parameters in groups of one learning rate and one weight decay.

stem, block, block, ..., embedding, head        stages in the order in which the network has them
decay^n  ...     decay^2    decay^1   1         layer-wise rates (Howard & Ruder 2018, arXiv 1801.06146)
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from dist_train.settings import Optim

Group = dict[str, Any]
_LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


def groups(model: nn.Module, settings: Optim) -> list[Group]:
    """`params`, `weight_decay` and `scale` (the share of the rate) of each group. What needs no gradient has no part.

    Weight decay is on matrices and kernels only, never on norms and biases.
    """
    scales = rates(model, settings)
    parameters = [(p, scales.get(name, 1.0)) for name, p in model.named_parameters() if p.requires_grad]
    found = []
    for scale in dict.fromkeys(scale for _, scale in parameters):
        same = [p for p, its in parameters if its == scale]
        for chosen, decay in (
            ([p for p in same if p.ndim > 1], settings.weight_decay),
            ([p for p in same if p.ndim <= 1], 0.0),
        ):
            if chosen:
                found.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return found


def rates(model: nn.Module, settings: Optim) -> dict[str, float]:
    """Share of the learning rate of each parameter, by name; those not in it have all of it."""
    if settings.layer_decay == 1.0 and settings.head_lr_factor == 1.0:
        return {}
    layers = stages(model)
    found: dict[str, float] = {}
    for number, names in enumerate(layers):
        found |= dict.fromkeys(names, settings.layer_decay ** (len(layers) - number))
    return found | dict.fromkeys(head(model), settings.head_lr_factor)


def head(model: nn.Module) -> list[str]:
    """Names of the classifier's parameters, `model.head`, wherever it lies."""
    own = {id(parameter) for parameter in getattr(model, "head", nn.Identity()).parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in own]


def stages(model: nn.Module) -> list[list[str]]:
    """Names of the trained parameters of each stage before the head, from the input on.

    A stage is one of the model's `STAGES` (`BLOCKS`), or a module between them that holds a kernel or a matrix; a norm
    that stands alone belongs to the stage before it. What lies in no module at all belongs to the first stage.
    """
    own, kinds = set(head(model)), getattr(model, "STAGES", getattr(model, "BLOCKS", ()))
    found: list[list[str]] = [[name for name, p in model.named_parameters(recurse=False) if p.requires_grad]]
    begun = False
    for name, module in _units(model, kinds):
        trained = [(f"{name}.{key}", p) for key, p in module.named_parameters() if p.requires_grad]
        trained = [(key, p) for key, p in trained if key not in own]
        if any(p.ndim > 1 for _, p in trained):
            if begun:
                found.append([])
            begun = True
        found[-1] += [key for key, _ in trained]
    return [names for names in found if names]


def _units(module: nn.Module, kinds: tuple[type[nn.Module], ...], prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The network's blocks and what lies between them, in order."""
    for name, child in module.named_children():
        whole = isinstance(child, kinds) or not any(True for _ in child.children())
        if not whole and (type(child) in _LISTS or any(isinstance(inner, kinds) for inner in child.modules())):
            yield from _units(child, kinds, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child
