"""What every architecture keeps: padding is not heard, the least length, poolings, a step, 32 clips learnt by heart."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import TINY, lived, silence_dropout, tiny
from torch import Tensor, nn
from torch.nn import functional

from dist_train import config, models
from dist_train.models import compiled
from dist_train.models.pooling import ATTENTIVE

POOLINGS = ("asp", "sap", "tsp", "tap", "tstp", "tsdp", "astp")


def test_every_architecture_has_a_tiny_form() -> None:
    assert TINY.keys() == models.ARCHITECTURES.keys() == models.SETTINGS.keys()


@pytest.mark.parametrize("name", models.ARCHITECTURES)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
@torch.no_grad()
def test_a_padded_clip_scores_what_it_scores_alone(name: str, data: st.DataObject) -> None:
    """Whatever the lengths, the batch mates and what lies in the padding; float32."""
    model = lived(tiny(name))
    span = 2500 if name == "m5" else 90
    frames = data.draw(st.lists(st.integers(model.least, model.least + span), min_size=1, max_size=4), "valid frames")
    width = max(frames) + data.draw(st.integers(0, span // 3), "frames of padding")
    feat_BTF = torch.randn(len(frames), width, model.bins)
    together = model(feat_BTF, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone = model(feat_BTF[row : row + 1, :count])
        assert (together[row : row + 1] - alone).abs().max() < 1e-5 * max(1.0, float(alone.square().mean().sqrt()))


@pytest.mark.parametrize("name", models.ARCHITECTURES)
@torch.no_grad()
def test_the_least_length_is_accepted_and_one_less_is_an_error(name: str) -> None:
    model = tiny(name).eval()
    feat_BTF = torch.randn(1, model.least, model.bins)
    assert model(feat_BTF).isfinite().all()
    with pytest.raises(ValueError, match=rf"needs at least {model.least} frames a clip and got {model.least - 1}"):
        model(feat_BTF[:, 1:])


def _step(model: models.Model, feat_BTF: Tensor, label_B: Tensor) -> Tensor:
    """One step of gradient descent; the loss."""
    loss = functional.cross_entropy(model.train()(feat_BTF), label_B)
    loss.backward()
    for parameter in model.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all()
            parameter.data -= 1e-5 * parameter.grad
            parameter.grad = None
    return loss.detach()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_pooling_that_a_network_has_trains_and_others_are_refused(name: str, pooling: str) -> None:
    if pooling not in models.POOLINGS.get(name, ()):
        lacks = (
            "model.pooling is set, but" if name not in models.POOLINGS else f"model.pooling of {name} is '{pooling}'"
        )
        with pytest.raises(ValueError, match=lacks):
            tiny(name, pooling=pooling)
        return
    for options in ({}, *([{"attention": 8, "context": flag} for flag in (True, False)] * (pooling in ATTENTIVE))):
        model = tiny(name, pooling=pooling, **options)
        feat_BTF, label_B = torch.randn(8, model.least + 20, model.bins), torch.arange(8) % 5
        first, second = (_step(model, feat_BTF, label_B) for _ in range(2))
        assert second < first


@pytest.mark.parametrize("name", models.POOLINGS)
def test_the_first_pooling_is_the_default(name: str) -> None:
    default, named = (tiny(name, **more).state_dict() for more in ({}, {"pooling": models.POOLINGS[name][0]}))
    assert default.keys() == named.keys()
    assert all(torch.equal(value, named[key]) for key, value in default.items())


OTHER: dict[str, Any] = {
    "channels": 24,
    "wide": 40,
    "blocks": [2, 1, 1, 1],
    "scale": 4,
    "base_width": 40,
    "expansion": 3,
    "kernels": [3, 5, 3, 3, 3],
    "dilations": [1, 1, 2, 3, 2],
    "groups": [1, 2, 4, 2, 2],
    "squeeze": 12,
    "growth": 6,
    "bottleneck": 3,
    "hidden": 20,
    "window": 2,
    "dropout": 0.3,
    "embedding": 10,
    "embedding_layers": 2,
    "embedding_norm": True,
    "attention": 12,
    "context": False,
    "layers": [{"conv": 3}, "max"],
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, keys in models.SETTINGS.items() for key in keys])
def test_every_setting_of_a_configuration_does_something(name: str, key: str) -> None:
    default = models.POOLINGS.get(name, ("",))[0]
    attentive = {"pooling": "astp"} if key in ("attention", "context") and default not in ATTENTIVE else {}
    value = models.POOLINGS[name][-1] if key == "pooling" else OTHER[key]
    if (key, attentive) == ("context", {"pooling": "astp"}):
        value = True  # off by default
    bins, sizes = TINY[name]
    checked = config.check({"model": {"name": name, **sizes, **attentive, key: value}}, "test").model
    given = {setting: getattr(checked, setting) for setting in models.SETTINGS[name]}
    usual, other = tiny(name, **attentive), models.build(checked.name, bins, 5, **given)
    assert (repr(usual), usual.least) != (repr(other), other.least)


@pytest.mark.full
@pytest.mark.timeout(1800)  # one core compiles for minutes
@pytest.mark.parametrize("name", ["ecapa", "campplus", "cnn6"])
def test_a_compiled_network_trains_as_the_eager_one(name: str) -> None:
    """Three steps: the same logits. In float64: campplus is so steep that float32 is far off after one step."""
    found: list[list[Tensor]] = []
    for compile in (False, True):
        model = tiny(name).double()
        silence_dropout(model)
        if compile:
            compiled.compile_blocks(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        feat_BTF, label_B = _clips(model, 40, 1.0)
        logits: list[Tensor] = []
        for _ in range(3):
            logits.append(model.train()(feat_BTF.double()))
            functional.cross_entropy(logits[-1], label_B).backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append(logits)
    for eager, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, eager, rtol=1e-6, atol=1e-6)


def _clips(model: models.Model, frames: int, loud: float) -> tuple[Tensor, Tensor]:
    """32 clips of noise and labels at random; `loud`: level of what the clips of a class share."""
    generator = torch.Generator().manual_seed(1)
    feat_BTF = torch.randn(32, frames, model.bins, generator=generator)
    label_B = torch.randint(4, (32,), generator=generator)
    return feat_BTF + loud * torch.randn(4, frames, model.bins, generator=generator)[label_B], label_B


def _learnt(model: models.Model, feat_BTF: Tensor, label_B: Tensor, limit: int) -> float:
    """Accuracy on these very clips, after steps on them until it is over .99, `limit` at most.

    Without dropout, and with running statistics that soon follow.
    """
    silence_dropout(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 0.5
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    accuracy = 0.0
    for step in range(limit):
        functional.cross_entropy(model.train()(feat_BTF), label_B).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 5 == 4:
            with torch.no_grad():
                accuracy = float((model.eval()(feat_BTF).argmax(1) == label_B).float().mean())
        if accuracy > 0.99:
            break
    return accuracy


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_32_clips_are_learnt(name: str) -> None:
    model = tiny(name, 4)
    assert _learnt(model, *_clips(model, model.least + (200 if name == "m5" else 10), 1.0), 150) > 0.99


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in models.ARCHITECTURES if name != "linear"])  # it hears means only
def test_32_clips_of_nothing_but_noise_are_learnt_by_heart(name: str) -> None:
    wide = {} if name == "crnn" else {"channels": 24 if name == "ecapa" else 2 * TINY[name][1].get("channels", 8)}
    model = tiny(name, 4, **wide)
    assert _learnt(model, *_clips(model, model.least + (2000 if name == "m5" else 40), 0.0), 600) > 0.99
