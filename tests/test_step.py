"""One step on groups: gradient, BatchNorm statistics, clipping, and a step that is not finite and leaves no trace."""

import copy
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dist_train import models, objective, parts
from dist_train.config import check
from dist_train.frontend import FrontBatch
from dist_train.models import compiled
from dist_train.order import group_bounds, key
from dist_train.settings import Objective
from dist_train.step import Step
from dist_train.world import Place, World

FRAMES, BINS, CLASSES = 20, 8, 3
WORLD = World(Place(), torch.device("cpu"), "gloo", 1)


class Plain(nn.Module):
    """A network without BatchNorm, with dropout if asked."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden, self.dropout, self.head = nn.Linear(BINS, 16), nn.Dropout(dropout), nn.Linear(16, CLASSES)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        hidden: Tensor = self.head(self.dropout(self.hidden(feat_BTF).tanh().mean(1)))
        return hidden


def _batch(rows: int, seed: int, weight: list[float] | None = None) -> FrontBatch:
    generator = torch.Generator().manual_seed(seed)
    feat_BTF = torch.randn(rows, FRAMES, BINS, generator=generator, dtype=torch.float64)
    label_B = torch.randint(CLASSES, (rows,), generator=generator)
    weight_B = torch.tensor(weight or [1.0] * rows)
    return FrontBatch(feat_BTF, None, label_B, weight_B, torch.arange(rows), torch.ones(rows), feat_BTF[:, :, 0])


def _groups(size: int, micro_batch: int) -> tuple[list[FrontBatch], list[int], int, int]:
    """What Step.run takes, but for the rate."""
    bounds = group_bounds(size, micro_batch).tolist()
    batches = [_batch(high - low, low) for low, high in itertools.pairwise(bounds)]
    return batches, bounds[:-1], size, len(batches)


def _joined(batches: list[FrontBatch]) -> FrontBatch:
    names = ("feat_BTF", "label_B", "weight_B")
    feat_BTF, label_B, weight_B = (torch.cat([getattr(batch, name) for batch in batches]) for name in names)
    rows = len(label_B)
    return FrontBatch(feat_BTF, None, label_B, weight_B, torch.arange(rows), torch.ones(rows), feat_BTF[:, :, 0])


def _step(model: nn.Module, **optim: Any) -> Step:
    config = check({"optim": {"clip": None, **optim}, "precision": "fp64"}, "test")
    return Step(model.double(), config, WORLD, None, (FRAMES, BINS))


def _ecapa() -> nn.Module:
    torch.manual_seed(1)
    return models.build("ecapa", BINS, CLASSES, channels=8, embedding=8).double()


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("micro_batch", [1, 4, 5, 16])
def test_gradient_of_groups_is_that_of_the_batch(micro_batch: int) -> None:
    step = _step(Plain())
    batches, *rest = _groups(17, micro_batch)
    step.run(batches, *rest, 0.0)
    whole = _joined(batches)
    step.model.zero_grad()
    F.cross_entropy(step.model(whole.feat_BTF), whole.label_B).backward()
    expected = _gradients(step.model)
    step.run(batches, *rest, 0.0)
    torch.testing.assert_close(_gradients(step.model), expected, rtol=1e-12, atol=1e-14)
    norm = torch.cat([gradient.reshape(-1) for gradient in expected]).norm()
    assert float(step.sums[5]) == pytest.approx(float(norm), rel=1e-12)


def test_batchnorm_statistics_are_the_mean_over_groups() -> None:
    model = _ecapa()
    start = copy.deepcopy(model)
    step = _step(model)
    batches, firsts, size, groups = _groups(15, 4)
    assert groups == 4
    step.run(batches, firsts, size, groups, 0.0)
    left, gradients = [], []
    for batch in batches:
        alone = copy.deepcopy(start).train()
        loss = F.cross_entropy(alone(batch.feat_BTF), batch.label_B, reduction="sum") / size
        loss.backward()
        gradients.append(_gradients(alone))
        left.append(dict(alone.named_buffers()))
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert int(buffer) == 1
        else:
            expected = torch.stack([buffers[name] for buffers in left]).mean(0)
            torch.testing.assert_close(buffer, expected, rtol=1e-12, atol=1e-14)
    sums = [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]
    torch.testing.assert_close(_gradients(model), sums, rtol=1e-10, atol=1e-13)


def test_dropout_belongs_to_the_group() -> None:
    """The same masks wherever the group is computed, and other masks for other positions."""
    torch.manual_seed(2)
    start = Plain(dropout=0.5)
    batches, firsts, size, groups = _groups(8, 4)

    def gradients(numbers: list[int]) -> list[Tensor]:
        step = _step(copy.deepcopy(start))
        step.run([batches[n] for n in numbers], [firsts[n] for n in numbers], size, groups, 0.0)
        return _gradients(step.model)

    apart = [one + other for one, other in zip(gradients([0]), gradients([1]), strict=True)]
    torch.testing.assert_close(gradients([0, 1]), apart, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients([1, 0]), apart, rtol=1e-12, atol=1e-14)
    assert key(0, firsts[0], 3) != key(0, firsts[1], 3)


def test_a_bad_sample_has_no_part() -> None:
    step = _step(Plain())
    batch = _batch(4, 0, weight=[1, 0, 1, 1])
    step.run([batch], [0], 4, 1, 0.0)
    found = _gradients(step.model)
    loss, right, weight, *_ = step.sums.tolist()
    rows = [0, 2, 3]
    step.model.zero_grad()
    logits_BC = step.model(batch.feat_BTF[rows])
    expected = F.cross_entropy(logits_BC, batch.label_B[rows], reduction="sum")
    (expected / 4).backward()  # its slot still counts: a mean over fewer would need another meeting of the ranks
    torch.testing.assert_close(found, _gradients(step.model), rtol=1e-12, atol=1e-14)
    assert (loss, weight) == (pytest.approx(expected.item()), 3)
    assert right == int((logits_BC.argmax(1) == batch.label_B[rows]).sum())


def test_clip() -> None:
    step = _step(Plain(), clip=1e-3)
    step.run(*_groups(8, 4), 0.0)
    norm = torch.cat([gradient.reshape(-1) for gradient in _gradients(step.model)]).norm()
    assert float(step.sums[5]) > 1e-3 > float(norm) * 0.999
    assert float(norm) == pytest.approx(1e-3, rel=0.01)


def _everything(step: Step) -> list[Tensor]:
    """Weights, statistics, counters, average, moments and the optimizer's own count of steps."""
    moments = [value for state in step.optimizer.state.values() for value in state.values() if value is not None]
    state = [*step.model.state_dict().values(), *step.average.tensors] if step.average is not None else []
    return [tensor.clone() for tensor in (*state, *moments)]


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_leaves_no_trace(name: str, poison: float) -> None:
    step = _step(_ecapa(), name=name, ema=0.9, clip=1.0, weight_decay=0.1)
    good = _groups(8, 4)
    bad = copy.deepcopy(good)
    bad[0][1].feat_BTF[2, 3, 4] = poison
    step.run(*good, 0.1)
    before = _everything(step)
    for skipped in (1, 2):
        step.run(*bad, 0.1)
        assert step.sums[3:5].tolist() == [skipped, skipped]
        after = _everything(step)
        assert len(before) == len(after) > 100
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    step.run(*good, 0.1)
    assert step.sums[3:5].tolist() == [2, 0]
    after = _everything(step)
    assert sum(torch.equal(one, other) for one, other in zip(before, after, strict=True)) < len(before) / 4
    assert all(torch.isfinite(tensor).all() for tensor in after)


