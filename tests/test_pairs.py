"""Every network on every feature: a step that lowers the loss, or a refusal with its reason; and each on two ranks."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import index_rows, raw_batch, sound
from launches import train
from networks import TINY, silence_dropout
from torch.nn import functional

from dist_train import config, models
from dist_train.frontend import FrontBatch, FrontEnd
from dist_train.parts import network
from dist_train.window import train_windows
from dist_train.world import Place, World

WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
FEATURES: dict[str, dict[str, Any]] = {
    **{name: {"name": name, "bins": 80} for name in ("fbank", "mel")},
    **{name: {"name": name, "bins": 80, "ceps": 80} for name in ("mfcc", "torchaudio_mfcc")},
    "spectrogram": {"name": "spectrogram", "fft": 400},
    "waveform": {"name": "waveform"},
}


@cache
def _heard(name: str) -> tuple[FrontBatch, int]:
    """Eight windows of 1 s of two classes, as a network hears them, and the bins of a frame."""
    chosen = config.check({"features": FEATURES[name]}, name)
    clips = [sound(20000, seed=number) * (1 + 3 * (number % 2)) for number in range(8)]
    audio = chosen.audio.model_copy(update={"seconds": 1.0})
    front = FrontEnd(audio, chosen.augment, chosen.features, seed=0, device="cpu")
    ids = np.arange(8)
    plan = train_windows(index_rows(clips), ids, ids, None, audio, chosen.augment, 0)
    return front(raw_batch(plan, clips), training=True), front.bins


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_a_network_trains_on_a_feature_or_is_refused(name: str, feature: str) -> None:
    batch, bins = _heard(feature)
    chosen = config.check({"features": FEATURES[feature], "model": {"name": name, **TINY[name][1]}}, "test")
    if (name == "m5") != (feature == "waveform"):
        with pytest.raises(ValueError, match=f"model.name={name} does not fit features.name={feature}: m5 hears"):
            network(chosen, bins, 2, WORLD, torch.float32)
        return
    model = network(chosen, bins, 2, WORLD, torch.float32)
    silence_dropout(model)
    feat_BTF = batch.feat_BTF.clone()
    losses = []
    for _ in range(2):
        loss = functional.cross_entropy(model.train()(feat_BTF, batch.frames_B), batch.label_B % 2)
        loss.backward()
        losses.append(loss.item())
        norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
        assert 0 < norm < torch.inf
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.data -= 1e-3 / norm * parameter.grad
                parameter.grad = None
    assert losses[1] < losses[0]


NARROW = "resnet_se"  # 8 channels into strided 1x1 kernels, which oneDNN's channels-last form does not survive


@pytest.mark.parametrize(
    "name", [name if name == NARROW else pytest.param(name, marks=pytest.mark.full) for name in models.ARCHITECTURES]
)
def test_every_network_makes_three_steps_on_two_ranks(name: str, shards: Path, tmp_path: Path) -> None:
    bins, sizes = TINY[name]
    options = [f"model.{key}={value}" for key, value in sizes.items() if key != "layers"]
    options += [f"features.bins={bins}"] if name != "m5" else ["features={name: waveform}", "audio.sample_rate=8000"]
    options += ["features.bins=128"] if name == "crnn" else []
    unset = [f"model.{key}=null" for key in ("channels", "embedding") if key not in sizes]
    fixed = ("audio.seconds=1.5", "run.max_steps=3", f"model.name={name}")
    run = train(tmp_path, shards, *fixed, *unset, *options, ranks=2)
    assert run.steps() == 3 and all(0 < loss < 20 for loss in run.column("loss"))
