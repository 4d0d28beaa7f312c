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
from dist_train.flat import flat, norms, statistics
from dist_train.frontend import FrontBatch
from dist_train.models import compiled
from dist_train.order import key
from dist_train.settings import Config
from dist_train.speed import Stopwatch
from dist_train.undo import Undo
from dist_train.world import World

SUMS = ("loss", "correct", "weight", "skipped", "skipped_in_row", "norm")  # since the last log line
SHARED = 3  # of them are of this rank's samples; the others are equal on all ranks


class Step:
    """Model, optimizer, average and loss scale of one rank; equal on all ranks at all times."""

    def __init__(
        self,
        model: nn.Module,
        config: Config,
        world: World,
        half: torch.dtype | None,
        shape: tuple[int, int],
        weight_C: Tensor | None = None,
    ) -> None:
        """`half`: the autocast type or None; `shape`: frames and bins of a training window; `weight_C`: of classes."""
        self.model, self.config, self.world, self.half, self.shape = model, config, world, half, shape
        self.optimizer = optim.build(model, config.optim)
        self.undo = Undo(self.optimizer) if config.optim.name not in optim.FUSED else None
        self.average = optim.Average(model, config.optim.ema) if config.optim.ema is not None else None
        self.weight_C, self.margin = weight_C, config.objective.margin
        self.watch = Stopwatch(world.device, world.size > 1)
        self.weighted = list(model.parameters())
        head = set(optim.head(model))
        self.body = [parameter for name, parameter in model.named_parameters() if name not in head]
        self.frozen = False
        self.norms = norms(model)
        self.statistics = statistics(model)
        self.counters = [m.num_batches_tracked for m in self.norms if m.num_batches_tracked is not None]
        self.counts, self.counts_parts = flat(self.counters)  # as they were before the step
        self.before, self.before_parts = flat(self.statistics)  # likewise
        self.total, self.total_parts = flat(self.statistics)  # sum of what the groups left
        self.scale = torch.full((), 2.0**16 if half is torch.float16 else 1.0, device=world.device)
        self.growth = torch.zeros((), dtype=torch.int32, device=world.device)
        self.sums = torch.zeros(len(SUMS), dtype=torch.float64 if half is None else torch.float32, device=world.device)
        if world.device.type == "mps":
            self.sums = self.sums.float()
        self.steps = 0
        self.graphs = config.graphs and compiled.is_compiled(model)
        self._clear()
        self.parallel: nn.Module = model
        if world.size > 1:
            self.parallel = DistributedDataParallel(
                model,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                bucket_cap_mb=_bucket(model),
            )

    def prime(self, rows: int) -> None:
        """Two backwards of zero loss. DDP regroups its buckets after the first backward, so without this the first
        step after a resume would add three ranks' gradients in another order than an undisturbed run. A compiled
        network is compiled, and CUDA graphs are taken, here."""
        if self.world.size == 1 and not compiled.is_compiled(self.model):
            return
        self._remember()
        self.model.train()
        for _ in range(2):
            self._nothing(rows)
        self._clear()
        if self.statistics:
            torch._foreach_copy_(self.statistics, self.before_parts)
        if self.counters:
            torch._foreach_copy_(self.counters, self.counts_parts)

    def run(
        self,
        batches: Sequence[FrontBatch],
        firsts: Sequence[int],
        size: int,
        groups: int,
        rate: float,
        frozen: bool = False,
        margin: float | None = None,
    ) -> None:
        """One step of `size` positions in `groups` groups over all ranks; this rank's begin at positions `firsts`.

        `frozen`: only the head learns; the BatchNorms keep and use the statistics that they have. `margin`: of am and
        aam now; None for the whole.
        """
        self.margin = self.config.objective.margin if margin is None else margin
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        if self.frozen and not frozen:
            self.model.train()
        self.frozen = frozen
        self.watch.start()
        self._clear()
        self._remember()
        self._gradients(batches, firsts, size)
        if frozen:  # they met like any other, since DDP waits for them; without one an optimizer passes a weight by
            for parameter in self.body:
                parameter.grad = None
        skip = self._clip()
        if not frozen:
            self._settle(groups, skip)
        if self.undo is not None:
            self.undo.step(skip)
        else:
            self.optimizer.found_inf = skip  # type: ignore[attr-defined]  # fused ones leave all as it is where 1
            self.optimizer.step()
        self.steps += 1
        if self.average is not None:
            self.average.update(skip, self.steps)

    def _clear(self) -> None:
        """No gradients. CUDA graphs hand over gradients in memory of their own, which the next replay overwrites, so
        there they are added to zeros instead of taken."""
        self.optimizer.zero_grad(set_to_none=not self.graphs)
        if self.graphs:
            for parameter in self.weighted:
                if parameter.grad is None and parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)

    def _remember(self) -> None:
        """BatchNorm as it is before the step; foreach functions refuse the empty lists of a network without it."""
        if self.statistics:
            torch._foreach_copy_(self.before_parts, self.statistics)
        if self.counters:
            torch._foreach_copy_(self.counts_parts, self.counters)

    def _gradients(self, batches: Sequence[FrontBatch], firsts: Sequence[int], size: int) -> None:
        """Backward of every group; `total` becomes the sum of the BatchNorm statistics that each left."""
        self._train()
        self.total.zero_()
        for number, (batch, first) in enumerate(zip(batches, firsts, strict=True)):
            last = number == len(batches) - 1
            if number and self.statistics:
                torch._foreach_copy_(self.statistics, self.before_parts)
            torch.manual_seed(key(self.config.run.seed, first, 3) >> 1)
            with self._meeting(last):
                loss = self._loss(batch, size)
                if last:
                    self.watch.stop(len(batches))
                loss.backward()  # type: ignore[no-untyped-call]
            if self.statistics:
                torch._foreach_add_(self.total_parts, self.statistics)
        if not batches:
            self._idle()

    def _train(self) -> None:
        """The network learns, or only its head."""
        if not self.model.training:
            self.model.train()
        if self.frozen:
            for module in self.norms:
                module.training = False

    def _loss(self, batch: FrontBatch, size: int) -> Tensor:
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self._autocast():
            logits_BC = self.parallel(batch.feat_BTF, batch.frames_B)
        loss_B = objective.sample_losses(
            logits_BC,
            batch.label_B,
            batch.partner_B,
            batch.mix_B,
            self.config.objective,
            target_BC=batch.target_BC,
            weight_C=self.weight_C,
            margin=self.margin,
        )
        loss_B = torch.where(batch.weight_B > 0, loss_B * batch.weight_B, 0.0)
        with torch.no_grad():
            right = (objective.right(logits_BC, batch.label_B, batch.target_BC) * batch.weight_B).sum()
            self.sums[:SHARED] += torch.stack([loss_B.sum(), right, batch.weight_B.sum()]).to(self.sums.dtype)
        return loss_B.sum() * (self.world.size / size) * self.scale.to(loss_B.dtype)

    def _idle(self) -> None:
        """A rank without a group takes part in the meeting of gradients with zeros."""
        self.model.eval()
        with compiled.eager(self.model):
            self._nothing(1)
        self.model.train()

    def _nothing(self, rows: int) -> None:
        """Forward and backward of zero loss."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
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

    def begin(self, weights: dict[str, Tensor]) -> None:
        """Start from some of a model's state; the average starts there too."""
        self.model.load_state_dict(weights, strict=False)
        if self.average is not None:
            torch._foreach_copy_(self.average.tensors, self.average.live)

    def load(self, state: dict[str, Any], moments: bool = True) -> None:
        """Take over what `state` gave; without its `moments` where they are another optimizer's."""
        self.take(state["model"], state["ema"])
        if moments:
            optim.load(self.optimizer, state["optimizer"])
        self.scale.copy_(state["scale"])
        self.growth.copy_(state["growth"])
        self.steps = int(state["steps"])
        self.sums[SHARED:] = state["skipped"].to(self.sums)

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Bring the gradient to its scale and under its largest norm; 1.0 where it is not finite, else 0.0."""
        gradients = [p.grad for p in self.weighted if p.grad is not None]
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
    def _settle(self, groups: int, skip: Tensor) -> None:
        """BatchNorm statistics after the step: the mean over all groups, or as before where the step is skipped."""
        if self.statistics:
            self.world.add(self.total)
            self.total.copy_(torch.where(skip > 0, self.before, self.total / groups))
            torch._foreach_copy_(self.statistics, self.total_parts)
        if self.counters:
            self.counts.add_((1 - skip).to(torch.int64))  # not _foreach_add of a tensor, which asks for its value
            torch._foreach_copy_(self.counters, self.counts_parts)


def _bucket(model: nn.Module) -> float:
    """MiB of a bucket of gradients: torch's 25 would hold all of a small network's, and nothing would overlap."""
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    return min(25.0, max(1.0, size / 6))
