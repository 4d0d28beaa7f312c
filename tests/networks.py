"""Networks beside their reference values, and what every network must keep: shared by the tests of models."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dist_train import models

PARITY = Path(os.environ.get("DIST_TRAIN_PARITY") or Path(__file__).parents[1].parent / "shared/reference/parity")


class Case(NamedTuple):
    """A reference network: ours with its weights in float64, its numbers, its description."""

    model: models.Model
    values: dict[str, Tensor]
    facts: dict[str, Any]
    name: str
    tolerance: float = 1e-9  # of outputs, in their rms

    def ours(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by our names."""
        return models.from_reference(self.name, values)

    def reference(self, prefix: str) -> dict[str, Tensor]:
        """Values under a prefix, by our names."""
        return self.ours({k.removeprefix(prefix): value for k, value in self.values.items() if k.startswith(prefix)})

    @property
    def tags(self) -> list[str]:
        """Names of the inputs that outputs are known of."""
        found = [key.removeprefix("input.") for key in self.values if key.startswith("input.") and "lengths" not in key]
        assert found
        return found


def load(fixture: str, name: str, build: Callable[[], models.Model], tolerance: float = 1e-9) -> Case:
    """A case with all weights of the reference, without dropout; skips where the reference values are absent."""
    if not (path := PARITY / f"{fixture}.safetensors").exists():
        pytest.skip(f"no reference values at {path}")
    values = pytest.importorskip("safetensors.torch").load_file(path)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    case = Case(build(), values, facts, name, tolerance)
    absent, unknown = case.model.load_state_dict(case.reference("state."), strict=False)
    assert unknown == []
    assert not absent or (absent == ["head.weight", "head.bias"] and not facts["classifier_module"])
    silence_dropout(case.model.double())
    return case


def keys(checkpoint: str) -> dict[str, list[int]]:
    """Names and shapes in an official checkpoint."""
    if not (path := PARITY / "checkpoint_keys.json").exists():
        pytest.skip(f"no reference values at {path}")
    return dict(json.loads(path.read_text(encoding="utf-8"))[checkpoint]["keys"])


def silence_dropout(model: nn.Module) -> None:
    """As in the reference's training steps."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Within `tolerance` of the reference's rms."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.square().mean().sqrt()))


def assert_step(case: Case, loss: Tensor, buffers: float = 1e-5) -> None:
    """Loss, every gradient (its norm, and a sum that sees order and sign), and the buffers after the step.

    `buffers`: relative tolerance of the stored ones, which are of a step in float32.
    """
    loss.backward()
    train, relative = case.facts["train"], max(1e-6, 10 * case.tolerance)
    assert loss.item() == pytest.approx(train["loss_f64"], rel=10 * case.tolerance)
    ours = {key: value.grad.flatten() for key, value in case.model.named_parameters() if value.grad is not None}
    zero = set(case.ours(dict.fromkeys(train["mathematically_zero_grad"])))
    idle = set(case.ours(dict.fromkeys(train.get("params_without_grad", ()))))
    expected = case.ours(train["grad_norms"])
    assert ours.keys() == expected.keys() - idle
    for key, gradient in ours.items():
        if key in zero:
            assert gradient.norm() < 1e-6 * train["grad_norm_max"], key
            continue
        norm = expected[key]["norm_f64"]
        assert gradient.norm().item() == pytest.approx(norm, rel=relative), key
        wave = torch.arange(len(gradient), dtype=torch.float64).cos()
        assert (gradient @ wave).item() == pytest.approx(expected[key]["dot_cos_f64"], rel=0, abs=relative * norm), key
    found, after = dict(case.model.named_buffers()), case.reference("train.buffer_after.")
    assert found.keys() == after.keys()
    for key, value in after.items():
        torch.testing.assert_close(found[key].to(value.dtype), value, rtol=buffers, atol=1e-6)


def cross_entropy(case: Case, logits_BC: Tensor) -> Tensor:
    """The loss of the reference's training step, whose logits these must equal."""
    assert_close(logits_BC, case.values["train64.logits"].flatten(1), 10 * case.tolerance)
    return functional.cross_entropy(logits_BC, case.values["train.labels"])


