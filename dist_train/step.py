"""This rank's groups of one step -> updated weights. In: feature batches; out: sums for the log, on the device.

for each group      forward, backward (gradients meet in the last one), BatchNorm statistics from the same start
BatchNorm           mean over all groups of all ranks of what each alone would have left
gradient            norm, clip; not finite: the whole step is undone on the device, without asking the host
weights             fused optimizer, moving average
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dist_train import objective, optim
from dist_train.frontend import FrontBatch
from dist_train.order import key
from dist_train.settings import Config
from dist_train.world import World

SUMS = ("loss", "correct", "weight", "skipped", "skipped_in_row", "norm")  # since the last log line
SHARED = 3  # of them are of this rank's samples; the others are equal on all ranks


class Step:
    """Model, optimizer, average and loss scale of one rank; equal on all ranks at all times."""

    def __init__(
        self, model: nn.Module, config: Config, world: World, half: torch.dtype | None, shape: tuple[int, int]
    ) -> None:
        """`half`: the autocast type or None; `shape`: frames and bins of a training window."""
        self.model, self.config, self.world, self.half, self.shape = model, config, world, half, shape
        self.optimizer = optim.build(model, config.optim)
        self.average = optim.Average(model, config.optim.ema) if config.optim.ema is not None else None
        self.statistics = list(_statistics(model))
        self.counters = [m.num_batches_tracked for m in _norms(model) if m.num_batches_tracked is not None]
        self.scale = torch.full((), 2.0**16 if half is torch.float16 else 1.0, device=world.device)
        self.growth = torch.zeros((), dtype=torch.int32, device=world.device)
        self.sums = torch.zeros(len(SUMS), dtype=torch.float64 if half is None else torch.float32, device=world.device)
        if world.device.type == "mps":
            self.sums = self.sums.float()
        self.steps = 0
        self.parallel: nn.Module = model
        if world.size > 1:
            self.parallel = DistributedDataParallel(
                model,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def prime(self, rows: int) -> None:
        """Two backwards of zero loss. DDP regroups its buckets after the first backward, so without this the first
        step after a resume would add three ranks' gradients in another order than an undisturbed run."""
        if self.world.size == 1:
            return
        before = [tensor.clone() for tensor in (*self.statistics, *self.counters)]
        self.model.train()
        for _ in range(2):
            self._nothing(rows)
        self.optimizer.zero_grad(set_to_none=True)
        if before:
            torch._foreach_copy_([*self.statistics, *self.counters], before)

    def run(self, batches: Sequence[FrontBatch], firsts: Sequence[int], size: int, groups: int, rate: float) -> None:
        """One step of `size` positions in `groups` groups over all ranks; this rank's begin at positions `firsts`."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        before = [tensor.clone() for tensor in self.statistics]
        counts = [tensor.clone() for tensor in self.counters]
        total = self._gradients(batches, firsts, size, before)
        skip = self._clip()
        self._settle(before, total, groups, skip)
        if counts:  # a network without BatchNorm has none, and foreach functions refuse empty lists
            torch._foreach_copy_(self.counters, torch._foreach_add(counts, (1 - skip).to(torch.int64)))
        self.optimizer.found_inf = skip  # type: ignore[attr-defined]  # fused optimizers leave all as it is where 1
        self.optimizer.step()
        self.steps += 1
        if self.average is not None:
            self.average.update(skip, self.steps)

    def _gradients(
        self, batches: Sequence[FrontBatch], firsts: Sequence[int], size: int, before: list[Tensor]
    ) -> list[Tensor]:
        """Backward of every group; the sum of the BatchNorm statistics that each left."""
        self.model.train()
        total = [torch.zeros_like(tensor) for tensor in self.statistics]
        for number, (batch, first) in enumerate(zip(batches, firsts, strict=True)):
            if number and before:
                torch._foreach_copy_(self.statistics, before)
            torch.manual_seed(key(self.config.run.seed, first, 3) >> 1)
            with self._meeting(number == len(batches) - 1):
                self._loss(batch, size).backward()  # type: ignore[no-untyped-call]
            if total:
                torch._foreach_add_(total, self.statistics)
        if not batches:
            self._idle()
        return total

    def _loss(self, batch: FrontBatch, size: int) -> Tensor:
        with self._autocast():
            logits_BC = self.parallel(batch.feat_BTF, batch.frames_B)
        loss_B = objective.sample_losses(logits_BC, batch.label_B, batch.partner_B, batch.mix_B, self.config.objective)
        loss_B = torch.where(batch.weight_B > 0, loss_B * batch.weight_B, 0.0)
        with torch.no_grad():
            right = ((logits_BC.argmax(1) == batch.label_B) * batch.weight_B).sum()
            self.sums[:SHARED] += torch.stack([loss_B.sum(), right, batch.weight_B.sum()]).to(self.sums.dtype)
        return loss_B.sum() * (self.world.size / size) * self.scale.to(loss_B.dtype)

    def _idle(self) -> None:
        """A rank without a group takes part in the meeting of gradients with zeros."""
        self.model.eval()
        self._nothing(1)
        self.model.train()

    def _nothing(self, rows: int) -> None:
        """Forward and backward of zero loss."""
        feat_BTF = torch.zeros(rows, *self.shape, device=self.world.device, dtype=next(self.model.parameters()).dtype)
        with self._autocast():
            logits_BC = self.parallel(feat_BTF, None)
        (logits_BC.float() * 0).sum().backward()

    def _meeting(self, last: bool) -> AbstractContextManager[Any]:
        if last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=self.half)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and numbers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.average.tensors if self.average is not None else None,
            "scale": self.scale,
            "growth": self.growth,
            "steps": self.steps,
            "skipped": self.sums[SHARED:],
        }

    def weights(self) -> tuple[dict[str, Tensor], list[Tensor] | None]:
        """Copies of the model's state and of the average."""
        model = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return model, [t.clone() for t in self.average.tensors] if self.average is not None else None

    def take(self, model: dict[str, Tensor], average: list[Tensor] | None) -> None:
        """Load what `weights` or a checkpoint gave."""
        self.model.load_state_dict(model)
        if self.average is not None and average is not None:
            torch._foreach_copy_(self.average.tensors, [tensor.to(self.world.device) for tensor in average])

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.take(state["model"], state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scale.copy_(state["scale"])
        self.growth.copy_(state["growth"])
        self.steps = int(state["steps"])
        self.sums[SHARED:] = state["skipped"].to(self.sums)

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Bring the gradient to its scale and under its largest norm; 1.0 where it is not finite, else 0.0."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) / self.scale.to(gradients[0].dtype)
        skip = (~torch.isfinite(norm)).float()
        limit = self.config.optim.clip
        factor = (limit / (norm + 1e-6)).clamp(max=1.0) if limit is not None else torch.ones_like(norm)
        if limit is not None or self.half is torch.float16:
            torch._foreach_mul_(gradients, factor / self.scale.to(factor.dtype))
        if self.half is torch.float16:
            torch._amp_update_scale_(self.scale, self.growth, skip, 2.0, 0.5, 2000)
        self.sums[3] += skip
        self.sums[4] = (self.sums[4] + 1) * skip
        self.sums[5] = norm
        return skip

    @torch.no_grad()
    def _settle(self, before: list[Tensor], total: list[Tensor], groups: int, skip: Tensor) -> None:
        """BatchNorm statistics after the step: the mean over all groups, or as before where the step is skipped."""
        if not total:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in total])
        self.world.add(flat)
        flat = torch.where(skip > 0, torch.cat([tensor.reshape(-1) for tensor in before]), flat / groups)
        parts = flat.split_with_sizes([tensor.numel() for tensor in total])
        torch._foreach_copy_(self.statistics, [part.view_as(tensor) for part, tensor in zip(parts, total, strict=True)])


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def _statistics(model: nn.Module) -> list[Tensor]:
    return [t for m in _norms(model) for t in (m.running_mean, m.running_var) if t is not None]
