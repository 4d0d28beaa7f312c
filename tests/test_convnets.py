"""PANNs, VGGish and ResNetish against the reference, their sizes, clips padded in a batch, and poolings of images."""

import re
from collections.abc import Callable

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
    cross_entropy,
    keys,
    lived,
    load,
    silence_dropout,
)
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from dist_train import models
from dist_train.models import compiled, image
from dist_train.models.panns import Panns, cnn6, cnn10, cnn14
from dist_train.models.resnet_mini import ResNetMini
from dist_train.models.resnetish import Resnetish, resnetish18, resnetish34, resnetish50
from dist_train.models.vggish import Vggish

Model = Panns | ResNetMini | Resnetish | Vggish

FIXTURES: dict[str, tuple[str, Callable[[], Model]]] = {
    "panns_cnn10": ("cnn10", lambda: cnn10(80, 7, channels=(8, 16, 24, 32), embedding=48, audioset=20)),
    "panns_cnn14": ("cnn14", lambda: cnn14(80, 7, channels=(8, 12, 16, 24, 32, 40), embedding=48, audioset=20)),
    "vggish": ("vggish", lambda: Vggish(64, 10, channels=4, hidden=64, embedding=32)),
    "resnetish_basic": ("resnetish18", lambda: resnetish18(64, 10, channels=(8, 8, 16, 16))),
}


def _features(case: Case, key: str) -> Tensor:
    """Features (B, T, bins); two of the references take images (B, 1, bins, T)."""
    value = case.values[key].double()
    return value if value.dim() == 3 else value[:, 0].mT


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param, *FIXTURES[request.param])


@torch.no_grad()
def test_outputs_equal_the_reference(case: Case) -> None:
    case.model.eval()
    for tag in case.tags:
        feat_BTF = _features(case, f"input.{tag}")
        assert_close(case.model.embed(feat_BTF), case.values[f"eval64.{tag}.embedding"], 1e-9)
        assert_close(case.model(feat_BTF), case.values[f"eval64.{tag}.logits"], 1e-9)


def test_training_step_equals_the_reference(case: Case) -> None:
    case.model.train()
    assert_step(case, cross_entropy(case, case.model(_features(case, "train.input"))))


@torch.no_grad()
def test_cnn6_equals_its_operations() -> None:
    """The one without stored reference values, written out (Kong 2020, arXiv 1912.10211, table 1, and its code)."""
    torch.manual_seed(2)
    model = lived(cnn6(40, 7, channels=4, embedding=8).double())
    feat_BTF, state = torch.randn(2, 37, 40, dtype=torch.float64), model.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{part}"] for part in names))

    x = norm(feat_BTF.transpose(1, 2), "bn0").transpose(1, 2)[:, None]
    for block in range(1, 5):
        kernel, bias = (state[f"conv_block{block}.conv1.{part}"] for part in ("weight", "bias"))
        x = norm(functional.conv2d(x, kernel, bias, padding=2), f"conv_block{block}.bn1").relu()
        x = functional.avg_pool2d(x, 2)
    x = x.mean(3)
    x = functional.linear(x.amax(2) + x.mean(2), state["fc1.weight"], state["fc1.bias"]).relu()
    expected = functional.linear(x, state["head.weight"], state["head.bias"])
    assert_close(model(feat_BTF), expected, 1e-9)


@pytest.mark.parametrize(
    ("build", "count", "unused", "operations"),
    [
        (cnn6, 4_843_577, 270_351, 3.6839),
        (cnn10, 5_226_361, 270_351, 4.8299),
        (cnn14, 80_782_201, 1_079_823, 7.1271),
        (Vggish, 72_142_474, 0, 3.140),
        (ResNetMini, 692_050, 0, 0.2095),
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
    ("checkpoint", "name", "bins"),
    [
        ("macls/PANNS_CNN10", "cnn10", 80),
        ("panns/Cnn6", "cnn6", 64),
        ("panns/Cnn10", "cnn10", 64),
        ("panns/Cnn14", "cnn14", 64),
    ],
)
def test_official_checkpoints_fit(checkpoint: str, name: str, bins: int) -> None:
    """All but our head is there, and, in the official ones, the biases that a BatchNorm follows."""
    front = ("spectrogram_extractor.", "logmel_extractor.")
    shapes = {key: tuple(shape) for key, shape in keys(checkpoint).items() if not key.startswith(front)}
    theirs = models.from_reference(name, shapes)
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in models.build(name, bins, 10).state_dict().items()}
    absent = ours.keys() - theirs.keys()
    assert all(re.fullmatch(r"head\.\w+|conv_block\d\.conv\d\.bias", key) for key in absent)
    assert not absent or checkpoint.startswith("panns/")
    assert theirs == {key: shape for key, shape in ours.items() if key not in absent}


NARROW: dict[str, tuple[str, int, Callable[[int], Model]]] = {
    "cnn6": ("cnn6", 16, lambda bins: cnn6(bins, 5, channels=4, embedding=8)),
    "cnn10": ("cnn10", 16, lambda bins: cnn10(bins, 5, channels=4, embedding=8, audioset=0)),
    "cnn14": ("cnn14", 32, lambda bins: cnn14(bins, 5, channels=2, embedding=8)),
    "vggish": ("vggish", 8, lambda bins: Vggish(bins, 5, channels=4, embedding=8, hidden=8)),
    "resnet_mini": ("resnet_mini", 1, lambda bins: ResNetMini(bins, 5, channels=4, blocks=(1, 2, 1, 1))),
    "resnetish18": ("resnetish", 1, lambda bins: resnetish18(bins, 5, channels=4)),
    "resnetish50": ("resnetish", 1, lambda bins: resnetish50(bins, 5, channels=2)),
}


def _narrow(key: str, bins: int = 40) -> models.Model:
    torch.manual_seed(0)
    return lived(NARROW[key][2](bins))


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    least = NARROW[key][1]
    assert_padding_is_not_heard(_narrow(key), least, [least + 1, 47, 64, 131], data)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model = _narrow(key).train()
    silence_dropout(model)
    feat_BTF = torch.randn(3, 40, 40)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), 40)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("build", [cnn6, cnn10, resnetish18])
def test_full_size_padded_clip_in_float32(build: Callable[..., Model]) -> None:
    torch.manual_seed(1)
    assert_padding_is_not_heard_in_float32(build(80, 10))


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


@pytest.mark.parametrize(
    ("key", "count"), [("cnn6", 4), ("cnn14", 6), ("vggish", 6), ("resnet_mini", 5), ("resnetish50", 16)]
)
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
        (lambda: cnn10(15, 5), "cnn10 needs at least 16 bins and got 15"),
        (lambda: cnn14(31, 5), "cnn14 needs at least 32 bins and got 31"),
        (lambda: Panns(80, 5, shape="cnn9"), "take one of cnn6, cnn10, cnn14"),
        (lambda: Resnetish(80, 5, depth=19), "take one of 18, 34, 50"),
        (lambda: cnn6(80, 5, channels=0), "model.channels of cnn6"),
        (lambda: cnn6(80, 5, channels=(8, 8)), "or 4 of them"),
        (lambda: Vggish(7, 5), "vggish needs at least 8 bins and got 7"),
        (lambda: Vggish(64, 5, channels=0), "model.channels of vggish"),
        (lambda: resnetish18(64, 5, channels=(8, 8)), "four of them"),
        (lambda: ResNetMini(64, 5, channels=(8, 8)), r"channels of resnet_mini is \[8, 8\]: take 4 positive"),
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
