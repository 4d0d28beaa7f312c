"""Every optimizer by name: torch's own steps, no trace of skipped ones, the same after a checkpoint; rates by layer."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dist_train import config, models, optim
from dist_train.checkpoint import Checkpoints
from dist_train.frontend import FrontBatch
from dist_train.groups import groups, stages
from dist_train.progress import Progress, changes
from dist_train.settings.optim import OPTIMIZERS, REFUSED
from dist_train.step import Step
from dist_train.undo import Undo
from dist_train.world import Place, World

FRAMES, BINS, CLASSES = 6, 8, 3
WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
SETTINGS: dict[str, dict[str, Any]] = {name: {} for name in OPTIMIZERS}
SETTINGS["rprop"] = {"schedule": "constant", "warmup_epochs": 0.0}
SETTINGS["sgd-plain"] = {"name": "sgd", "momentum": 0.0}
SETTINGS["rmsprop-full"] = {"name": "rmsprop", "arguments": {"momentum": 0.5, "centered": True}}
SETTINGS["adam-amsgrad"] = {"name": "adam", "arguments": {"amsgrad": True, "eps": 1e-5}}


class Small(nn.Module):
    """A network with every kind of parameter and a BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(BINS, 8, 3), nn.BatchNorm1d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.norm(self.conv(feat_BTF.mT)).tanh().mean(2))
        return logits


def _batch(seed: int, dtype: torch.dtype, poison: bool = False) -> FrontBatch:
    generator = torch.Generator().manual_seed(seed)
    feat_BTF = torch.randn(5, FRAMES, BINS, generator=generator, dtype=torch.float64).to(dtype)
    label_B = torch.randint(CLASSES, (5,), generator=generator)
    if poison:
        feat_BTF[2, 3, 4] = float("nan")
    return FrontBatch(feat_BTF, None, label_B, torch.ones(5), torch.arange(5), torch.ones(5), feat_BTF[:, :, 0])


def _settings(case: str, **more: Any) -> dict[str, Any]:
    return {"name": case, "clip": None, "weight_decay": 0.0 if case == "rprop" else 0.1, **SETTINGS[case], **more}


def _step(case: str, dtype: torch.dtype = torch.float64, **more: Any) -> Step:
    values = _settings(case, **more)
    if case == "rprop":
        del values["weight_decay"]
    torch.manual_seed(5)
    settings = config.check({"optim": values, "precision": "fp64" if dtype == torch.float64 else "fp32"}, "test")
    return Step(Small().to(dtype), settings, WORLD, None, (FRAMES, BINS))


def _run(step: Step, seed: int, poison: bool = False, frozen: bool = False) -> None:
    dtype = next(step.model.parameters()).dtype
    step.run([_batch(seed, dtype, poison)], [0], 5, 1, 0.01, frozen)


def _everything(step: Step) -> list[tuple[str, Tensor]]:
    found = list(step.model.state_dict().items())
    for number, parameter in enumerate(step.model.parameters()):
        state = step.optimizer.state.get(parameter, {})
        found += [(f"{number}.{name}", value) for name, value in sorted(state.items()) if value is not None]
    return [(name, value.clone()) for name, value in found]


def _assert_same(one: Step, other: Step) -> None:
    for (name, mine), (theirs, value) in zip(_everything(one), _everything(other), strict=True):
        assert name == theirs and mine.dtype == value.dtype and torch.equal(mine, value), name


def test_all_of_torch_are_known() -> None:
    kinds = {
        name.lower()
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name != "Optimizer"
    }
    assert kinds == {*OPTIMIZERS, *REFUSED}
    assert config.check({"optim": {"name": "AdaMax"}}, "test").optim.name == "adamax"


