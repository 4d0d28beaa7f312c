"""Parameters -> optimizer, learning rate of a position in the run, moving average of the weights."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dist_train.groups import groups, head
from dist_train.settings import Optim
from dist_train.settings.optim import BETAS

__all__ = ["FUSED", "Average", "build", "floating", "head", "learning_rate", "load"]

FUSED = ("adamw", "adam", "sgd")  # these leave all as it is where `found_inf` says so; the others need `undo`
_KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)
}
_CHOSEN = ("params", "fused", "foreach", "capturable", "differentiable", "maximize")  # not the user's to give


def build(model: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """The optimizer of the trained parameters, in the groups of `groups.groups`; fused where it leaves skipped steps.

    Errors: `ValueError` for arguments that it lacks or that it refuses.
    """
    kind = _KINDS[settings.name]
    known = inspect.signature(kind).parameters
    given = _ours(settings, known, next(model.parameters()).device)
    given |= _arguments(settings, known, given)
    found = groups(model, settings)
    if "weight_decay" not in known:
        found = [{key: value for key, value in group.items() if key != "weight_decay"} for group in found]
    try:
        optimizer = kind(found, lr=settings.lr, **given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"optim.arguments of {settings.name}: {str(error).splitlines()[0]}") from None
    if settings.name == "sgd" and settings.momentum > 0:
        # Its first step would take memory as it comes for the momentum, and leave that so where it is skipped.
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def load(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a saved state, with its own types: torch would bring scalars of a step to the parameters' type.

    Rates, decays and arguments stay those of now. Errors: `ValueError` where the parameters are grouped otherwise.
    """
    groups, saved = optimizer.state_dict()["param_groups"], state["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        raise ValueError("the checkpoint has other rates by layer: give its optim.layer_decay and optim.head_lr_factor")
    own = {parameter: dict(values) for parameter, values in optimizer.state.items()}
    groups = [{**group, "params": its["params"]} for group, its in zip(groups, saved, strict=True)]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, values in state["state"].items():
        live = optimizer.state[parameters[int(number)]]
        for name, value in values.items():
            if isinstance(value, Tensor):
                live[name] = live[name].to(value.dtype)
    for parameter, values in own.items():  # what the saved one had not made yet
        for name, value in values.items():
            optimizer.state[parameter].setdefault(name, value)


def _ours(settings: Optim, known: Mapping[str, inspect.Parameter], device: torch.device) -> dict[str, Any]:
    """Arguments that have keys of their own, and those that the program chooses."""
    if settings.name in FUSED:
        given: dict[str, Any] = {"fused": True}
    else:  # else a count of steps that the host holds would have to be told of a skipped step
        given = {"capturable": True} if device.type == "cuda" and "capturable" in known else {}
    if settings.name == "sgd":
        nesterov = settings.momentum > 0 and not settings.arguments.get("dampening")
        return given | {"momentum": settings.momentum, "nesterov": nesterov}
    return given | ({"betas": settings.betas} if settings.name in BETAS else {})


def _arguments(settings: Optim, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """`optim.arguments`, checked by the constructor's signature and its defaults."""
    found = {}
    free = [name for name in known if name not in (*_CHOSEN, "lr", "weight_decay", *(given.keys() - {"nesterov"}))]
    for name, wish in settings.arguments.items():
        value = tuple(wish) if isinstance(wish, list) else wish
        where = f"optim.arguments of {settings.name}: `{name}`"
        if name in known and name not in free:
            why = "is not to be chosen; leave it out" if name in _CHOSEN else f"has a key of its own: optim.{name}"
            raise ValueError(f"{where} {why}")
        if name not in free:
            near = difflib.get_close_matches(name, free, 1, 0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(free)}"
            raise ValueError(f"{where} is unknown; {hint}")
        default = known[name].default
        if default is not None and not _alike(value, default):
            raise ValueError(f"{where} is {value!r}, and must be like {default!r}")
        found[name] = value
    return found


def _alike(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a default: a switch, a number, so many numbers, a name."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and len(value) == len(default)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float) if isinstance(default, int | float) else isinstance(value, type(default))


def learning_rate(consumed: int, total: int, epoch: int, settings: Optim, reductions: int = 0) -> float:
    """The rate of the step that starts at position `consumed` of `total`, `epoch` positions an epoch.

    Linear warm-up from start_lr (min_lr), then cosine to min_lr (Loshchilov 2017, arXiv 1608.03983), one cycle (Smith
    2018, arXiv 1708.07120: cosine up over the first 30 % or the warm-up, cosine down to min_lr), steps, exponential to
    min_lr, constant, or lr reduced `reductions` times on plateaus of the validation score.
    """
    low, high = settings.min_lr, settings.lr
    start = low if settings.start_lr is None else settings.start_lr
    warmup = min(settings.warmup_epochs * epoch, 0.5 * total)
    if settings.schedule == "onecycle":
        warmup = warmup or 0.3 * total
        if consumed < warmup:
            return high + (start - high) * _cosine(consumed / warmup)
    elif consumed < warmup:
        return start + (high - start) * consumed / warmup
    if settings.schedule == "constant":
        return high
    if settings.schedule == "plateau":
        return max(low, high * math.pow(settings.step_factor, reductions))
    if settings.schedule == "step":
        return max(low, high * settings.step_factor ** int((consumed - warmup) / (settings.step_epochs * epoch)))
    share = (consumed - warmup) / max(1.0, total - warmup)
    if settings.schedule == "exponential":
        return high * math.pow(low / high, min(1.0, share))
    return low + (high - low) * _cosine(share)


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
