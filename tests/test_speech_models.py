"""TDNN, ResNetSE, Res2Net, ERes2NetV2 against the reference, their sizes, and clips padded in a batch."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from dist_train import models
from dist_train.models.compiled import blocks
from dist_train.models.eres2netv2 import ERes2NetV2
from dist_train.models.res2net import Res2Net
from dist_train.models.resnet_se import ResNetSE
from dist_train.models.tdnn import Tdnn

PARITY = Path(os.environ.get("DIST_TRAIN_PARITY") or Path(__file__).parents[1].parent / "shared/reference/parity")
Model = Tdnn | ResNetSE | Res2Net | ERes2NetV2
ARCHITECTURES = {name: models.ARCHITECTURES[name] for name in ("tdnn", "resnet_se", "res2net", "eres2netv2")}
TDNN = {"channels": 32, "embedding": 24}
RESNET_SE = {"channels": 8, "embedding": 24, "widths": (1, 1, 2, 2)}
RES2NET = {"channels": 4, "embedding": 24}
ERES2NETV2 = {"channels": 6, "embedding": 24}
W24S4EP4 = {"channels": 4, "embedding": 24, "base_width": 24, "scale": 4, "expansion": 4, "blocks": (1, 2, 2, 1)}
TWOS = {"blocks": (2, 2, 2, 2)}
FIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "tdnn_asp": ("tdnn", TDNN),
    "tdnn_sap": ("tdnn", TDNN | {"pooling": "sap"}),
    "tdnn_tap": ("tdnn", TDNN | {"pooling": "tap"}),
    "resnet_se_asp": ("resnet_se", RESNET_SE),
    "resnet_se_sap": ("resnet_se", RESNET_SE | TWOS | {"pooling": "sap"}),
    "resnet_se_tap": ("resnet_se", RESNET_SE | TWOS | {"pooling": "tap"}),
    "res2net_asp": ("res2net", RES2NET),
    "res2net_tap": ("res2net", RES2NET | TWOS | {"pooling": "tap"}),
    "res2net_tsp": ("res2net", RES2NET | TWOS | {"pooling": "tsp"}),
    "eres2netv2": ("eres2netv2", ERES2NETV2),
    "eres2netv2_official": ("eres2netv2", ERES2NETV2 | TWOS),
    "eres2netv2_official_w24s4ep4": ("eres2netv2", W24S4EP4),
}


class Case(NamedTuple):
    """A reference model of narrow width: ours with its weights in float64, its numbers, its description."""

    model: Model
    values: dict[str, Tensor]
    facts: dict[str, Any]
    name: str
    tolerance: float  # asp: the reference keeps the weights of its context statistics in float32

    def reference(self, prefix: str) -> dict[str, Tensor]:
        """Values under a prefix, by our names."""
        found = {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}
        return models.from_reference(self.name, found)


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    if not (path := PARITY / f"{request.param}.safetensors").exists():
        pytest.skip(f"no reference values at {path}")
    name, sizes = FIXTURES[request.param]
    values = pytest.importorskip("safetensors.torch").load_file(path)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    tolerance = 1e-6 if request.param.endswith("_asp") else 1e-9
    case = Case(ARCHITECTURES[name](80, 7, **sizes), values, facts, name, tolerance)
    absent, unknown = case.model.load_state_dict(case.reference("state."), strict=False)
    assert unknown == []
    assert absent == ([] if facts["classifier_module"] else ["head.weight", "head.bias"])
    case.model.double()
    return case


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.square().mean().sqrt()))


@torch.no_grad()
def test_outputs_equal_the_reference(case: Case) -> None:
    case.model.eval()
    tags = [key.removeprefix("input.") for key in case.values if key.startswith("input.")]
    assert tags
    for tag in tags:
        feat_BTF = case.values[f"input.{tag}"].double()
        _close(case.model.embed(feat_BTF), case.values[f"eval64.{tag}.embedding"], case.tolerance)
        if case.facts["classifier_module"]:
            _close(case.model(feat_BTF), case.values[f"eval64.{tag}.logits"], case.tolerance)


def _loss(case: Case) -> Tensor:
    feat_BTF = case.values["train.input"].double()
    if case.facts["classifier_module"]:
        logits_BC = case.model(feat_BTF)
        _close(logits_BC, case.values["train64.logits"], 10 * case.tolerance)
        return functional.cross_entropy(logits_BC, case.values["train.labels"])
    embedding_BE = case.model.embed(feat_BTF)
    _close(embedding_BE, case.values["train64.embedding"], 10 * case.tolerance)
    row_B, column_E = (torch.arange(size, dtype=torch.float64) for size in embedding_BE.shape)
    return (embedding_BE * (0.7 * row_B[:, None] + 1.3 * column_E).cos()).sum() / len(row_B)


def test_training_step_equals_the_reference(case: Case) -> None:
    """Loss, every gradient (its norm, and a sum that sees order and sign), and the buffers after the step."""
    case.model.train()
    loss = _loss(case)
    loss.backward()
    train = case.facts["train"]
    assert loss.item() == pytest.approx(train["loss_f64"], rel=10 * case.tolerance)
    ours = {key: value.grad.flatten() for key, value in case.model.named_parameters() if value.grad is not None}
    zero = set(models.from_reference(case.name, dict.fromkeys(train["mathematically_zero_grad"])))
    expected = models.from_reference(case.name, train["grad_norms"])
    assert ours.keys() == expected.keys()
    relative = max(1e-6, 10 * case.tolerance)
    for key, gradient in ours.items():
        if key in zero:
            assert gradient.norm() < 1e-6 * train["grad_norm_max"], key
            continue
        norm = expected[key]["norm_f64"]
        assert gradient.norm().item() == pytest.approx(norm, rel=relative), key
        wave = torch.arange(len(gradient), dtype=torch.float64).cos()
        assert (gradient @ wave).item() == pytest.approx(expected[key]["dot_cos_f64"], rel=0, abs=relative * norm), key
    buffers = dict(case.model.named_buffers())
    after = case.reference("train.buffer_after.")
    assert buffers.keys() == after.keys()
    for key, value in after.items():  # those of a step in float32: a variance of variances (tsp) is good to 2e-5
        torch.testing.assert_close(buffers[key].to(value.dtype), value, rtol=5e-5, atol=1e-6)


POOLINGS = ("asp", "sap", "tsp", "tap")
PUBLISHED: dict[str, tuple[int, int, int, int]] = {
    "tdnn": (2_772_810, 2_542_154, 2_509_770, 2_410_442),
    "resnet_se": (9_125_826, 6_821_570, 6_498_882, 5_505_602),
    "res2net": (5_613_770, 4_691_914, 4_562_762, 4_165_450),
}
SIZES: list[tuple[str, dict[str, Any], int]] = [
    *((name, {"pooling": p}, n) for name, counts in PUBLISHED.items() for p, n in zip(POOLINGS, counts, strict=True)),
    ("eres2netv2", {}, 17_861_562),
    ("eres2netv2", {"channels": 32}, 5_460_132),
    ("eres2netv2", {"base_width": 24, "scale": 4, "expansion": 4}, 53_515_562),
]


@pytest.mark.parametrize(("name", "sizes", "count"), SIZES)
def test_sizes_of_the_published_models(name: str, sizes: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = ARCHITECTURES[name](80, 10, **sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


CHECKPOINTS = {"tdnn": "macls/TDNN", "resnet_se": "macls/ResNetSE", "res2net": "macls/Res2Net"}
CHECKPOINTS["eres2netv2"] = "3dspeaker/pretrained_eres2netv2.ckpt"


@pytest.mark.parametrize(("name", "checkpoint"), CHECKPOINTS.items())
def test_official_checkpoints_fit(name: str, checkpoint: str) -> None:
    if not (path := PARITY / "checkpoint_keys.json").exists():
        pytest.skip(f"no reference values at {path}")
    theirs = models.from_reference(name, dict(json.loads(path.read_text(encoding="utf-8"))[checkpoint]["keys"]))
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in ARCHITECTURES[name](80, 10).state_dict().items()}
    if "head.weight" not in theirs:
        del ours["head.weight"], ours["head.bias"]
    assert theirs == ours


TINY = {"channels": 4, "embedding": 8, "blocks": (1, 2, 1, 1)}
NARROW: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"tdnn-{p}": ("tdnn", 15 + (p == "tsp"), {"channels": 16, "embedding": 8, "pooling": p}) for p in POOLINGS},
    **{f"resnet_se-{p}": ("resnet_se", 9 if p == "tsp" else 1, TINY | {"pooling": p}) for p in POOLINGS},
    **{f"res2net-{p}": ("res2net", 53 if p == "tsp" else 5, TINY | {"pooling": p}) for p in POOLINGS},
    "res2net-scale1": ("res2net", 5, TINY | {"pooling": "tap", "scale": 1}),
    "res2net-scale4": ("res2net", 5, TINY | {"pooling": "tap", "scale": 4}),
    "eres2netv2": ("eres2netv2", 9, TINY),
    "eres2netv2-tap": ("eres2netv2", 9, TINY | {"pooling": "tap"}),
    "eres2netv2-w24s4ep4": ("eres2netv2", 9, W24S4EP4),
}


def _narrow(key: str, bins: int = 20) -> Model:
    """A small model whose BatchNorms have lived: statistics and offsets away from 0 and 1."""
    name, _, sizes = NARROW[key]
    torch.manual_seed(0)
    model = ARCHITECTURES[name](bins, 5, **sizes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
@torch.no_grad()
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    model, least = _narrow(key).double(), NARROW[key][1]
    width = data.draw(st.sampled_from([least + 1, least + 30, 110]), "frames of the batch")
    frames = data.draw(st.lists(st.integers(least, width), min_size=1, max_size=3), "valid frames")
    feat_BTF = torch.randn(len(frames), width, 20, dtype=torch.float64)  # what lies in the padding must not matter
    together = model(feat_BTF, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone = model(feat_BTF[row : row + 1, :count])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model = _narrow(key).train().double()
    feat_BTF = torch.randn(3, 60, 20, dtype=torch.float64)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), 60)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_full_size_padded_clip_in_float32(name: str) -> None:
    torch.manual_seed(1)
    model = ARCHITECTURES[name](80, 10).eval()
    feat_BTF = torch.randn(2, 60, 80)
    together = model(feat_BTF, torch.tensor([60, 37]))[1:]
    alone = model(feat_BTF[1:, :37])
    assert (together - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()


@pytest.mark.parametrize("key", NARROW)
def test_gradients_of_padded_clips_are_finite_and_complete(key: str) -> None:
    model, least = _narrow(key).train(), NARROW[key][1]
    model(torch.randn(4, 60, 20), torch.tensor([60, least, 1, 11])).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("key", NARROW)
@pytest.mark.parametrize("bins", [13, 23, 61])
@torch.no_grad()
def test_shortest_clip_of_any_number_of_bins_and_wrong_input(key: str, bins: int) -> None:
    model, (name, least, _) = _narrow(key, bins), NARROW[key]
    feat_BTF = torch.randn(2, least, bins)
    logits_BC = model(feat_BTF)
    assert logits_BC.shape == (2, 5)
    assert logits_BC.isfinite().all()
    torch.testing.assert_close(logits_BC, model.head(model.embed(feat_BTF)))
    with pytest.raises(ValueError, match=f"{name} needs at least {least} frames a clip and got {least - 1}"):
        model(feat_BTF[:, 1:])
    with pytest.raises(ValueError, match="built for features"):
        model(torch.randn(1, 60, bins + 1))


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_no_step_depends_on_data(key: str) -> None:
    """Without data (`meta` tensors) a read of a tensor's value raises: no such read stops a GPU or breaks a graph."""
    model, feat_BTF = _narrow(key).to("meta"), torch.empty(2, 230, 20, device="meta")
    for frames_B in (None, torch.empty(2, dtype=torch.int64, device="meta")):
        assert model(feat_BTF, frames_B).shape == (2, 5)


