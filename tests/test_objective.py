"""Losses beside their formulas written out in float64, under mixup too; margins, weights and what is refused."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from dist_train import config, objective, parts
from dist_train.frontend import FrontBatch
from dist_train.models.cosine import Cosine
from dist_train.settings import Augment, Objective
from dist_train.step import Step
from dist_train.window import PLAIN, PLAN
from dist_train.world import Place, World

WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
CLASSES = ("dog", "no", "siren", "007")


def _objective(**given: Any) -> Objective:
    return config.check({"objective": given}, "test").objective


def _draw(rows: int, seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, labels, partners, weights of a mixup."""
    generator = torch.Generator().manual_seed(seed)
    logits_BC = scale * torch.randn(rows, len(CLASSES), generator=generator, dtype=torch.float64)
    label_B = torch.randint(len(CLASSES), (rows,), generator=generator)
    partner_B = torch.randperm(rows, generator=generator)
    return logits_BC, label_B, partner_B, torch.rand(rows, generator=generator, dtype=torch.float64)


def _plain(name: str, logits: list[float], label: int, given: dict[str, Any], weight: list[float]) -> float:
    """One row's loss for one label, by the formula and nothing else."""
    if name in ("am", "aam"):
        scale, margin = given["scale"], given["margin"]
        cosine = logits[label] / scale
        if name == "am":
            moved = cosine - margin
        elif given.get("easy_margin"):
            moved = math.cos(math.acos(cosine) + margin) if cosine > 0 else cosine
        else:
            angle = math.acos(cosine)
            moved = math.cos(angle + margin) if angle < math.pi - margin else cosine - margin * math.sin(margin)
        logits = [scale * moved if number == label else value for number, value in enumerate(logits)]
    total = math.log(sum(math.exp(value) for value in logits))
    minus = [total - value for value in logits]
    if name == "focal":
        return weight[label] * (1 - math.exp(-minus[label])) ** given["gamma"] * minus[label]
    smoothing = given.get("label_smoothing", 0.0)
    spread = sum(one * loss for one, loss in zip(weight, minus, strict=True)) / len(minus)
    return (1 - smoothing) * weight[label] * minus[label] + smoothing * spread


CASES: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("softmax", {"label_smoothing": 0.2}),
    ("focal", {"gamma": 2.0}),
    ("focal", {"gamma": 0.5}),
    ("focal", {"gamma": 0.0}),
    ("am", {"margin": 0.35, "scale": 30.0}),
    ("aam", {"margin": 0.2, "scale": 32.0}),
    ("aam", {"margin": 0.9, "scale": 8.0, "label_smoothing": 0.1}),
    ("aam", {"margin": 0.5, "scale": 16.0, "easy_margin": True}),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "given"), CASES)
def test_losses_of_one_label(name: str, given: dict[str, Any], weighted: bool) -> None:
    logits_BC, label_B, partner_B, mix_B = _draw(60)
    if name in ("am", "aam"):
        logits_BC = given["scale"] * (logits_BC / 3.5).tanh()
    weight = [0.5, 2.0, 1.0, 3.0] if weighted else [1.0] * 4
    found = objective.sample_losses(
        logits_BC,
        label_B,
        partner_B,
        mix_B,
        _objective(name=name, **given),
        weight_C=torch.tensor(weight, dtype=torch.float64) if weighted else None,
    )
    expected = []
    for row, logits in enumerate(logits_BC.tolist()):
        one, other = (
            _plain(name, logits, int(label), given, weight) for label in (label_B[row], label_B[partner_B[row]])
        )
        expected.append(float(mix_B[row]) * one + (1 - float(mix_B[row])) * other)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(smoothing: float, weighted: bool) -> None:
    logits_BC, label_B, partner_B, mix_B = _draw(40, 1)
    target_BC = (torch.rand(40, 4, generator=torch.Generator().manual_seed(2)) < 0.4).to(torch.uint8)
    weight_C = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    found = objective.sample_losses(
        logits_BC,
        label_B,
        partner_B,
        mix_B,
        _objective(name="bce", label_smoothing=smoothing),
        target_BC=target_BC,
        weight_C=weight_C if weighted else None,
    )
    wanted_BC = mix_B[:, None] * target_BC + (1 - mix_B[:, None]) * target_BC[partner_B]
    wanted_BC = wanted_BC * (1 - smoothing) + smoothing / 2
    p_BC = 1 / (1 + (-logits_BC).exp())
    positive_BC = wanted_BC * p_BC.log() * (weight_C if weighted else 1.0)
    torch.testing.assert_close(found, -(positive_BC + (1 - wanted_BC) * (1 - p_BC).log()).mean(1), rtol=1e-10, atol=0)
    assert objective.right(logits_BC, label_B, target_BC).tolist() == [
        bool(target_BC[row, guess]) for row, guess in enumerate(logits_BC.argmax(1).tolist())
    ]


