"""Networks against numbers of the systems they are from, which the repository carries: outputs, gradients, buffers."""

import importlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from networks import PARITY, assert_close, silence_dropout
from references import EXCERPTS, FILE, TWINS, Twin, features, loss, wave, weight
from torch import Tensor

from dist_train import models


@cache
def _stored(file: str, case: str) -> dict[str, np.ndarray]:
    """Values of a case by what follows its name."""
    with np.load(FILE.with_name(file)) as values:
        return {key.removeprefix(f"{case}/"): values[key] for key in values if key.startswith(f"{case}/")}


class Case:
    """Our network with the weights of its twin, and the twin's numbers."""

    def __init__(self, name: str) -> None:
        self.twin: Twin = TWINS[name]
        self.values = _stored("networks.npz", name)
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
    largest = np.nanmax(list(norms.values()))
    parameters, buffers = dict(case.model.named_parameters()), dict(case.model.named_buffers())
    for ours, theirs in case.ours.items():
        if ours in buffers:
            value = buffers[ours]
            assert wave(value).item() == pytest.approx(
                after[theirs], rel=relative, abs=relative * float(value.double().norm())
            )
            continue
        gradient = parameters[ours].grad
        if gradient is None:
            assert np.isnan(norms[theirs]), ours  # it has none there either
        elif norms[theirs] < 1e-9 * largest:  # zero but for rounding
            assert gradient.norm() < 1e-6 * largest, ours
        else:
            norm = norms[theirs]
            assert gradient.norm().item() == pytest.approx(norm, rel=relative), ours
            assert wave(gradient).item() == pytest.approx(waves[theirs], rel=0, abs=relative * norm), ours


OTHERS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "ws_ecapa_glob": ("ecapa_wespeaker", 80, 10, {"channels": 32, "embedding": 24, "attention": 16, "wide": 64}),
    "cnn4": ("cnn4", 128, 10, {"sources": 2}),
    "crnn": ("crnn", 128, 10, {}),
    "resnetish_basic": ("resnetish18", 64, 10, {"channels": (8, 8, 16, 16)}),
    "vggish": ("vggish", 64, 10, {"channels": 4, "hidden": 64, "embedding": 32}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", EXCERPTS)
def test_network_equals_what_is_stored_whole(name: str) -> None:
    values = {key: torch.from_numpy(value) for key, value in _stored("excerpts.npz", name).items()}
    ours, bins, classes, sizes = OTHERS[name]
    model = models.ARCHITECTURES[ours](bins, classes, **sizes).double().eval()
    state = {key.removeprefix("state."): value for key, value in values.items() if key.startswith("state.")}
    absent, unknown = model.load_state_dict(models.from_reference(ours, state), strict=False)
    assert not unknown and not {key for key in absent if not key.startswith("head.")}
    given = values[f"input.{EXCERPTS[name]}"].double()
    feat_BTF = given.flatten(1, -2).mT if given.dim() == 4 else given  # images: (B, C, bins, T)
    if absent:
        assert_close(model.embed(feat_BTF), values[f"eval64.{EXCERPTS[name]}.embedding"], 1e-9)
        return
    logits_BC = model(feat_BTF)
    score_BC = logits_BC.log_softmax(1) if name == "crnn" else logits_BC
    assert_close(score_BC, values[f"eval64.{EXCERPTS[name]}.logits"], 1e-9)


def test_every_stored_network_is_held_against_ours() -> None:
    """No fixture of the folder is left out by the tests of networks."""
    found = {path.stem for path in PARITY.glob("*.safetensors")} - {"poolings"}
    if not found:
        pytest.skip(f"no reference values at {PARITY}")
    held = set[str]()
    for name in ("test_models", "test_speech_models", "test_convnets", "test_described_models"):
        held |= importlib.import_module(name).FIXTURES.keys()
    assert found <= held
