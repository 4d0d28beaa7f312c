"""CRNN, CNN4 and M5 against the reference; the list of layers and its errors; clips padded in a batch."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Case, assert_close, assert_step, cross_entropy, lived, load
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models import compiled, from_reference
from dist_train.models.cnn4 import Cnn4
from dist_train.models.crnn import LAYERS, Crnn
from dist_train.models.m5 import M5

FIXTURES: dict[str, tuple[type[Crnn | Cnn4 | M5], int, dict[str, Any]]] = {
    "crnn": (Crnn, 128, {}),
    "cnn4": (Cnn4, 2 * 64, {"sources": 2}),
    "m5": (M5, 1, {}),
}


def _score(case: Case, image_BCFT: Tensor, frames_B: Tensor | None = None) -> Tensor:
    """What the reference calls logits of such an input: of CRNN and M5 their logarithm of probabilities."""
    logits_BC = case.model(_features(image_BCFT), frames_B)
    return logits_BC if case.name == "cnn4" else logits_BC.log_softmax(-1)


def _features(input_BCxT: Tensor) -> Tensor:
    """(B, channels, mel, T) or (B, 1, samples) in float64 as features, (B, T, channels * mel)."""
    return input_BCxT.double().flatten(1, -2).transpose(1, 2)


@pytest.fixture(params=FIXTURES)
def case(request: pytest.FixtureRequest) -> Case:
    network, bins, sizes = FIXTURES[request.param]
    return load(request.param, request.param, lambda: network(bins, 10, **sizes))


@torch.no_grad()
def test_outputs_equal_the_reference(case: Case) -> None:
    case.model.eval()
    for tag in case.tags:
        image = case.values[f"input.{tag}"]
        assert_close(_score(case, image), case.values[f"eval64.{tag}.logits"].flatten(1), 1e-9)
        if (embedding := case.values.get(f"eval64.{tag}.embedding")) is not None:
            # that of the reference CRNN is what the list's last dropout and norm are given
            theirs = case.model.dense(embedding)[0] if isinstance(case.model, Crnn) else embedding
            assert_close(case.model.embed(_features(image)), theirs, 1e-9)
        if (frames_B := case.values.get(f"input.{tag}_lengths")) is not None:
            assert_close(_score(case, image, frames_B.long()), case.values[f"eval.{tag}_lengths.logits"].double(), 2e-5)


def test_training_step_equals_the_reference(case: Case) -> None:
    case.model.train()
    assert_step(case, cross_entropy(case, _score(case, case.values["train.input"])))


BOTH = [*LAYERS[:15], {"lstm": {"size": 64, "layers": 2, "bidirectional": True}}, *LAYERS[16:]]


@pytest.mark.parametrize(
    ("network", "bins", "sizes", "count"),
    [
        (Crnn, 128, {}, 139_786),
        (Crnn, 80, {}, 123_402),
        (Crnn, 128, {"layers": BOTH}, 256_266),
        (Cnn4, 128, {"sources": 2}, 25_602),
        (M5, 1, {}, 559_114),
    ],
)
def test_sizes_of_the_published_models(network: Any, bins: int, sizes: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = network(bins, 10, **sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert len(compiled.blocks(model)) >= 2


@torch.no_grad()
def test_cells_both_ways_equal_torch_on_packed_sequences() -> None:
    """And their state loads; backwards, each row starts at its own last valid frame."""
    torch.manual_seed(3)
    layers = [{"lstm": {"size": 4, "layers": 2, "bidirectional": True}}, "last"]
    model, cells = Crnn(6, 2, layers=layers).double(), nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True).double()
    state = {f"net.recur.{key}": value for key, value in cells.state_dict().items()}
    state |= {f"net.dense.linear_0.{key}": value for key, value in model.head.state_dict().items()}
    model.load_state_dict(from_reference("crnn", state))
    feat_BTF, frames_B = torch.randn(3, 9, 6, dtype=torch.float64), torch.tensor([9, 5, 2])
    packed = nn.utils.rnn.pack_padded_sequence(feat_BTF, frames_B, batch_first=True)
    padded, _ = nn.utils.rnn.pad_packed_sequence(cells(packed)[0], batch_first=True)
    last = padded[torch.arange(3), frames_B - 1]
    torch.testing.assert_close(model.embed(feat_BTF, frames_B), last)
    torch.testing.assert_close(model.embed(feat_BTF), cells(feat_BTF)[0][:, -1])


@torch.no_grad()
def test_m5_equals_its_operations() -> None:
    """Dai 2016 as torchaudio's tutorial has it: means of 30 frames, the first of which is scored."""
    torch.manual_seed(4)
    model = lived(M5(1, 10, channels=6, window=30)).double()
    wave_B1T, state = torch.randn(2, 1, 70_000, dtype=torch.float64), model.state_dict()
    x = wave_B1T
    for i, stride in enumerate((4, 1, 1, 1), 1):
        x = functional.conv1d(x, state[f"block{i}.conv.weight"], state[f"block{i}.conv.bias"], stride)
        names = ("running_mean", "running_var", "weight", "bias")
        x = functional.batch_norm(x, *(state[f"block{i}.norm.{part}"] for part in names)).relu()
        x = functional.max_pool1d(x, 4)
    x = functional.avg_pool1d(x, 30).transpose(1, 2)
    expected = functional.linear(x, state["head.weight"], state["head.bias"])
    assert expected.shape == (2, 2, 10)
    torch.testing.assert_close(model.windows(wave_B1T.mT), expected)
    torch.testing.assert_close(model(wave_B1T.mT), expected[:, 0])


