"""PANNs, VGGish and ResNetish against the reference, their sizes, clips padded in a batch, and poolings of images."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dist_train.models import compiled, from_reference, image
from dist_train.models.panns import Panns, cnn6, cnn10, cnn14
from dist_train.models.resnetish import Resnetish, resnetish18, resnetish34, resnetish50
from dist_train.models.vggish import Vggish

Model = Panns | Resnetish | Vggish

PARITY = Path(os.environ.get("DIST_TRAIN_PARITY") or Path(__file__).parents[1].parent / "shared/reference/parity")
FIXTURES: dict[str, Callable[[], Model]] = {
    "panns_cnn10": lambda: cnn10(80, 7, channels=(8, 16, 24, 32), embedding=48, audioset=20),
    "panns_cnn14": lambda: cnn14(80, 7, channels=(8, 12, 16, 24, 32, 40), embedding=48, audioset=20),
    "vggish": lambda: Vggish(64, 10, channels=4, hidden=64, embedding=32),
    "resnetish_basic": lambda: resnetish18(64, 10, channels=(8, 8, 16, 16)),
}


def _ours(key: str) -> str:
    """Our name of a reference's parameter; the networks' rules do not touch each other's names."""
    for name in ("vggish", "cnn14"):
        (key,) = from_reference(name, {key: torch.empty(0)})
    return key


