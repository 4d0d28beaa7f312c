"""Models against the reference (outputs, gradients, buffers), their sizes, and clips padded in a batch."""

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

ECAPA = {"channels": 32, "embedding": 24, "attention": 16, "squeeze": 16}
CAMPPLUS = {"channels": 16, "embedding": 24, "growth": 4, "bottleneck": 2}
ERES2NET = {"channels": 4, "embedding": 24}
WESPEAKER = {"channels": 32, "embedding": 24, "attention": 16, "wide": 64}
HUGE = {"blocks": (1, 2, 2, 1), "expansion": 4, "base_width": 24, "scale": 3}
FIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "ecapa_tdnn_asp": ("ecapa", ECAPA),
    "ecapa_tdnn_tap": ("ecapa", ECAPA | {"pooling": "tap"}),
    "ecapa_tdnn_tsp": ("ecapa", ECAPA | {"pooling": "tsp"}),
    "ecapa_official": ("ecapa", ECAPA),
    "campplus": ("campplus", CAMPPLUS),
    "campplus_official": ("campplus", CAMPPLUS),
    "eres2net": ("eres2net", ERES2NET),
    "eres2net_official": ("eres2net", ERES2NET | {"blocks": (2, 2, 2, 2)}),
    "eres2net_official_tap": ("eres2net", ERES2NET | {"blocks": (1, 1, 1, 1), "pooling": "tap"}),
    "eres2net_official_huge": ("eres2net", ERES2NET | HUGE),
    "ws_ecapa": ("ecapa_wespeaker", WESPEAKER | {"context": False}),
    "ws_ecapa_glob": ("ecapa_wespeaker", WESPEAKER),
    "ws_eres2net": ("eres2net", ERES2NET | {"blocks": (1, 2, 2, 1), "epsilon": 1e-7}),
}


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    name, sizes = FIXTURES[request.param]
    # the reference keeps the weights of the context statistics in float32
    tolerance = 1e-6 if request.param in ("ecapa_tdnn_asp", "ecapa_official") else 1e-9
    return load(request.param, name, lambda: models.ARCHITECTURES[name](80, 7, **sizes), tolerance)


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
    assert_step(case, loss(case))


@pytest.mark.parametrize(
    ("name", "sizes", "count"),
    [
        ("ecapa", {}, 6_195_978),
        ("ecapa", {"pooling": "sap"}, 5_504_522),
        ("ecapa", {"pooling": "tsp"}, 5_407_626),
        ("ecapa", {"pooling": "tap"}, 5_109_642),
        ("ecapa", {"channels": 1024}, 20_769_482),
        ("ecapa_wespeaker", {}, 6_190_720 + 1930),
        ("ecapa_wespeaker", {"channels": 1024}, 14_657_088 + 1930),
        ("campplus", {}, 7_181_354),
        ("campplus", {"embedding": 192}, 6_850_474),
        ("eres2net", {}, 6_612_618),
        ("eres2net", {"embedding_layers": 2}, 6_649_674),
        ("eres2net", {"embedding": 512}, 9_887_808 + 5130),
        ("eres2net", {"channels": 64, **HUGE, "blocks": (3, 4, 6, 3)}, 55_165_024 + 1930),
        ("eres2net", {"channels": 64, "embedding": 512}, 29_016_704 + 5130),
    ],
)
def test_sizes_of_the_published_models(name: str, sizes: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = models.build(name, 80, 10, **sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize(
    ("checkpoint", "name", "sizes"),
    [
        ("3dspeaker/campplus_cn_common.bin", "campplus", {"embedding": 192}),
        ("3dspeaker/pretrained_eres2net.ckpt", "eres2net", {}),
        ("3dspeaker_or_speechbrain/ecapa_c1024", "ecapa", {"channels": 1024}),
        ("macls/EcapaTdnn", "ecapa", {}),
        ("wespeaker/ECAPA_TDNN_GLOB_c1024", "ecapa_wespeaker", {"channels": 1024}),
        ("wespeaker/ERes2Net34_Base", "eres2net", {}),
    ],
)
def test_official_checkpoints_fit(checkpoint: str, name: str, sizes: dict[str, Any]) -> None:
    shapes = keys(checkpoint)
    theirs = models.from_reference(name, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    with torch.device("meta"):
        ours = models.build(name, 80, 10, **sizes).state_dict()
    encoder = {key: value.shape for key, value in ours.items() if not key.startswith("head.")}
    assert {key: value.shape for key, value in theirs.items() if not key.startswith("head.")} == encoder
    assert all(value.shape == ours[key].shape for key, value in theirs.items())


DILATED = {"dilations": (1, 5, 2, 3, 1), "embedding": 8, "attention": 4, "squeeze": 4, "context": False}
NARROW: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ecapa-asp": ("ecapa", 5, {"channels": 16, "embedding": 8}),
    "ecapa-sap": ("ecapa", 5, {"channels": 16, "embedding": 8, "pooling": "sap"}),
    "ecapa-tsp": ("ecapa", 5, {"channels": 16, "embedding": 8, "pooling": "tsp"}),
    "ecapa-tap": ("ecapa", 5, {"channels": 16, "embedding": 8, "pooling": "tap"}),
    "ecapa-unequal": ("ecapa", 11, {"channels": (8, 12, 8, 4, 10), "scale": 4, "kernels": (5, 5, 3, 3, 1), **DILATED}),
    "ecapa_wespeaker": ("ecapa_wespeaker", 2, {"channels": 16, "embedding": 8, "wide": 12}),
    "ecapa_wespeaker-tap": ("ecapa_wespeaker", 1, {"channels": 16, "embedding": 8, "wide": 12, "pooling": "tap"}),
    "campplus": ("campplus", 3, {"channels": 16, "embedding": 8, "growth": 4, "bottleneck": 2}),
    "eres2net-two": ("eres2net", 9, {"channels": 4, "embedding": 8, "embedding_layers": 2}),
    "eres2net": ("eres2net", 9, {"channels": 4, "embedding": 8}),
    "eres2net-tap": ("eres2net", 1, {"channels": 4, "embedding": 8, "pooling": "tap"}),
}


def _narrow(key: str, bins: int = 20) -> models.Model:
    name, _, sizes = NARROW[key]
    torch.manual_seed(0)
    return lived(models.ARCHITECTURES[name](bins, 5, **sizes))


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    least = NARROW[key][1]
    assert_padding_is_not_heard(_narrow(key), least, [least + 1, 31, 64, 230], data)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model = _narrow(key).train()
    feat_BTF = torch.randn(3, 40, 20)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), 40)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ecapa", "campplus", "eres2net"])