@pytest.mark.parametrize("case", SETTINGS)
def test_steps_are_those_of_torch(case: str) -> None:
    step = _step(case)
    twin = copy.deepcopy(step.model)
    kind = getattr(torch.optim, {kind.lower(): kind for kind in vars(torch.optim)}[SETTINGS[case].get("name", case)])
    values = _settings(case)
    given = dict(values.get("arguments", {}))
    if kind is torch.optim.SGD:
        given |= {"momentum": values.get("momentum", 0.9), "nesterov": values.get("momentum", 0.9) > 0}
    decay = {"weight_decay": 0.1} if case != "rprop" else {}
    free = {"weight_decay": 0.0} if case != "rprop" else {}
    split = [
        {"params": [p for p in twin.parameters() if p.ndim > 1], **decay},
        {"params": [p for p in twin.parameters() if p.ndim <= 1], **free},
    ]
    optimizer = kind(split, lr=0.01, **given)
    for seed in range(4):
        _run(step, seed)
        batch = _batch(seed, torch.float64)
        optimizer.zero_grad()
        (F.cross_entropy(twin(batch.feat_BTF), batch.label_B, reduction="sum") / 5).backward()
        optimizer.step()
    for ours, theirs in zip(step.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_skipped_step_has_never_been(case: str, dtype: torch.dtype) -> None:
    """Also the first one, which finds an optimizer without a state, and the first after it."""
    disturbed, plain = _step(case, dtype), _step(case, dtype)
    for seed in range(3):
        _run(disturbed, 10 + seed, poison=True)
        assert disturbed.sums[4] == 1
        _run(disturbed, seed)
        _run(plain, seed)
        _assert_same(disturbed, plain)
    assert disturbed.sums[3] == 3 and plain.sums[3] == 0
    assert all(bool(value.isfinite().all()) for _, value in _everything(disturbed))


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_goes_through_a_checkpoint(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    first, second = _step(case, dtype), _step(case, dtype)
    for seed in range(3):
        _run(first, seed)
    checkpoints = Checkpoints(tmp_path, 1, pytest.fail)
    checkpoints.save(3, first.state())
    checkpoints.wait()
    found = checkpoints.newest()
    assert found is not None
    second.load(found[1])
    _assert_same(first, second)
    for seed in range(3, 6):
        _run(first, seed)
        _run(second, seed)
    _assert_same(first, second)


@pytest.mark.parametrize("case", ["adamw", "sgd", "rmsprop"])
def test_settings_of_now_count_after_a_checkpoint(case: str) -> None:
    """And a checkpoint of another grouping is refused in one line."""
    first, second = _step(case), _step(case, weight_decay=0.5)
    _run(first, 0)
    second.load(copy.deepcopy(first.state()))
    assert [group["weight_decay"] for group in second.optimizer.param_groups] == [0.5, 0.0]
    _assert_same(first, second)
    with pytest.raises(ValueError, match=r"rates by layer: give its optim.layer_decay and optim.head_lr_factor"):
        _step(case, layer_decay=0.5).load(first.state())


def test_an_undone_step_asks_nothing_of_the_device() -> None:
    """Without data (`meta` tensors) a read of a value raises."""
    model = Small().to("meta")
    undo = Undo(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True))
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        undo.step(torch.empty((), device="meta"))
    with pytest.raises(RuntimeError):
        float(next(model.parameters()).detach().sum())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "adamx"}, "optim.name: did you mean `adamax`? choose one of adamw, adam, sgd, adadelta"),
        ({"name": "LBFGS"}, "lbfgs evaluates the network several times a step"),
        ({"name": "SparseAdam"}, "sparse gradients only"),
        ({"name": "Muon"}, "muon takes matrices only"),
        ({"name": 3}, "optim.name"),
        ({"momentum": 0.5}, "momentum has no effect with name=adamw"),
        ({"name": "rmsprop", "betas": [0.5, 0.5]}, "betas has no effect with name=rmsprop"),
        ({"name": "rprop"}, "name=rprop finds its own step sizes, from lr on; set schedule=constant"),
        ({"name": "rprop", "weight_decay": 0.1}, "weight_decay has no effect with name=rprop"),
        ({"step_epochs": 3.0}, "step_epochs has no effect with schedule=cosine"),
        ({"schedule": "constant", "step_factor": 0.5}, "step_factor has no effect with schedule=constant"),
        ({"patience": 2}, "patience has no effect with schedule=cosine"),
        ({"start_lr": 1e-4, "warmup_epochs": 0.0}, "start_lr has no effect with warmup_epochs=0"),
        ({"start_lr": 1.0}, "start_lr (1.0) is above lr (0.001)"),
        ({"schedule": "exponential", "min_lr": 0.0}, "schedule=exponential never reaches min_lr=0"),
        ({"schedule": "plateau"}, "optim.schedule=plateau goes by the score on a validation set"),
        ({"layer_decay": 0.0}, "optim.layer_decay"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.check({"optim": values}, "test")
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"arguments": {"epsilon": 1e-6}}, "optim.arguments of adamw: `epsilon` is unknown; did you mean `eps`?"),
        ({"arguments": {"zzz": 1}}, "`zzz` is unknown; it takes eps, amsgrad"),
        ({"arguments": {"lr": 1.0}}, "`lr` has a key of its own: optim.lr"),
        ({"arguments": {"betas": [0.1, 0.2]}}, "`betas` has a key of its own: optim.betas"),
        ({"name": "sgd", "arguments": {"momentum": 0.1}}, "`momentum` has a key of its own: optim.momentum"),
        ({"arguments": {"fused": False}}, "`fused` is not to be chosen; leave it out"),
        ({"arguments": {"maximize": True}}, "`maximize` is not to be chosen"),
        ({"arguments": {"eps": "small"}}, "`eps` is 'small', and must be like 1e-08"),
        ({"arguments": {"amsgrad": 1}}, "`amsgrad` is 1, and must be like False"),
        ({"arguments": {"eps": True}}, "`eps` is True, and must be like 1e-08"),
        ({"arguments": {"eps": -1.0}}, "optim.arguments of adamw: Invalid epsilon value: -1.0"),
        ({"name": "adafactor", "arguments": {"eps": [1.0]}}, "`eps` is (1.0,), and must be like (None, 0.001)"),
    ],
)
def test_arguments_that_cannot_be(values: dict[str, Any], told: str) -> None:
    settings = config.check({"optim": values}, "test").optim
    with pytest.raises(ValueError) as caught:
        optim.build(Small(), settings)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_arguments_reach_the_optimizer() -> None:
    def built(**values: Any) -> dict[str, Any]:
        return optim.build(Small(), config.check({"optim": values}, "test").optim).defaults

    assert built(name="adafactor", arguments={"eps": [None, 0.01], "d": 2})["eps"] == (None, 0.01)
    assert built(name="nadam", betas=[0.8, 0.9])["betas"] == (0.8, 0.9)
    dampened = built(name="sgd", arguments={"dampening": 0.1})
    assert (dampened["dampening"], dampened["momentum"], dampened["nesterov"]) == (0.1, 0.9, False)
    assert built(name="sgd", arguments={"nesterov": False})["nesterov"] is False