@torch.no_grad()
@pytest.mark.parametrize(("samples", "windows"), [(31_468, 1), (62_187, 1), (62_188, 2)])
def test_m5_counts_windows_as_the_original(samples: int, windows: int) -> None:
    model = M5(1, 10, channels=2, window=30).eval()
    assert model.windows(torch.randn(1, samples, 1)).shape == (1, windows, 10)
    with pytest.raises(ValueError, match="m5 needs at least 31468 frames a clip and got 31467"):
        model(torch.randn(1, 31_467, 1))


def test_the_published_crnn_needs_80_frames_and_80_bins() -> None:
    assert Crnn(80, 10).least == 80
    with pytest.raises(
        ValueError, match=r"layer 14 of model.layers, maxpool, spans 4 mel bins of 3: take features of m"
    ):
        Crnn(79, 10)


LISTED = [
    {"conv": {"channels": 6, "kernel": [3, 5], "padding": [0, 2], "stride": [2, 1]}},
    "norm",
    "relu",
    {"avgpool": [1, 2]},
    {"conv": {"channels": 4, "padding": 1}},
    "gelu",
]
LISTS: dict[str, list[Any]] = {
    "lstm": [*LISTED, {"lstm": 5}, "last"],
    "both ways": [*LISTED, {"lstm": {"size": 5, "layers": 2, "bidirectional": True}}, {"dropout": 0.1}, "mean"],
    "gru": [*LISTED, {"gru": {"size": 5, "bidirectional": True}}, "last", {"linear": 7}, "norm", "silu"],
    "no cells": [*LISTED, "max", {"linear": {"size": 3}}, "tanh"],
}
NARROW: dict[str, tuple[int, Any]] = {
    "crnn": (20, lambda bins: Crnn(bins, 5, layers=[{"conv": 4}, "elu", {"maxpool": 3}, *LAYERS[5:9], *LAYERS[15:]])),
    **{f"crnn {key}": (2, lambda bins, key=key: Crnn(bins, 5, layers=LISTS[key], sources=2)) for key in LISTS},
    "cnn4": (1, lambda bins: Cnn4(bins, 5, channels=3, sources=2)),
    "m5": (1772, lambda bins: M5(2, 5, channels=6)),
}


