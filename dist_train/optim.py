"""Parameters -> optimizer, learning rate of a position in the run, moving average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dist_train.settings import Optim


def build(model: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """Fused optimizer; weight decay on matrices and kernels only, never on norms and biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=True
        )
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=settings.betas, fused=True)


def learning_rate(consumed: int, total: int, epoch: int, settings: Optim) -> float:
    """The rate of the step that starts at position `consumed` of `total`, `epoch` positions an epoch.

    Linear warm-up from min_lr, then cosine to min_lr (Loshchilov 2017, arXiv 1608.03983), one cycle (Smith 2018,
    arXiv 1708.07120: cosine up over the first 30 % or the warm-up, cosine down to min_lr), steps, or constant.
    """
    low, high = settings.min_lr, settings.lr
    warmup = min(settings.warmup_epochs * epoch, 0.5 * total)
    if settings.schedule == "onecycle":
        warmup = warmup or 0.3 * total
        if consumed < warmup:
            return high + (low - high) * _cosine(consumed / warmup)
    elif consumed < warmup:
        return low + (high - low) * consumed / warmup
    if settings.schedule == "constant":
        return high
    if settings.schedule == "step":
        return max(low, high * settings.step_factor ** int((consumed - warmup) / (settings.step_epochs * epoch)))
    return low + (high - low) * _cosine((consumed - warmup) / max(1.0, total - warmup))


def _cosine(share: float) -> float:
    """1 at 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class Average:
    """Exponential moving average of weights and of BatchNorm's running statistics (Polyak averaging).

    `update` runs on the device without a sync; a skipped step leaves the average as it was.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = list(floating(model))
        self.tensors = [tensor.detach().clone() for tensor in self.live]

    @torch.no_grad()
    def update(self, skip: Tensor, step: int) -> None:
        """Move by 1 - decay towards the live weights, faster in the first steps; `skip`: 1.0 leaves all as it is."""
        decay = min(self.decay, (1 + step) / (10 + step))
        difference = torch._foreach_sub(self.live, self.tensors)
        torch._foreach_mul_(difference, (1.0 - decay) * (1.0 - skip))
        torch._foreach_add_(self.tensors, difference)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange live weights and average (before and after an evaluation)."""
        kept = [tensor.clone() for tensor in self.live]
        torch._foreach_copy_(self.live, self.tensors)
        torch._foreach_copy_(self.tensors, kept)


def floating(model: nn.Module) -> Iterable[Tensor]:
    """All parameters and floating-point buffers, in registration order."""
    yield from (parameter.data for parameter in model.parameters())
    yield from (buffer for buffer in model.buffers() if buffer.is_floating_point())