def _deaf(model: nn.Module) -> None:
    """No dropout, as in the reference's training step."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


class Case(NamedTuple):
    """A reference model of narrow width: ours with its weights in float64, its numbers, its description."""

    model: Model
    values: dict[str, Tensor]
    facts: dict[str, Any]

    def features(self, key: str) -> Tensor:
        """Features (B, T, bins); two of the references take images (B, 1, bins, T)."""
        value = self.values[key].double()
        return value if value.dim() == 3 else value[:, 0].mT


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    if not (path := PARITY / f"{request.param}.safetensors").exists():
        pytest.skip(f"no reference values at {path}")
    values = pytest.importorskip("safetensors.torch").load_file(path)
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    model = FIXTURES[request.param]()
    state = {_ours(key.removeprefix("state.")): value for key, value in values.items() if key.startswith("state.")}
    model.load_state_dict(state)
    _deaf(model.double())
    return Case(model, values, facts)


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.square().mean().sqrt()))


@torch.no_grad()
def test_outputs_equal_the_reference(case: Case) -> None:
    case.model.eval()
    tags = [key.removeprefix("input.") for key in case.values if key.startswith("input.")]
    assert tags
    for tag in tags:
        feat_BTF = case.features(f"input.{tag}")
        _close(case.model.embed(feat_BTF), case.values[f"eval64.{tag}.embedding"], 1e-9)
        _close(case.model(feat_BTF), case.values[f"eval64.{tag}.logits"], 1e-9)


def test_training_step_equals_the_reference(case: Case) -> None:
    """Loss, every gradient (its norm, and a sum that sees order and sign), and the buffers after the step."""
    case.model.train()
    logits_BC, train = case.model(case.features("train.input")), case.facts["train"]
    _close(logits_BC, case.values["train64.logits"], 1e-8)
    loss = functional.cross_entropy(logits_BC, case.values["train.labels"])
    loss.backward()
    assert loss.item() == pytest.approx(train["loss_f64"], rel=1e-8)
    ours = {key: value.grad.flatten() for key, value in case.model.named_parameters() if value.grad is not None}
    zero = set(map(_ours, train["mathematically_zero_grad"]))
    expected = {_ours(k): v for k, v in train["grad_norms"].items() if k not in train["params_without_grad"]}
    assert ours.keys() == expected.keys()
    for key, gradient in ours.items():
        if key in zero:
            assert gradient.norm() < 1e-6 * train["grad_norm_max"], key
            continue
        norm = expected[key]["norm_f64"]
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-6), key
        wave = torch.arange(len(gradient), dtype=torch.float64).cos()
        assert (gradient @ wave).item() == pytest.approx(expected[key]["dot_cos_f64"], rel=0, abs=1e-6 * norm), key
    prefix, buffers = "train.buffer_after.", dict(case.model.named_buffers())
    after = {_ours(k.removeprefix(prefix)): v for k, v in case.values.items() if k.startswith(prefix)}
    assert buffers.keys() == after.keys()
    for key, value in after.items():
        torch.testing.assert_close(buffers[key].to(value.dtype), value, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_cnn6_equals_macls() -> None:
    """The one without stored reference values."""
    theirs = pytest.importorskip("macls.models.panns").PANNS_CNN6(7, 40).double().eval()
    ours = cnn6(40, 7).double().eval()
    state = theirs.state_dict()
    state["bn0.running_mean"].normal_(0, 0.3)
    ours.load_state_dict({_ours(key): value for key, value in state.items()})
    feat_BTF = torch.randn(2, 37, 40, dtype=torch.float64)
    _close(ours(feat_BTF), theirs(feat_BTF), 1e-9)


@pytest.mark.parametrize(
    ("build", "count", "unused", "operations"),
    [
        (cnn6, 4_843_577, 270_351, 3.6839),
        (cnn10, 5_226_361, 270_351, 4.8299),
        (cnn14, 80_782_201, 1_079_823, 7.1271),
        (Vggish, 72_142_474, 0, 3.140),
        (resnetish18, 11_293_130, 0, 3.334),
        (resnetish34, 21_401_290, 0, 6.899),
        (resnetish50, 23_993_290, 0, 7.715),
    ],
)
@torch.no_grad()
def test_sizes_of_the_published_models(build: Callable[..., Model], count: int, unused: int, operations: float) -> None:
    """Parameters, those of them that are frozen, and 10^9 multiplications for 298 frames."""
    with torch.device("meta"):
        model, feat_BTF = build(80, 10).eval(), torch.empty(1, 298, 80)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == unused
    with FlopCounterMode(display=False) as counter:
        model(feat_BTF)
    assert counter.get_total_flops() / 2e9 == pytest.approx(operations, rel=2e-4)


@pytest.mark.parametrize(
    ("checkpoint", "build", "bins"),
    [
        ("macls/PANNS_CNN10", cnn10, 80),
        ("panns/Cnn6", cnn6, 64),
        ("panns/Cnn10", cnn10, 64),
        ("panns/Cnn14", cnn14, 64),
    ],
)
def test_official_checkpoints_fit(checkpoint: str, build: Callable[..., Model], bins: int) -> None:
    """All but our head is there, and, in the official ones, the biases that a BatchNorm follows."""
    if not (path := PARITY / "checkpoint_keys.json").exists():
        pytest.skip(f"no reference values at {path}")
    keys = json.loads(path.read_text(encoding="utf-8"))[checkpoint]["keys"]
    front = ("spectrogram_extractor.", "logmel_extractor.")
    theirs = {_ours(key): tuple(shape) for key, shape in keys if not key.startswith(front)}
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in build(bins, 10).state_dict().items()}
    absent = ours.keys() - theirs.keys()
    assert all(re.fullmatch(r"head\.\w+|conv_block\d\.conv\d\.bias", key) for key in absent)
    assert not absent or checkpoint.startswith("panns/")
    assert theirs == {key: shape for key, shape in ours.items() if key not in absent}


NARROW: dict[str, tuple[str, int, Callable[[int], Model]]] = {
    "cnn6": ("cnn6", 16, lambda bins: cnn6(bins, 5, channels=4, embedding=8)),
    "cnn10": ("cnn10", 16, lambda bins: cnn10(bins, 5, channels=4, embedding=8, audioset=0)),
    "cnn14": ("cnn14", 32, lambda bins: cnn14(bins, 5, channels=2, embedding=8)),
    "vggish": ("vggish", 8, lambda bins: Vggish(bins, 5, channels=4, embedding=8, hidden=8)),
    "resnetish18": ("resnetish", 1, lambda bins: resnetish18(bins, 5, channels=4)),
    "resnetish50": ("resnetish", 1, lambda bins: resnetish50(bins, 5, channels=2)),
}


def _narrow(key: str, bins: int = 40) -> Model:
    """A small model whose BatchNorms have lived: statistics and offsets away from 0 and 1."""
    torch.manual_seed(0)
    model = NARROW[key][2](bins)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    model, least = _narrow(key).double(), NARROW[key][1]
    width = data.draw(st.sampled_from([least + 1, 47, 64, 131]), "frames of the batch")
    frames = data.draw(st.lists(st.integers(least, width), min_size=1, max_size=3), "valid frames")
    feat_BTF = torch.randn(len(frames), width, 40, dtype=torch.float64)  # what lies in the padding must not matter
    together = model(feat_BTF, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone = model(feat_BTF[row : row + 1, :count])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model = _narrow(key).train()
    _deaf(model)
    feat_BTF = torch.randn(3, 40, 40)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), 40)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [cnn6, cnn10, resnetish18])
@torch.no_grad()
def test_full_size_padded_clip_in_float32(build: Callable[..., Model]) -> None:
    torch.manual_seed(1)
    model = build(80, 10).eval()
    feat_BTF = torch.randn(2, 60, 80)
    together = model(feat_BTF, torch.tensor([60, 37]))[1:]
    alone = model(feat_BTF[1:, :37])
    assert (together - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()


@pytest.mark.parametrize("key", NARROW)
def test_gradients_of_padded_clips_are_finite_and_complete(key: str) -> None:
    """All but the frozen AudioSet head of PANNs has a gradient."""
    model, least = _narrow(key).train(), NARROW[key][1]
    model(torch.randn(4, 40, 40), torch.tensor([40, least, 1, 11])).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith("fc_audioset."))
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("key", NARROW)
@pytest.mark.parametrize("bins", [33, 61])
@torch.no_grad()
def test_any_number_of_bins_above_the_least(key: str, bins: int) -> None:
    model, feat_BTF = _narrow(key, bins), torch.randn(2, 40, bins)
    logits_BC = model(feat_BTF)
    assert logits_BC.shape == (2, 5)
    assert logits_BC.isfinite().all()
    torch.testing.assert_close(logits_BC, model.head(model.embed(feat_BTF)))


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_shortest_clip_and_wrong_input(key: str) -> None:
    model, (name, least, _) = _narrow(key), NARROW[key]
    assert model(torch.randn(1, least, 40)).isfinite().all()
    with pytest.raises(ValueError, match=f"{name} needs at least {least} frames a clip and got {least - 1}"):
        model(torch.randn(1, least - 1, 40))
    with pytest.raises(ValueError, match="built for features"):
        model(torch.randn(1, 40, 21))


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_no_step_depends_on_data(key: str) -> None:
    """Without data (`meta` tensors) a read of a tensor's value raises: no such read stops a GPU or breaks a graph."""
    model, feat_BTF = _narrow(key).to("meta"), torch.empty(2, 131, 40, device="meta")
    for frames_B in (None, torch.empty(2, dtype=torch.int64, device="meta")):
        assert model(feat_BTF, frames_B).shape == (2, 5)


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_channels_last_gives_the_same(key: str) -> None:
    model, feat_BTF = _narrow(key).double(), torch.randn(2, 40, 40, dtype=torch.float64)
    expected = model(feat_BTF)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(feat_BTF), expected)