def _tuned(**values: Any) -> optim.Optim:
    return config.check({"optim": values}, "test").optim


def test_rates_of_an_ecapa_by_layer() -> None:
    model = models.build("ecapa", BINS, CLASSES, channels=8, embedding=8)
    scale = {
        name: group["scale"]
        for group in groups(model, _tuned(layer_decay=0.5, head_lr_factor=3.0))
        for name, parameter in model.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    expected = {"blocks.0": 7, "blocks.1": 6, "blocks.2": 5, "blocks.3": 4, "mfa": 3, "asp.": 2, "asp_bn": 2, "fc": 1}
    for name, found in scale.items():
        depth = next((depth for start, depth in expected.items() if name.startswith(start)), None)
        assert found == (3.0 if depth is None else 0.5**depth), name
    assert {name for name in scale if scale[name] == 3.0} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_parameter_has_one_rate_and_one_decay(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name, 1 if name == "m5" else 80, 10)
    found = groups(model, _tuned(layer_decay=0.9, weight_decay=0.5))
    inside = [id(parameter) for group in found for parameter in group["params"]]
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(inside) == len(trained) and set(inside) == trained
    for group in found:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    staged = [key for names in stages(model) for key in names]
    order = [key for key, p in model.named_parameters() if p.requires_grad and not key.startswith("head.")]
    assert staged == order and (len(stages(model)) >= 2 or len(order) <= 4)
    alike = groups(model, _tuned())
    assert len(alike) == 2 and [group["scale"] for group in alike] == [1.0, 1.0]


def test_a_step_takes_each_group_at_its_rate() -> None:
    slow, plain = (
        _step("sgd-plain", layer_decay=decay, head_lr_factor=head) for decay, head in ((0.5, 2.0), (1.0, 1.0))
    )
    before = [parameter.detach().clone() for parameter in plain.model.parameters()]
    for step in (slow, plain):
        _run(step, 0)
    names = [name for name, _ in plain.model.named_parameters()]
    moved = ([p - b for p, b in zip(step.model.parameters(), before, strict=True)] for step in (slow, plain))
    for name, by_layer, whole in zip(names, *moved, strict=True):
        torch.testing.assert_close(by_layer, whole * (2.0 if name.startswith("head") else 0.5), rtol=1e-9, atol=1e-15)


def test_a_frozen_body() -> None:
    """The head alone learns, on what the network gives in evaluation; then all learns."""
    step = _step("adamw", ema=0.9)
    _run(step, 0)  # statistics and moments that differ from a start's
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    average = [tensor.clone() for tensor in step.average.tensors] if step.average is not None else []
    batch = _batch(1, torch.float64)
    body = [p for name, p in step.model.named_parameters() if not name.startswith("head")]
    moments = [value.clone() for p in body for value in step.optimizer.state[p].values()]
    step.model.eval()
    step.model.zero_grad()
    (F.cross_entropy(step.model(batch.feat_BTF), batch.label_B, reduction="sum") / 5).backward()
    expected = torch.stack([p.grad.norm() for p in step.model.head.parameters()]).norm()
    _run(step, 1, frozen=True)
    assert float(step.sums[5]) == pytest.approx(float(expected), rel=1e-12)
    for name, tensor in step.model.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("head"), name
    assert all(map(torch.equal, moments, [value for p in body for value in step.optimizer.state[p].values()]))
    assert step.average is not None and len(average) == 8
    held = [torch.equal(one, other) for one, other in zip(average, step.average.tensors, strict=True)]
    assert held.count(False) == 8  # it follows what the first step moved; the head, the body, the statistics
    _run(step, 1)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in step.model.state_dict().items())


