"""An optimizer that knows no skipped steps -> one that leaves no trace of them, without asking the device.

before the step     copies of weights and state
the step            on gradients that are zero where the step is skipped, so that all stays finite
after it            where skipped the copies, else what the step made: two products and a sum, exact either way
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_ONES = ("mu", "mu_product")  # state that begins from one (ASGD, NAdam)
_RATES = ("eta", "step_size")  # from the learning rate (ASGD, Rprop); all else begins from zero

Place = tuple[Tensor, str]  # a parameter and the name of its state; the weight itself is ""


class Undo:
    """Steps of one optimizer. Costs a copy of weights and state."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.kept: dict[Place, Tensor] = {}

    @torch.no_grad()
    def step(self, skip: Tensor) -> None:
        """`optimizer.step()`, or nothing where `skip` (on the device) is 1.0.

        A state that the host holds on a GPU (Adafactor's and Adagrad's count of steps) needs a wait for the device.
        """
        before = dict(_tensors(self.optimizer))
        self.kept = {place: self.kept.get(place, tensor) for place, tensor in before.items()}
        for place, tensor in before.items():
            if self.kept[place] is tensor:
                self.kept[place] = torch.empty_like(tensor)
        torch._foreach_copy_(list(self.kept.values()), list(before.values()))
        for parameter, name in before:
            if not name and parameter.grad is not None:
                parameter.grad.masked_fill_(skip > 0, 0.0)
        self.optimizer.step()
        after = dict(_tensors(self.optimizer))
        for place in after.keys() - before.keys():
            self.kept[place] = torch.full_like(after[place], self._beginning(*place))
        for device in dict.fromkeys(tensor.device for tensor in after.values()):
            places = [place for place, tensor in after.items() if tensor.device == device]
            made, kept, here = [after[p] for p in places], [self.kept[p] for p in places], skip.to(device)
            torch._foreach_mul_(made, 1.0 - here)
            torch._foreach_mul_(kept, here)
            torch._foreach_add_(made, kept)

    def _beginning(self, parameter: Tensor, name: str) -> float:
        """What the optimizer's first step found in a state that it made itself."""
        if name not in _RATES:
            return float(name in _ONES)
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        return next(float(group["lr"]) for group in groups if any(parameter is p for p in group["params"]))


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Place, Tensor]]:
    """Weights and state, with their places."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield (parameter, ""), parameter
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield (parameter, name), value