def test_a_skipped_first_step() -> None:
    model = _ecapa()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step = _step(model)
    bad = _groups(8, 4)
    bad[0][0].feat_BTF[0] = float("nan")
    step.run(*bad, 0.1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_state_goes_over_to_another_step() -> None:
    first = _step(_ecapa(), ema=0.9)
    first.run(*_groups(8, 4), 0.1)
    kept = copy.deepcopy(first.state())
    second = _step(models.build("ecapa", BINS, CLASSES, channels=8, embedding=8), ema=0.9)
    second.load(kept)
    for step in (first, second):
        step.run(*_groups(9, 4), 0.05)
    assert all(torch.equal(one, other) for one, other in zip(_everything(first), _everything(second), strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_with_smoothing_and_mixup(smoothing: float) -> None:
    torch.manual_seed(3)
    logits_BC, label_B = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 3])
    partner_B, mix_B = torch.tensor([4, 1, 0, 2, 3]), torch.tensor([0.3, 1.0, 0.5, 0.9, 0.0], dtype=torch.float64)
    smooth_CC = torch.eye(4, dtype=torch.float64) * (1 - smoothing) + smoothing / 4
    target_BC = mix_B[:, None] * smooth_CC[label_B] + (1 - mix_B)[:, None] * smooth_CC[label_B[partner_B]]
    settings = Objective(name="softmax", label_smoothing=smoothing)
    found = objective.sample_losses(logits_BC, label_B, partner_B, mix_B, settings)
    torch.testing.assert_close(found, -(target_BC * logits_BC.log_softmax(1)).sum(1), rtol=1e-12, atol=0)
    half = objective.sample_losses(logits_BC.bfloat16(), label_B, None, None, settings)
    assert half.dtype == torch.float32  # never in the half precision of the network


class Asks(TorchDispatchMode):
    """Notes the operations that make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        self.count += 1
        name = str(function)
        if any(part in name for part in ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique")):
            self.found.append(name)
        return function(*given, **(named or {}))


@pytest.mark.parametrize(("name", "optimizer"), [("ecapa", "adamw"), ("ecapa", "sgd"), ("eres2net", "adam")])
def test_no_value_is_asked_of_the_device(name: str, optimizer: str) -> None:
    torch.manual_seed(4)
    model = models.build(name, BINS, CLASSES, channels=8, embedding=8)
    step = _step(model, ema=0.9, clip=1.0, name=optimizer)
    groups = _groups(8, 4)
    step.run(*groups, 0.1)
    with Asks() as asked:
        step.run(*groups, 0.1)
        step.run([], [], 8, 2, 0.1)  # a rank without a group
    assert asked.found == []
    assert asked.count > 1000  # it was watched, the optimizer and the statistics too
    with asked:
        float(step.sums[0])
    assert asked.found == ["aten._local_scalar_dense.default"]


@pytest.mark.parametrize("name", ["ecapa", "campplus", "eres2net"])
def test_blocks_hold_the_network_once(name: str) -> None:
    model = models.build(name, BINS, CLASSES, channels=8)
    blocks = compiled.blocks(model)
    inside = [id(module) for block in blocks for module in block.modules()]
    assert len(blocks) > 5 and len(inside) == len(set(inside))
    norms = [id(module) for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(set(norms) - set(inside)) <= 1  # at most one that stands alone between blocks
    assert compiled.blocks(plain := Plain()) == [plain]


def test_a_compiled_network_runs_eagerly_where_it_is_told() -> None:
    from torch._dynamo.utils import counters

    model = _ecapa()
    parts.compile_blocks(model, False, torch.device("cpu"))
    assert compiled.is_compiled(model) and not compiled.is_compiled(_ecapa())
    counters.clear()
    with compiled.eager(model):
        found = model(_batch(3, 0).feat_BTF)
    assert torch.equal(found, _ecapa()(_batch(3, 0).feat_BTF))
    assert not counters["frames"]


def test_graphs_need_cuda() -> None:
    with pytest.raises(ValueError, match=r"graphs=true.*CUDA device.*cpu"):
        parts.compile_blocks(Plain(), True, torch.device("cpu"))


@pytest.mark.full
def test_compiled_steps_agree_with_eager_ones() -> None:
    """Three steps of two groups; a forward in eval mode and another shape between them compiles nothing."""
    from torch._dynamo.utils import counters

    losses: list[list[float]] = []
    for compile in (False, True):
        torch.manual_seed(1)
        model = models.build("ecapa", BINS, CLASSES, channels=8, embedding=8)
        if compile:
            parts.compile_blocks(model, False, torch.device("cpu"))
            counters.clear()
        step = Step(model, check({"optim": {"clip": 1.0}}, "test"), WORLD, None, (FRAMES, BINS))
        step.prime(4)
        found: list[float] = []
        for _ in range(3):
            batches, *rest = _groups(8, 4)
            batches = [
                FrontBatch(**{**vars(b), "feat_BTF": b.feat_BTF.float(), "wave_BT": b.wave_BT.float()}) for b in batches
            ]
            step.run(batches, *rest, 1e-3)
            found.append(float(step.sums[0]))
            with compiled.eager(model), torch.no_grad():
                model.eval()(batches[0].feat_BTF[:3, :15])
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    graphs, blocks = counters["stats"]["unique_graphs"], compiled.blocks(model)
    assert 0 < graphs <= len(blocks)
