"""TDNN, ResNetSE, Res2Net, ERes2NetV2 against the reference, their sizes, and clips padded in a batch."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    Case,
    assert_close,
    assert_padding_is_not_heard,
    assert_padding_is_not_heard_in_float32,
    assert_step,
    keys,
    lived,
    load,
    loss,
)

from dist_train import models
from dist_train.models.compiled import blocks
from dist_train.models.pooling import ASTP

ARCHITECTURES = {name: models.ARCHITECTURES[name] for name in ("tdnn", "xvector", "resnet_se", "res2net", "eres2netv2")}
TDNN = {"channels": 32, "embedding": 24}
RESNET_SE = {"channels": (8, 8, 16, 16), "embedding": 24}
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


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    name, sizes = FIXTURES[request.param]
    tolerance = 1e-6 if request.param.endswith("_asp") else 1e-9  # its reference keeps some weights in float32
    return load(request.param, name, lambda: ARCHITECTURES[name](80, 7, **sizes), tolerance)


@torch.no_grad()
def test_outputs_equal_the_reference(case: Case) -> None:
    case.model.eval()
    for tag in case.tags:
        feat_BTF = case.values[f"input.{tag}"].double()
        assert_close(case.model.embed(feat_BTF), case.values[f"eval64.{tag}.embedding"], case.tolerance)
        if case.facts["classifier_module"]:
            assert_close(case.model(feat_BTF), case.values[f"eval64.{tag}.logits"], case.tolerance)


def test_training_step_equals_the_reference(case: Case) -> None:
    case.model.train()
    # A variance of variances: float32, in which the stored ones are, is good to 2e-5.
    assert_step(case, loss(case), 5e-5 if case.facts["name"] == "res2net_tsp" else 1e-5)


POOLINGS = ("asp", "sap", "tsp", "tap")
PUBLISHED: dict[str, tuple[int, int, int, int]] = {
    "tdnn": (2_772_810, 2_542_154, 2_509_770, 2_410_442),
    "resnet_se": (9_125_826, 6_821_570, 6_498_882, 5_505_602),
    "res2net": (5_613_770, 4_691_914, 4_562_762, 4_165_450),
}
SIZES: list[tuple[str, dict[str, Any], int]] = [
    ("xvector", {}, 4_352_998),
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
    theirs = models.from_reference(name, keys(checkpoint))
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in ARCHITECTURES[name](80, 10).state_dict().items()}
    if "head.weight" not in theirs:
        del ours["head.weight"], ours["head.bias"]
    assert theirs == ours


TINY = {"channels": 4, "embedding": 8, "blocks": (1, 2, 1, 1)}
NARROW: dict[str, tuple[str, int, dict[str, Any]]] = {
    **{f"tdnn-{p}": ("tdnn", 15 + (p == "tsp"), {"channels": 16, "embedding": 8, "pooling": p}) for p in POOLINGS},
    "xvector": ("xvector", 16, {"channels": 16, "wide": 12, "embedding": 8}),
    "xvector-astp": ("xvector", 15, {"channels": 16, "wide": 12, "embedding": 8, "pooling": "astp"}),
    "eres2netv2-two": ("eres2netv2", 9, TINY | {"embedding_layers": 2}),
    **{f"resnet_se-{p}": ("resnet_se", 9 if p == "tsp" else 1, TINY | {"pooling": p}) for p in POOLINGS},
    **{f"res2net-{p}": ("res2net", 53 if p == "tsp" else 5, TINY | {"pooling": p}) for p in POOLINGS},
    "res2net-scale1": ("res2net", 5, TINY | {"pooling": "tap", "scale": 1}),
    "res2net-scale4": ("res2net", 5, TINY | {"pooling": "tap", "scale": 4}),
    "eres2netv2": ("eres2netv2", 9, TINY),
    "eres2netv2-tap": ("eres2netv2", 1, TINY | {"pooling": "tap"}),
    "eres2netv2-w24s4ep4": ("eres2netv2", 9, W24S4EP4),
}


def _narrow(key: str, bins: int = 20) -> models.Model:
    name, _, sizes = NARROW[key]
    torch.manual_seed(0)
    return lived(ARCHITECTURES[name](bins, 5, **sizes))


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    least = NARROW[key][1]
    assert_padding_is_not_heard(_narrow(key), least, [least + 1, least + 30, 110], data)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model = _narrow(key).train().double()
    feat_BTF = torch.randn(3, 60, 20, dtype=torch.float64)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), 60)), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_full_size_padded_clip_in_float32(name: str) -> None:
    torch.manual_seed(1)
    assert_padding_is_not_heard_in_float32(ARCHITECTURES[name](80, 10))


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
    assert {type(block) for block in found} == set(model.BLOCKS) - {ASTP}  # which the defaults do not have
    held = sum(parameter.numel() for block in found for parameter in block.parameters())
    assert held > 0.5 * sum(parameter.numel() for parameter in model.parameters())


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("tdnn", {"channels": 0}, "model.channels of tdnn is 0: take 1 or more"),
    ("tdnn", {"pooling": "max"}, "model.pooling of tdnn is 'max': take one of asp, sap, tsp, tap"),
    ("resnet_se", {"channels": 3}, "model.channels of resnet_se is 3: take 4 or more"),
    ("res2net", {"channels": 1}, "model.channels of res2net is 1: take 2 or more"),
    ("res2net", {"bins": 4}, "at least 5 bins and got 4"),
    ("eres2netv2", {"channels": 2}, "model.channels of eres2netv2 is 2: take 3 or more"),
    ("eres2netv2", {"pooling": "asp"}, "take one of tstp, tap, tsdp, astp"),
    ("resnet_se", {"channels": [8, 8]}, "take 4 positive numbers"),
    ("res2net", {"blocks": [1, 1, 1]}, "take 4 positive numbers"),
    ("xvector", {"wide": 0}, "model.wide of xvector is"),
]


@pytest.mark.parametrize(("name", "sizes", "message"), WRONG)
def test_wrong_settings_are_refused(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ARCHITECTURES[name](**{"bins": 80, "classes": 10} | sizes)