@pytest.mark.parametrize("case", ["adamw", "sgd", "nadam", "adafactor"])
def test_a_body_that_thaws_goes_through_a_checkpoint(case: str) -> None:
    first, second = _step(case), _step(case)
    for seed in range(2):
        _run(first, seed, frozen=True)
    second.load(copy.deepcopy(first.state()))
    for step in (first, second):
        _run(step, 2, frozen=True)
        _run(step, 3)
        _run(step, 4)
    _assert_same(first, second)


def test_one_cycle_is_that_of_torch() -> None:
    total, share, high = 40, 0.25, 0.3
    settings = _tuned(
        schedule="onecycle", lr=high, start_lr=high / 25, min_lr=high / 25e4, warmup_epochs=share * total - 1
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, high, total_steps=total, pct_start=share)
    for step in range(total):
        ours = optim.learning_rate(step, total - 1, 1, settings)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < total - 1:
            cycle.step()


def test_exponential_and_start() -> None:
    settings = _tuned(schedule="exponential", lr=0.1, min_lr=0.001, start_lr=0.02, warmup_epochs=1.0)
    rates = [optim.learning_rate(consumed, 300, 100, settings) for consumed in (0, 50, 100, 200, 300)]
    assert rates == pytest.approx([0.02, 0.06, 0.1, 0.01, 0.001])


def _plateau(**values: Any) -> optim.Optim:
    values = {"schedule": "plateau", "lr": 1.0, "min_lr": 1e-3, "step_factor": 0.5, **values}
    return config.check({"optim": values, "data": {"valid_folds": [1]}}, "test").optim


@given(st.integers(1, 4), st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=30))
def test_plateaus_are_those_of_torch(patience: int, scores: list[float]) -> None:
    settings, progress = _plateau(patience=patience), Progress(0, "view", 10, 1, 10, 1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.5, patience=patience - 1, threshold=0.0, threshold_mode="abs", min_lr=1e-3
    )
    for number, score in enumerate(scores):
        progress.judged(score > max(scores[:number], default=-1.0), settings)
        plateau.step(score)
        rate = optim.learning_rate(500, 1000, 10, settings, progress.reductions)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
    again = Progress(0, "view", 10, 1, 10, 1)
    again.resume(progress.state())
    assert again == progress


def test_without_a_plateau_nothing_is_reduced() -> None:
    progress = Progress(0, "view", 10, 1, 10, 1)
    for _ in range(9):
        progress.judged(False, _tuned(schedule="step"))
    assert progress.reductions == 0


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"arguments": {"eps": 1e-5}}, {}, "optim.arguments.eps: 1e-05 -> None"),
        ({}, {"arguments": {"eps": 1e-5}}, "optim.arguments.eps: None -> 1e-05"),
        ({"name": "adam"}, {"name": "nadam"}, "optim.name: adam -> nadam"),
    ],
)
def test_a_resume_sees_what_changed(before: dict[str, Any], now: dict[str, Any], told: str) -> None:
    old, new = (config.check({"optim": values}, "test") for values in (before, now))
    assert changes(config.plain(old), new) == [told]
