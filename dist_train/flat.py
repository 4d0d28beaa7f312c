"""A network's BatchNorms, and their statistics in one piece of memory: one copy, one all-reduce."""

import torch
from torch import Tensor, nn


def flat(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Zeros of all the tensors' sizes in one piece of memory, and a view for each tensor."""
    if not tensors:
        return torch.zeros(0), []
    whole = torch.cat([torch.zeros_like(tensor).reshape(-1) for tensor in tensors])
    parts = whole.split_with_sizes([tensor.numel() for tensor in tensors])
    return whole, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """All BatchNorms, in registration order."""
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def statistics(model: nn.Module) -> list[Tensor]:
    """Their running means and variances."""
    return [t for m in norms(model) for t in (m.running_mean, m.running_var) if t is not None]
