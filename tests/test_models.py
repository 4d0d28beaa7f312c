"""Models against the reference (outputs, gradients, buffers), their sizes, and clips padded in a batch."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from dist_train import models

PARITY = Path(os.environ.get("DIST_TRAIN_PARITY") or Path(__file__).parents[1].parent / "shared/reference/parity")
ECAPA = {"channels": 32, "embedding": 24, "attention": 16, "squeeze": 16}
CAMPPLUS = {"channels": 16, "embedding": 24, "growth": 4, "bottleneck": 2}
ERES2NET = {"channels": 4, "embedding": 24}
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
}


class Case(NamedTuple):
    """A reference model of narrow width: ours with its weights in float64, its numbers, its description."""

    model: models.Model
    values: dict[str, Tensor]
    facts: dict[str, Any]
    name: str

    def reference(self, prefix: str) -> dict[str, Tensor]:
        """Values under a prefix, by our names."""
        found = {key.removeprefix(prefix): value for key, value in self.values.items() if key.startswith(prefix)}
        return models.from_reference(self.name, found)

    @property
    def tolerance(self) -> float:
        """The reference keeps the weights of the context statistics in float32."""
        return 1e-6 if self.facts["name"] in ("ecapa_tdnn_asp", "ecapa_official") else 1e-9


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    if not (path := PARITY / f"{request.param}.safetensors").exists():
        pytest.skip(f"no reference values at {path}")
    name, sizes = FIXTURES[request.param]
    values = pytest.importorskip("safetensors.torch").load_file(path)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    model = models.ARCHITECTURES[name](80, 7, **sizes)
    case = Case(model, values, facts, name)
    absent, unknown = model.load_state_dict(case.reference("state."), strict=False)
    assert unknown == []
    assert absent == ([] if facts["classifier_module"] else ["head.weight", "head.bias"])
    model.double()
    return case


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.square().mean().sqrt()))


def test_outputs_equal_the_reference(case: Case) -> None:
    case.model.eval()
    tags = [key.removeprefix("input.") for key in case.values if key.startswith("input.") and "lengths" not in key]
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
    for key, value in after.items():
        torch.testing.assert_close(buffers[key].to(value.dtype), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "sizes", "count"),
    [
        ("ecapa", {}, 6_195_978),
        ("ecapa", {"pooling": "sap"}, 5_504_522),
        ("ecapa", {"pooling": "tsp"}, 5_407_626),
        ("ecapa", {"pooling": "tap"}, 5_109_642),
        ("ecapa", {"channels": 1024}, 20_769_482),
        ("campplus", {}, 7_181_354),
        ("campplus", {"embedding": 192}, 6_850_474),
        ("eres2net", {}, 6_612_618),
        ("eres2net", {"embedding": 512}, 9_887_808 + 5130),
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
    ],
)
def test_official_checkpoints_fit(checkpoint: str, name: str, sizes: dict[str, Any]) -> None:
    if not (path := PARITY / "checkpoint_keys.json").exists():
        pytest.skip(f"no reference values at {path}")
    shapes = dict(json.loads(path.read_text(encoding="utf-8"))[checkpoint]["keys"])
    theirs = models.from_reference(name, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    with torch.device("meta"):
        ours = models.build(name, 80, 10, **sizes).state_dict()
    encoder = {key: value.shape for key, value in ours.items() if not key.startswith("head.")}
    assert {key: value.shape for key, value in theirs.items() if not key.startswith("head.")} == encoder
    assert all(value.shape == ours[key].shape for key, value in theirs.items())


NARROW: dict[str, tuple[str, int, dict[str, Any]]] = {
    "ecapa-asp": ("ecapa", 5, {"channels": 16, "embedding": 8}),
    "ecapa-sap": ("ecapa", 5, {"channels": 16, "embedding": 8, "pooling": "sap"}),
    "ecapa-tsp": ("ecapa", 5, {"channels": 16, "embedding": 8, "pooling": "tsp"}),
    "ecapa-tap": ("ecapa", 5, {"channels": 16, "embedding": 8, "pooling": "tap"}),
    "campplus": ("campplus", 3, {"channels": 16, "embedding": 8, "growth": 4, "bottleneck": 2}),
    "eres2net": ("eres2net", 9, {"channels": 4, "embedding": 8}),
    "eres2net-tap": ("eres2net", 9, {"channels": 4, "embedding": 8, "pooling": "tap"}),
}


def _narrow(key: str, bins: int = 20) -> models.Model:
    """A small model whose BatchNorms have lived: statistics and offsets away from 0 and 1."""
    name, _, sizes = NARROW[key]
    torch.manual_seed(0)
    model = models.ARCHITECTURES[name](bins, 5, **sizes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                torch.nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    model, least = _narrow(key).double(), NARROW[key][1]
    width = data.draw(st.sampled_from([least + 1, 31, 64, 230]), "frames of the batch")
    frames = data.draw(st.lists(st.integers(least, width), min_size=1, max_size=3), "valid frames")
    feat_BTF = torch.randn(len(frames), width, 20, dtype=torch.float64)  # what lies in the padding must not matter
    together = model(feat_BTF, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone = model(feat_BTF[row : row + 1, :count])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model = _narrow(key).train()
    feat_BTF = torch.randn(3, 40, 20)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), 40)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["ecapa", "campplus", "eres2net"])
@torch.no_grad()
def test_full_size_padded_clip_in_float32(name: str) -> None:
    torch.manual_seed(1)
    model = models.build(name, 80, 10).eval()
    feat_BTF = torch.randn(2, 60, 80)
    together = model(feat_BTF, torch.tensor([60, 37]))[1:]
    alone = model(feat_BTF[1:, :37])
    assert (together - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()


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
        ("eres2net", {"pooling": "asp"}, "take tap"),
        ("eres2net", {"channels": 33}, "even number"),
    ],
)
def test_wrong_settings_are_refused(name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.build(name, 80, 10, **sizes)


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("tdnn_asp", "tdnn"),
        ("resnet_se_sap", "resnet_se"),
        ("res2net_asp", "res2net"),
        ("eres2netv2", "eres2netv2"),
        ("panns_cnn10", "cnn10"),
        ("panns_cnn14", "cnn14"),
        ("vggish", "vggish"),
        ("resnetish_basic", "resnetish18"),
        ("crnn", "crnn"),
        ("cnn4", "cnn4"),
        ("m5", "m5"),
    ],
)
def test_reference_keys_become_ours(fixture: str, name: str) -> None:
    if not (path := PARITY / f"{fixture}.safetensors").exists():
        pytest.skip(f"no reference values at {path}")
    values = pytest.importorskip("safetensors.torch").load_file(path)
    state = {key.removeprefix("state."): value for key, value in values.items() if key.startswith("state.")}
    with torch.device("meta"):
        sizes = {"pooling": fixture.rsplit("_", maxsplit=1)[-1]} if fixture.endswith("sap") else {}
        model = models.build(name, {"m5": 1, "crnn": 128}.get(name, 80), 7, **sizes)
    missing = set(models.from_reference(name, state)) - set(model.state_dict())
    assert {key for key in missing if "blocks" not in key} == set()


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_architecture_is_built_by_name(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name, {"m5": 1, "crnn": 128}.get(name, 80), 7)
    assert model.head.out_features == 7
    with pytest.raises(ValueError, match=f"model.nonsense is set, but {name} has no such setting"):
        models.build(name, 80, 7, nonsense=1)