@pytest.mark.parametrize(("name", "given"), [*CASES, ("bce", {})])
def test_gradients_by_differences(name: str, given: dict[str, Any]) -> None:
    logits_BC, label_B, partner_B, mix_B = _draw(6, 3)
    if name in ("am", "aam"):
        logits_BC = given["scale"] * (logits_BC / 5).tanh()
    target_BC = functional.one_hot(label_B, 4) if name == "bce" else None
    chosen = _objective(name=name, **given)

    def loss(logits_BC: Tensor) -> Tensor:
        return objective.sample_losses(logits_BC, label_B, partner_B, mix_B, chosen, target_BC=target_BC)

    assert torch.autograd.gradcheck(loss, logits_BC.requires_grad_())


@pytest.mark.parametrize(("name", "given"), CASES)
def test_gradients_are_finite_where_a_guess_is_certain(name: str, given: dict[str, Any]) -> None:
    top = given.get("scale", 200.0)
    logits_BC = torch.tensor([[top, -top, 0, 0], [-top, top, 0, 0]], requires_grad=True)
    objective.sample_losses(
        logits_BC, torch.tensor([0, 0]), None, None, _objective(name=name, **given)
    ).sum().backward()
    assert logits_BC.grad is not None and torch.isfinite(logits_BC.grad).all()


def test_half_precision_is_left_before_the_loss() -> None:
    logits_BC, label_B, *_ = _draw(5)
    for name in ("softmax", "focal", "am", "aam", "bce"):
        target_BC = functional.one_hot(label_B, 4)
        found = objective.sample_losses(
            logits_BC.bfloat16(), label_B, None, None, _objective(name=name), target_BC=target_BC
        )
        assert found.dtype == torch.float32