def loss(case: Case) -> Tensor:
    """The same from features; of a reference without a classifier, of a fixed pattern over its embedding."""
    feat_BTF = case.values["train.input"].double()
    if case.facts["classifier_module"]:
        return cross_entropy(case, case.model(feat_BTF))
    embedding_BE = case.model.embed(feat_BTF)
    assert_close(embedding_BE, case.values["train64.embedding"], 10 * case.tolerance)
    row_B, column_E = (torch.arange(size, dtype=torch.float64) for size in embedding_BE.shape)
    return (embedding_BE * (0.7 * row_B[:, None] + 1.3 * column_E).cos()).sum() / len(row_B)


def lived(model: models.Model) -> models.Model:
    """The model in eval mode, its BatchNorms' statistics and offsets away from 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.normal_(module.bias, 0, 0.3)
                if not module.weight.any():  # of a block that begins as its shortcut
                    nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


@torch.no_grad()
def assert_padding_is_not_heard(model: models.Model, least: int, widths: list[int], data: st.DataObject) -> None:
    """A clip padded in a batch scores what it scores alone, whatever lies in the padding."""
    width = data.draw(st.sampled_from(widths), "frames of the batch")
    frames = data.draw(st.lists(st.integers(least, width), min_size=1, max_size=3), "valid frames")
    feat_BTF = torch.randn(len(frames), width, model.bins, dtype=torch.float64)
    together = model.double()(feat_BTF, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone = model(feat_BTF[row : row + 1, :count])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def assert_padding_is_not_heard_in_float32(model: models.Model) -> None:
    """At full size, within 1e-5 of the rms."""
    feat_BTF = torch.randn(2, 60, model.bins)
    together = model.eval()(feat_BTF, torch.tensor([60, 37]))[1:]
    alone = model(feat_BTF[1:, :37])
    assert (together - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()


_RES2 = {"channels": 4, "embedding": 8, "blocks": [1, 1, 1, 1]}
_IMAGE = {"channels": 4, "embedding": 32}
TINY: dict[str, tuple[int, dict[str, Any]]] = {
    "ecapa": (20, {"channels": 16, "embedding": 8}),
    "ecapa_wespeaker": (20, {"channels": 16, "embedding": 8, "wide": 24}),
    "campplus": (8, {"channels": 8, "embedding": 8, "growth": 4, "bottleneck": 2}),
    "eres2net": (20, _RES2),
    "eres2netv2": (20, _RES2),
    "resnet_se": (20, _RES2),
    "resnet_mini": (20, {"channels": 8}),
    "res2net": (20, _RES2),
    "tdnn": (20, {"channels": 16, "embedding": 8}),
    "xvector": (20, {"channels": 16, "embedding": 8, "wide": 24}),
    "cnn6": (20, _IMAGE),
    "cnn10": (20, _IMAGE),
    "cnn14": (32, {"channels": 2, "embedding": 32}),
    "vggish": (20, {"channels": 4, "embedding": 32, "hidden": 64}),
    **dict.fromkeys(("resnetish18", "resnetish34", "resnetish50"), (20, {"channels": 2, "blocks": [1, 1, 1, 1]})),
    "crnn": (20, {"layers": [{"conv": 8}, "norm", "elu", {"maxpool": 3}, {"lstm": 16}, "last", {"dropout": 0.1}]}),
    "cnn4": (20, {}),
    "m5": (1, {"channels": 8}),
    "linear": (20, {"embedding": 32}),
}
"""Bins and sizes of every architecture as small as it still learns."""


def tiny(name: str, classes: int = 5, **other: Any) -> models.Model:
    """A tiny network of that name, the same at every call."""
    bins, sizes = TINY[name]
    torch.manual_seed(0)
    return models.build(name, bins, classes, **sizes | other)
