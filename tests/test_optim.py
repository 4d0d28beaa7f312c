"""Learning rate, parameter groups and the moving average, against plain formulas."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dist_train import optim
from dist_train.settings import Optim

SCHEDULES = st.sampled_from(["cosine", "onecycle", "step", "constant"])


def _settings(**given: object) -> Optim:
    return Optim.model_validate({"lr": 0.5, "min_lr": 0.01, "warmup_epochs": 2.0, **given})


def test_cosine() -> None:
    settings = _settings()
    rates = [optim.learning_rate(consumed, 1000, 100, settings) for consumed in (0, 100, 200, 600, 1000)]
    assert rates == pytest.approx([0.01, (0.01 + 0.5) / 2, 0.5, (0.01 + 0.5) / 2, 0.01])


def test_onecycle_rises_and_falls_by_cosines() -> None:
    settings = _settings(schedule="onecycle", warmup_epochs=0.0)  # 30 % up
    rates = [optim.learning_rate(consumed, 1000, 100, settings) for consumed in (0, 150, 300, 650, 1000)]
    assert rates == pytest.approx([0.01, 0.255, 0.5, 0.255, 0.01])
    assert optim.learning_rate(100, 1000, 100, settings) == pytest.approx(0.5 - 0.49 * (1 + math.cos(math.pi / 3)) / 2)


def test_steps_and_constant() -> None:
    step = _settings(schedule="step", step_epochs=3.0, step_factor=0.2)
    rates = [optim.learning_rate(consumed, 2000, 100, step) for consumed in (200, 499, 500, 799, 800, 1100, 1400)]
    assert rates == pytest.approx([0.5, 0.5, 0.1, 0.1, 0.02, 0.01, 0.01])  # never under min_lr
    assert optim.learning_rate(1999, 2000, 100, _settings(schedule="constant")) == 0.5


@given(SCHEDULES, st.integers(2, 10**6), st.integers(1, 10**4), st.floats(0, 50), st.data())
def test_every_rate_lies_between_the_two(name: str, total: int, epoch: int, warmup: float, data: st.DataObject) -> None:
    settings = _settings(schedule=name, warmup_epochs=warmup)
    consumed = sorted(data.draw(st.lists(st.integers(0, total), min_size=2, max_size=20)))
    rates = [optim.learning_rate(at, total, epoch, settings) for at in consumed]
    assert all(0.01 - 1e-12 <= rate <= 0.5 + 1e-12 for rate in rates)
    # a run of any size has the same curve over its share that is done
    scaled = [optim.learning_rate(8 * at, 8 * total, 8 * epoch, settings) for at in consumed]
    assert scaled == pytest.approx(rates, rel=1e-9)
    warm = max(min(warmup * epoch, total / 2), 0.3 * total if name == "onecycle" and not warmup else 0)
    after = [rate for at, rate in zip(consumed, rates, strict=True) if at >= warm]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(after))


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Linear(5, 2))


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_decay_spares_norms_and_biases(name: str, kind: str) -> None:
    model = _model()
    model[2].weight.requires_grad_(False)
    optimizer = optim.build(model, _settings(name=name, weight_decay=0.1))
    decayed, spared = optimizer.param_groups
    assert type(optimizer).__name__ == kind
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3)] and decayed["weight_decay"] == 0.1
    assert len(spared["params"]) == 4 and spared["weight_decay"] == 0


def test_average_follows_the_formula() -> None:
    model, decay = _model().double(), 0.5
    average = optim.Average(model, decay)
    expected = [tensor.clone() for tensor in optim.floating(model)]
    assert len(expected) == 8  # six parameters, a running mean and a running variance
    for step in range(1, 8):
        for tensor in optim.floating(model):
            tensor.add_(torch.randn_like(tensor))
        now = min(decay, (1 + step) / (10 + step))
        skipped = step == 3
        average.update(torch.tensor(float(skipped)), step)
        if not skipped:
            expected = [now * old + (1 - now) * new for old, new in zip(expected, optim.floating(model), strict=True)]
        torch.testing.assert_close(average.tensors, expected)


def test_swap_there_and_back() -> None:
    model = _model()
    average = optim.Average(model, 0.9)
    model[1].running_mean += 3
    live, averaged = [t.clone() for t in optim.floating(model)], [t.clone() for t in average.tensors]
    average.swap()
    torch.testing.assert_close(list(optim.floating(model)), averaged, rtol=0, atol=0)
    assert float(model[1].running_mean.sum()) == 0  # it has statistics of its own
    average.swap()
    torch.testing.assert_close(list(optim.floating(model)), live, rtol=0, atol=0)
    torch.testing.assert_close(average.tensors, averaged, rtol=0, atol=0)