def _narrow(key: str, bins: int = 40) -> tuple[Any, int]:
    """A small model whose BatchNorms have lived, and a width from which on its batches are sensible."""
    torch.manual_seed(0)
    model = NARROW[key][1](bins)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval(), max(30, NARROW[key][0])


@pytest.mark.parametrize("key", NARROW)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
@torch.no_grad()
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(key: str, data: st.DataObject) -> None:
    (model, usual), least = _narrow(key), NARROW[key][0]
    width = data.draw(st.sampled_from([least + 1, usual + 1, 2 * usual, 3 * usual + 1]), "frames of the batch")
    frames = data.draw(st.lists(st.integers(least, width), min_size=1, max_size=3), "valid frames")
    feat_BTF = torch.randn(len(frames), width, model.bins, dtype=torch.float64)  # the padding's values must not matter
    together = model.double()(feat_BTF, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone = model(feat_BTF[row : row + 1, :count])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("name", FIXTURES)
def test_full_size_padded_clip_in_float32(name: str) -> None:
    network, bins, sizes = FIXTURES[name]
    torch.manual_seed(1)
    model, least = network(bins, 10, **sizes).eval(), {"crnn": 80, "cnn4": 1, "m5": 1772}[name]
    feat_BTF = torch.randn(2, 2 * least + 60, bins)
    together = model(feat_BTF, torch.tensor([2 * least + 60, least + 37]))[1:]
    alone = model(feat_BTF[1:, : least + 37])
    assert (together - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()


@torch.no_grad()
@pytest.mark.parametrize("key", ["crnn", "m5"])
def test_too_short_a_clip_in_a_batch_scores_as_if_zeros_followed(key: str) -> None:
    (model, usual), least = _narrow(key), NARROW[key][0]
    feat_BTF = torch.randn(2, 2 * usual, model.bins)
    together = model(feat_BTF, torch.tensor([2 * usual, least - 9]))[1:]
    feat_BTF[1, least - 9 :] = 0
    torch.testing.assert_close(together, model(feat_BTF[1:, :least]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", NARROW)
def test_full_rows_need_no_mask(key: str) -> None:
    model, usual = _narrow(key)
    for module in model.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    feat_BTF = torch.randn(3, usual, model.bins)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), usual)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("key", NARROW)
def test_gradients_of_padded_clips_are_finite_and_complete(key: str) -> None:
    model, usual = _narrow(key)
    frames_B = torch.tensor([usual, NARROW[key][0], 1, usual // 2])
    model.train()(torch.randn(4, usual, model.bins), frames_B).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_shortest_clip_and_wrong_input(key: str) -> None:
    model, least = _narrow(key)[0], NARROW[key][0]
    feat_BTF = torch.randn(1, least, model.bins)
    assert model(feat_BTF).isfinite().all()
    torch.testing.assert_close(model(feat_BTF), model.head(model.embed(feat_BTF)))
    with pytest.raises(ValueError, match=rf"needs at least {least} frames a clip and got {least - 1}"):
        model(torch.randn(1, least - 1, model.bins))
    with pytest.raises(ValueError, match="built for features"):
        model(torch.randn(1, least, model.bins + 1))


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_channels_last_gives_the_same(key: str) -> None:
    model, usual = _narrow(key)
    feat_BTF = torch.randn(2, usual, model.bins, dtype=torch.float64)
    expected = model.double()(feat_BTF)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(feat_BTF), expected)


@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_no_step_depends_on_data(key: str) -> None:
    """Without data (`meta` tensors) a read of a tensor's value raises: no such read stops a GPU or breaks a graph."""
    model, usual = _narrow(key)
    feat_BTF = torch.empty(2, usual, model.bins, device="meta")
    for frames_B in (None, torch.empty(2, dtype=torch.int64, device="meta")):
        assert model.to("meta")(feat_BTF, frames_B).shape == (2, 5)


@pytest.mark.full
@pytest.mark.parametrize("key", NARROW)
@torch.no_grad()
def test_blocks_trace_into_one_graph_each(key: str) -> None:
    """Dynamo captures each block whole, with padded rows and without."""
    model, usual = _narrow(key)
    feat_BTF, lengths_B = torch.randn(2, usual, model.bins), torch.tensor([usual, NARROW[key][0]])
    expected = [model(feat_BTF, frames_B) for frames_B in (None, lengths_B)]
    torch._dynamo.reset()
    for block in compiled.blocks(model):
        block.compile(backend="eager", fullgraph=True, dynamic=False)
    for frames_B, logits_BC in zip((None, lengths_B), expected, strict=True):
        torch.testing.assert_close(model(feat_BTF, frames_B), logits_BC)


@torch.no_grad()
def test_channels_of_the_audio_are_images_of_their_own() -> None:
    """What the first convolution is given: channel c of mel bin f is feature c * mel bins + f."""
    feat_BTF = torch.arange(2 * 3 * 8.0).reshape(1, 6, 8)
    for model in (Crnn(8, 2, layers=["max"], sources=2), Cnn4(8, 2, sources=2)):
        seen: list[Tensor] = []
        first = next(model.children())
        first.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        model.eval()(feat_BTF)
        assert seen[0].shape == (1, 2, 4, 6)
        assert seen[0][0, 1, 2].equal(feat_BTF[0, :, 4 + 2])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["norm", 3], "layer 2 of model.layers is 3: write a name, or one name with its options"),
        ([{"conv": 3, "norm": {}}], "layer 1 of model.layers is {'conv': 3, 'norm': {}}: write a name"),
        (["maxpol"], "layer 1 of model.layers is 'maxpol': take one of conv, maxpool"),
        ([{True: 3}], "layer 1 of model.layers is True: take one of"),
        (["norm", "conv"], "layer 2 of model.layers, conv, needs channels: write conv: {channels: ...}"),
        ([{"conv": 0}], "layer 1 of model.layers, conv: channels is 0: take a whole number from 1 on"),
        ([{"conv": {"channels": 4, "kernel": [3]}}], "conv: kernel is [3]: take a whole number from 1 on, or two"),
        ([{"conv": {"channels": 4, "kernel": 3.0}}], "conv: kernel is 3.0: take"),
        ([{"conv": {"channels": 4, "size": 3}}], "conv, has no option 'size': take channels, kernel, stride, padding"),
        ([{"dropout": 1}], "layer 1 of model.layers, dropout: rate is 1: take a number from 0 to below 1"),
        ([{"norm": 3}], "layer 1 of model.layers, norm, takes no options: write norm alone"),
        ([{"norm": {"size": 3}}], "norm, has no option 'size': take none"),
        ([{"lstm": {"size": 3, "bidirectional": 1}}], "bidirectional is 1: take true or false"),
        ([{"lstm": 3}, {"conv": 3}], "layer 2 of model.layers, conv, takes an image and is given a sequence: move it"),
        ([{"linear": 3}], "layer 1 of model.layers, linear, takes a vector and is given an image: move it"),
        (["last", {"gru": 3}], "layer 2 of model.layers, gru, takes an image or a sequence and is given a vector"),
        ([{"lstm": 3}], "model.layers ends with a sequence: one of last, mean, max has to make a vector of it"),
        ([], "model.layers ends with an image"),
        ([{"maxpool": 9}, {"maxpool": 9}], "layer 2 of model.layers, maxpool, spans 9 mel bins of 4: take features"),
    ],
)
def test_wrong_layers_are_refused_by_number(layers: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Crnn(40, 5, layers=layers)
    assert "\n" not in str(error.value)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="crnn got 41 bins of 2 channels side by side"):
        Crnn(41, 5, sources=2)
    with pytest.raises(ValueError, match="cnn4 got 41 bins of 2 channels side by side"):
        Cnn4(41, 5, sources=2)
    with pytest.raises(ValueError, match=r"model.channels of cnn4 is 0"):
        Cnn4(40, 5, channels=0)
    with pytest.raises(ValueError, match="m5 hears waveforms, one value a channel, and got 80 bins: set features"):
        M5(80, 5)