@pytest.mark.parametrize(("key", "count"), [("cnn6", 4), ("cnn14", 6), ("vggish", 6), ("resnetish50", 16)])
def test_blocks_to_compile_are_found(key: str, count: int) -> None:
    assert len(compiled.blocks(_narrow(key))) == count


@pytest.mark.full
@pytest.mark.parametrize("key", NARROW)
def test_traces_into_one_graph(key: str) -> None:
    """Dynamo captures a forward whole, with padded rows and without."""
    model, feat_BTF = _narrow(key), torch.randn(2, 40, 40)
    traced = torch.compile(model, backend="eager", fullgraph=True)
    for frames_B in (None, torch.tensor([40, 17])):
        torch.testing.assert_close(traced(feat_BTF, frames_B), model(feat_BTF, frames_B))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: cnn10(15, 5), "features.bins is 15, and cnn10 needs at least 16"),
        (lambda: cnn14(31, 5), "features.bins is 31, and cnn14 needs at least 32"),
        (lambda: Panns(80, 5, shape="cnn9"), "take one of cnn6, cnn10, cnn14"),
        (lambda: Resnetish(80, 5, depth=19), "take one of 18, 34, 50"),
        (lambda: cnn6(80, 5, channels=0), "model.channels of cnn6"),
        (lambda: cnn6(80, 5, channels=(8, 8)), "or 4 of them"),
        (lambda: Vggish(7, 5), "features.bins is 7, and vggish needs at least 8"),
        (lambda: Vggish(64, 5, channels=0), "model.channels of vggish"),
        (lambda: resnetish18(64, 5, channels=(8, 8)), "four of them"),
    ],
)
def test_wrong_settings_are_refused(build: Callable[[], Model], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


POOLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "2x2": (image.max_2x2, lambda x: functional.max_pool2d(x, 2)),
    "3x3": (image.max_3x3, lambda x: functional.max_pool2d(x, 3, 2, 1)),
    "mean": (lambda x: image.adaptive_mean(x, 4, 6), lambda x: functional.adaptive_avg_pool2d(x, (4, 6))),
    "max": (lambda x: image.adaptive_max(x, 4, 6), lambda x: functional.adaptive_max_pool2d(x, (4, 6))),
}


@pytest.mark.parametrize("name", POOLINGS)
@given(high=st.integers(2, 17), wide=st.integers(2, 40))
@settings(max_examples=20, deadline=None)
def test_poolings_of_images_equal_those_of_torch(name: str, high: int, wide: int) -> None:
    ours, theirs = POOLINGS[name]
    x = torch.rand(2, 3, high, wide, dtype=torch.float64, requires_grad=True)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    gradients = [torch.autograd.grad((pooled * weight).sum(), x)[0] for pooled in (out, expected)]
    torch.testing.assert_close(*gradients)