@limits(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([torch.float32, torch.float64]))
def test_cosine_head(seed: int, centres: int, kind: torch.dtype) -> None:
    torch.manual_seed(seed)
    head = Cosine(5, 3, centres=centres, scale=7.0).to(kind)
    vector_BE = torch.randn(4, 5, dtype=kind)
    weight = head.weight.detach().double().view(3, centres, 5)
    expected = torch.empty(4, 3, dtype=torch.float64)
    for row, vector_E in enumerate(vector_BE.double()):
        for number in range(3):
            cosines = [float(vector_E @ centre / vector_E.norm() / centre.norm()) for centre in weight[number]]
            expected[row, number] = 7 * max(cosines)
    torch.testing.assert_close(head(vector_BE).double(), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(vector_BE)
    assert found.dtype == kind and torch.equal(found, head(vector_BE))


def test_the_margin_rises_with_what_is_consumed() -> None:
    linear = _objective(name="aam", margin=0.4, margin_epochs=[2, 4], margin_rise="linear")
    found = [objective.margin(consumed, 100, linear) for consumed in (0, 200, 250, 300, 399, 400, 900)]
    assert found == pytest.approx([0, 0, 0.1, 0.2, 0.398, 0.4, 0.4])
    steep = _objective(name="am", margin=0.4, margin_epochs=[2, 4])
    found = [objective.margin(consumed, 100, steep) for consumed in (100, 200, 300, 400)]
    assert found == pytest.approx([0, 0, 0.4 * (1 - 1e-3**0.5), 0.4])
    assert objective.margin(0, 100, _objective(name="am", margin=0.3)) == 0.3
    assert objective.margin(199, 100, _objective(name="am", margin=0.3, margin_epochs=[2, 2])) == 0
    logits_BC, label_B, *_ = _draw(9)
    logits_BC = 32 * logits_BC.tanh()
    plain = functional.cross_entropy(logits_BC, label_B, reduction="none")
    torch.testing.assert_close(objective.sample_losses(logits_BC, label_B, None, None, steep, margin=0.0), plain)


def test_class_weights() -> None:
    counts = np.array([6, 3, 0, 1])
    weigh = objective.class_weights
    assert weigh(counts, 10, CLASSES, _objective()) is None
    found = weigh(counts, 10, CLASSES, _objective(class_weights="balanced"))
    assert found is not None and found.tolist() == pytest.approx([10 / 24, 10 / 12, 1, 10 / 4])
    found = weigh(counts, 10, CLASSES, _objective(name="bce", class_weights="balanced"))
    assert found is not None and found.tolist() == pytest.approx([4 / 6, 7 / 3, 1, 9])
    found = weigh(counts, 10, CLASSES, _objective(class_weights={"siren": 2.5, "007": 4}))
    assert found is not None and found.tolist() == [1, 1, 2.5, 4]
    with pytest.raises(ValueError, match="names `cat`, which is no class: dog, no, siren, 007"):
        weigh(counts, 10, CLASSES, _objective(class_weights={"cat": 1.0}))


def test_balanced_weights_are_scikit_learns() -> None:
    weights = pytest.importorskip("sklearn.utils.class_weight")
    label = np.random.default_rng(0).integers(0, 10, 50) // 3
    expected = weights.compute_class_weight("balanced", classes=np.arange(4), y=label)
    found = objective.class_weights(np.bincount(label), 50, CLASSES, _objective(class_weights="balanced"))
    np.testing.assert_allclose(found, expected)


def test_speed_factors_make_classes() -> None:
    chosen = _objective(speed_classes=True)
    augment = Augment(speed=[Fraction(9, 10), Fraction(1), Fraction(11, 10)])  # type: ignore[call-arg]
    assert objective.variants(augment, chosen) == [1, Fraction(9, 10), Fraction(11, 10)]
    assert objective.variants(augment, _objective()) == [1]
    plan = np.zeros(4, PLAN)
    plan["label"], plan["factor"] = [0, 1, 2, 3], [1, 0, 2, PLAIN]
    objective.speed_labels(plan, 4, augment, chosen)
    assert plan["label"].tolist() == [0, 1 + 4, 2 + 8, 3]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"objective": {"gamma": 1.0}}, "gamma has no effect with name=softmax"),
        ({"objective": {"name": "bce", "speed_classes": True}}, "speed_classes has no effect with name=bce"),
        ({"objective": {"name": "am", "easy_margin": True}}, "easy_margin has no effect with name=am"),
        ({"objective": {"name": "focal", "label_smoothing": 0.1}}, "label_smoothing has no effect with name=focal"),
        ({"objective": {"subcenters": 2}}, "subcenters has no effect with name=softmax"),
        ({"objective": {"name": "aam", "margin_rise": "linear"}}, "margin_rise has no effect without margin_epochs"),
        ({"objective": {"name": "aam", "margin_epochs": [5, 3]}}, r"margin_epochs is where the rise.*\[5.0, 3.0\]"),
        ({"objective": {"class_weights": {"dog": 0}}}, "class_weights"),
        ({"objective": {"speed_classes": True}, "augment": {"speed": [1]}}, "speed_classes wants 1 and another"),
        ({"objective": {"speed_classes": True}, "augment": {"speed": [0.9, 1.1]}}, "speed_classes wants 1 and another"),
        ({"evaluation": {"metric": "map_at_5"}}, "metric=map_at_5 wants k=5, not k=3"),
    ],
)
def test_what_would_do_nothing_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as error:
        config.check(given, "test")
    assert "\n" not in str(error.value)