def test_full_size_padded_clip_in_float32(name: str) -> None:
    torch.manual_seed(1)
    assert_padding_is_not_heard_in_float32(models.build(name, 80, 10))


@pytest.mark.parametrize("key", NARROW)
def test_gradients_of_padded_clips_are_finite_and_complete(key: str) -> None:
    model, least = _narrow(key).train(), NARROW[key][1]
    model(torch.randn(4, 30, 20), torch.tensor([30, least, 1, 11])).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("key", NARROW)
@pytest.mark.parametrize("bins", [13, 23, 61])
@torch.no_grad()
def test_any_number_of_bins(key: str, bins: int) -> None:
    model, feat_BTF = _narrow(key, bins), torch.randn(2, 40, bins)
    logits_BC = model(feat_BTF)
    assert logits_BC.shape == (2, 5)
    assert logits_BC.isfinite().all()
    torch.testing.assert_close(logits_BC, model.head(model.embed(feat_BTF)))


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_shortest_clip_and_wrong_input(key: str) -> None:
    model, (name, least, _) = _narrow(key), NARROW[key]
    assert model(torch.randn(1, least, 20)).isfinite().all()
    with pytest.raises(ValueError, match=f"{name} needs at least {least} frames a clip and got {least - 1}"):
        model(torch.randn(1, least - 1, 20))
    with pytest.raises(ValueError, match="built for features"):
        model(torch.randn(1, 40, 21))


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_channels_last_gives_the_same(key: str) -> None:
    model, feat_BTF = _narrow(key).double(), torch.randn(2, 40, 20, dtype=torch.float64)
    expected = model(feat_BTF)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(feat_BTF), expected)


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
    model, feat_BTF = _narrow(key), torch.randn(2, 40, 20)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for frames_B in (None, torch.tensor([40, 17])):
        torch.testing.assert_close(compiled(feat_BTF, frames_B), model(feat_BTF, frames_B))


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("resnet", {}, "model.name is 'resnet': take one of ecapa, campplus, eres2net"),
        ("ecapa", {"channels": 100}, "multiple of 8"),
        ("ecapa", {"pooling": "max"}, "take one of asp, sap, tsp, tap"),
        ("campplus", {"pooling": "asp"}, "model.pooling is set, but campplus has no such setting"),
        ("campplus", {"channels": 100}, "multiple of 8"),
        ("campplus", {"growth": 1, "bottleneck": 1}, "times model.growth of campplus is 1: take 2 or more"),
        ("ecapa", {"channels": [8, 8, 8]}, r"model.channels of ecapa is \[8, 8, 8\]: take 5 positive numbers"),
        ("ecapa", {"channels": [8, 8, 8, 9, 25]}, "multiple of 8, the model.scale"),
        ("ecapa", {"kernels": [5, 3, 4, 3, 1]}, "model.kernels of ecapa has 4: take odd numbers"),
        ("ecapa", {"pooling": "tap", "attention": 8}, "model.attention is of asp and astp, and ecapa pools by tap"),
        ("eres2net", {"context": True}, "model.context is of asp and astp, and eres2net pools by tstp: leave it out"),
        ("ecapa_wespeaker", {"channels": 100}, "multiple of 8"),
        ("ecapa_wespeaker", {"scale": 8}, "model.scale is set, but ecapa_wespeaker has no such setting"),
        ("eres2net", {"pooling": "asp"}, "take one of tstp, tap, tsdp, astp"),
        ("eres2net", {"channels": 1}, "model.channels of eres2net is 1: take 2 or more"),
        ("eres2net", {"channels": [4, 8]}, r"model.channels of eres2net is \[4, 8\]: take one number, not a list"),
        ("eres2net", {"blocks": [1, 2]}, r"model.blocks of eres2net is \[1, 2\]: take 4 positive numbers"),
        ("eres2net", {"embedding_layers": 3}, "model.embedding_layers of eres2net is 3: take 1 or 2"),
    ],
)
def test_wrong_settings_are_refused(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name, 80, 10, **sizes)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_architecture_is_built_by_name(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name, {"m5": 1, "crnn": 128}.get(name, 80), 7)
    assert model.head.out_features == 7
    with pytest.raises(ValueError, match=f"model.nonsense is set, but {name} has no such setting"):
        models.build(name, 80, 7, nonsense=1)