@pytest.mark.full
@pytest.mark.parametrize("key", NARROW)
def test_traces_into_one_graph(key: str) -> None:
    """Dynamo captures a forward whole, with padded rows and without."""
    torch.compiler.reset()  # what other sizes of the class left counts against its limit
    model, feat_BTF = _narrow(key), torch.randn(2, 60, 20)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for frames_B in (None, torch.tensor([60, 57])):
        torch.testing.assert_close(compiled(feat_BTF, frames_B), model(feat_BTF, frames_B))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_blocks_hold_most_of_the_model(name: str) -> None:
    with torch.device("meta"):
        model = ARCHITECTURES[name](80, 10)
    found = blocks(model)
    assert {type(block) for block in found} == set(model.BLOCKS)
    held = sum(parameter.numel() for block in found for parameter in block.parameters())
    assert held > 0.5 * sum(parameter.numel() for parameter in model.parameters())


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("tdnn", {"channels": 0}, "model.channels of tdnn is 0: take 1 or more"),
    ("tdnn", {"pooling": "max"}, "model.pooling of tdnn is 'max': take one of asp, sap, tsp, tap"),
    ("resnet_se", {"channels": 3}, "model.channels of resnet_se is 3: take 4 or more"),
    ("res2net", {"channels": 1}, "model.channels of res2net is 1: take 2 or more"),
    ("res2net", {"bins": 4}, "at least 5 bins and got 4"),
    ("eres2netv2", {"channels": 2}, "model.channels of eres2netv2 is 2: take 3 or more"),
    ("eres2netv2", {"pooling": "asp"}, "take tap"),
]


@pytest.mark.parametrize(("name", "sizes", "message"), WRONG)
def test_wrong_settings_are_refused(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ARCHITECTURES[name](**{"bins": 80, "classes": 10} | sizes)