def test_heads_have_the_classes_of_the_objective() -> None:
    def head(**given: Any) -> Any:
        model = {"name": "ecapa", "channels": 8, "embedding": 6}
        chosen = config.check({"model": model, "objective": given}, "test")
        return parts.network(chosen, 8, 4, WORLD, torch.float32).head

    assert isinstance(head(name="softmax"), torch.nn.Linear) and head(name="bce").out_features == 4
    assert head(name="softmax", speed_classes=True).out_features == 12
    found = head(name="aam", speed_classes=True, subcenters=3, scale=20)
    assert isinstance(found, Cosine) and found.weight.shape == (4 * 3 * 3, 6) and found.scale == 20


def _batch(rows: int, seed: int, weight_B: list[float]) -> FrontBatch:
    generator = torch.Generator().manual_seed(seed)
    feat_BTF = torch.randn(rows, 20, 8, generator=generator, dtype=torch.float64)
    label_B = torch.randint(4, (rows,), generator=generator)
    target_BC = torch.maximum(functional.one_hot(label_B, 4), torch.randint(2, (rows, 4), generator=generator))
    ones_B = torch.ones(rows)
    return FrontBatch(
        feat_BTF, None, label_B, torch.tensor(weight_B), torch.arange(rows), ones_B, ones_B, None, target_BC.byte()
    )


def _step(name: str) -> Step:
    torch.manual_seed(1)
    model = {"name": "tdnn", "channels": 8, "embedding": 8}
    chosen = config.check({"model": model, "objective": {"name": name}, "optim": {"clip": None}}, "test")
    network = parts.network(chosen, 8, 4, WORLD, torch.float64)
    return Step(network, chosen, WORLD, None, (20, 8), torch.tensor([1.0, 2.0, 0.5, 3.0]))


@pytest.mark.parametrize("name", ["bce", "focal", "am", "aam"])
def test_a_bad_sample_teaches_nothing(name: str) -> None:
    """The gradient is the sum over the good rows; the bad one only shares their BatchNorm."""
    batch, step = _batch(5, 0, [1.0, 1.0, 0.0, 1.0, 1.0]), _step(name)
    step.run([batch], [0], 5, 1, 0.0, margin=0.1)
    found = [p.grad.clone() for p in step.model.parameters() if p.grad is not None]
    step.model.zero_grad()
    torch.manual_seed(0)
    loss_B = objective.sample_losses(
        step.model.train()(batch.feat_BTF),
        batch.label_B,
        None,
        None,
        step.config.objective,
        target_BC=batch.target_BC,
        weight_C=step.weight_C,
        margin=0.1,
    )
    (loss_B[[0, 1, 3, 4]].sum() / 5).backward()
    expected = [p.grad for p in step.model.parameters() if p.grad is not None]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert float(step.sums[2]) == 4 and float(step.sums[0]) == pytest.approx(float(loss_B.detach()[[0, 1, 3, 4]].sum()))


class Asks(TorchDispatchMode):
    """Notes the operations that make the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if any(part in str(function) for part in ("_local_scalar_dense", "nonzero", "masked_select", "unique")):
            self.found.append(str(function))
        return function(*given, **(named or {}))


@pytest.mark.parametrize("name", ["bce", "focal", "aam"])
def test_no_value_is_asked_of_the_device(name: str) -> None:
    step = _step(name)
    batch = _batch(4, 0, [1.0] * 4)
    step.run([batch], [0], 4, 1, 0.1, margin=0.1)
    with Asks() as asked:
        step.run([batch], [0], 4, 1, 0.1, margin=0.15)
    assert asked.found == []
    with asked:
        float(step.sums[0])
    assert asked.found
