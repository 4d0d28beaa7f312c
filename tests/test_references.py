"""Networks against numbers of the systems they are from, which the repository carries: outputs, gradients, buffers."""

from functools import cache

import numpy as np
import pytest
import torch
from networks import assert_close, silence_dropout
from references import FILE, TWINS, Twin, features, loss, wave, weight
from torch import Tensor

from dist_train import models


@cache
def _stored() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


class Case:
    """Our network with the weights of its twin, and the twin's numbers."""

    def __init__(self, name: str) -> None:
        self.twin: Twin = TWINS[name]
        self.values = {key.partition("/")[2]: v for key, v in _stored().items() if key.startswith(f"{name}/")}
        self.keys = bytes(self.values["keys"]).decode().split("\n")
        network = models.ARCHITECTURES[self.twin.name]
        self.model = network(self.twin.bins, 5, **self.twin.sizes).double()
        silence_dropout(self.model)
        shapes = {key: tuple(value.shape) for key, value in self.model.state_dict().items()}
        self.ours = models.from_reference(self.twin.name, {key: key for key in self.keys})
        self.headless = "head.weight" not in self.ours
        assert shapes.keys() - self.ours.keys() == ({"head.weight", "head.bias"} if self.headless else set())
        state = {ours: weight(theirs, shapes[ours]) for ours, theirs in self.ours.items()}
        self.model.load_state_dict(state, strict=False)

    def output(self, frames: int) -> Tensor:
        """Logits; the embedding where the twin has no classifier."""
        feat_BTF = features(frames, self.twin.bins)
        return self.model.embed(feat_BTF) if self.headless else self.model(feat_BTF)

    def stored(self, key: str) -> Tensor:
        return torch.from_numpy(self.values[key])


@pytest.fixture(params=TWINS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_network_equals_its_twin(case: Case) -> None:
    tolerance = case.twin.tolerance
    case.model.eval()
    with torch.no_grad():
        for frames in case.twin.frames:
            assert_close(case.output(frames), case.stored(f"eval.{frames}"), tolerance)
    case.model.train()
    output = case.output(case.twin.frames[0])
    assert_close(output, case.stored("train"), 10 * tolerance)
    total = loss(output)
    assert total.item() == pytest.approx(case.stored("loss").item(), rel=10 * tolerance)
    total.backward()
    _assert_gradients(case, max(1e-6, 10 * tolerance))


def _assert_gradients(case: Case, relative: float) -> None:
    """Norm and pattern of each gradient, and pattern of each buffer after the step."""
    norms, waves, after = (dict(zip(case.keys, row.tolist(), strict=True)) for row in case.stored("steps"))
    largest = max(norm for norm in norms.values() if norm == norm)
    parameters, buffers = dict(case.model.named_parameters()), dict(case.model.named_buffers())
    for ours, theirs in case.ours.items():
        if ours in buffers:
            value = buffers[ours]
            assert wave(value).item() == pytest.approx(after[theirs], rel=relative, abs=relative * float(value.double().norm()))
            continue
        gradient = parameters[ours].grad
        if gradient is None:
            assert norms[theirs] != norms[theirs], ours  # not a number: it has none there either
        elif norms[theirs] < 1e-9 * largest:  # zero but for rounding
            assert gradient.norm() < 1e-6 * largest, ours
        else:
            norm = norms[theirs]
            assert gradient.norm().item() == pytest.approx(norm, rel=relative), ours
            assert wave(gradient).item() == pytest.approx(waves[theirs], rel=0, abs=relative * norm), ours
