"""A model and its input's shape -> floating-point operations of training on one clip, counted and not estimated."""

import torch
from torch import nn
from torch.func import functional_call

from dist_train.models import compiled

_ROWS = 2  # a BatchNorm refuses one


def per_clip(model: nn.Module, shape: tuple[int, int]) -> float | None:
    """Operations of a forward and a backward on one clip; a multiplication and an addition are two.

    `shape`: frames and bins of a training window. Runs on shapes alone (the meta device), on stand-ins for weights and
    statistics: nothing is computed and nothing of the model or of any random state changes. Convolutions, matrix
    products and attention are counted. None where an operation has no form without data.
    """
    from torch.utils.flop_counter import FlopCounterMode  # a tenth of a second that only rank 0 spends

    modes = {module: module.training for module in model.modules()}
    state = {name: _stand_in(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    first = next(model.parameters())
    feat_BTF = torch.empty(_ROWS, *shape, device="meta", dtype=first.dtype)
    try:
        model.train()
        with compiled.eager(model), FlopCounterMode(display=False) as counter:
            functional_call(model, state, (feat_BTF,)).sum().backward()
    except (NotImplementedError, RuntimeError):  # a figure of the log may not end a run
        return None
    finally:
        for module, mode in modes.items():
            module.training = mode
    return float(counter.get_total_flops()) / _ROWS


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """Shape, type and need of a gradient, without values."""
    return torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)
