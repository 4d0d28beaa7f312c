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

Place = tuple[int, str]  # number of a parameter and the name of its state; the weight itself is ""


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
        before = dict(self._tensors())
        for place in before.keys() - self.kept.keys():
            self.kept[place] = torch.empty_like(before[place])
        torch._foreach_copy_([self.kept[place] for place in before], list(before.values()))
        for parameter, _ in self._parameters():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(skip > 0, 0.0)
        self.optimizer.step()
        after = dict(self._tensors())
        if made_now := after.keys() - before.keys():
            self.kept |= self._beginnings({place: after[place] for place in made_now})
        for device in dict.fromkeys(tensor.device for tensor in after.values()):
            places = [place for place, tensor in after.items() if tensor.device == device]
            made, kept, here = [after[p] for p in places], [self.kept[p] for p in places], skip.to(device)
            torch._foreach_mul_(made, 1.0 - here)
            torch._foreach_mul_(kept, here)
            torch._foreach_add_(made, kept)

    def _beginnings(self, made: dict[Place, Tensor]) -> dict[Place, Tensor]:
        """What the optimizer's first step found in the state that it made itself."""
        rates = [float(group["lr"]) for _, group in self._parameters()]
        values = {(n, name): rates[n] if name in _RATES else float(name in _ONES) for n, name in made}
        return {place: torch.full_like(tensor, values[place]) for place, tensor in made.items()}

    def _parameters(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                yield parameter, group

    def _tensors(self) -> Iterator[tuple[Place, Tensor]]:
        """Weights and state, with their places."""
        for number, (parameter, _) in enumerate(self._parameters()):
            yield (number, ""), parameter
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield (number, name), value
