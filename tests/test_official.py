"""Checkpoints in the official layouts of other systems: every tensor finds its place, and the embeddings are theirs.

Needs the folder of reference values, but for nothing that `test_pretrained` does not test without it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import PARITY, Case, assert_close, load
from torch import Tensor
from torch.nn import functional

from dist_train import config, models, presets, pretrained
from dist_train.models.panns import Panns
from dist_train.settings import Config

SPEAKER = {"audio": {"sample_rate": 16000}, "features": {"preset": "3dspeaker"}}
MACLS: dict[str, Any] = {"features": {"preset": "macls"}}
WESPEAKER: dict[str, Any] = {"features": {"preset": "wespeaker"}}
SPEECHBRAIN: dict[str, Any] = (
    {"features": {"preset": "speechbrain"}}
    if "speechbrain" in presets.PRESETS
    else {
        "features": {"name": "mel", "window": "hamming", "scale": "db", "top_db": 80.0, "low_freq": 0.0, "norm": "cmn"}
    }
)
PANNS: dict[str, Any] = (
    {"features": {"preset": "panns"}}
    if "panns" in presets.PRESETS
    else {
        "audio": {"sample_rate": 32000},
        "features": {
            **{
                "name": "mel",
                "bins": 64,
                "window": "hanning",
                "frame_length": 32.0,
                "frame_shift": 10.0,
                "scale": "db",
            },
            **{"low_freq": 50.0, "high_freq": 14000.0, "mel_scale": "slaney", "mel_norm": "slaney", "norm": "none"},
        },
    }
)
# checkpoint -> architecture, sizes, name of the file, front end, origin
OFFICIAL: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str]] = {
    "3dspeaker/campplus_cn_common.bin": ("campplus", {"embedding": 192}, "campplus_cn.bin", SPEAKER, "3D-Speaker"),
    "3dspeaker/campplus_voxceleb.bin": ("campplus", {}, "campplus_voxceleb.bin", SPEAKER, "3D-Speaker"),
    "3dspeaker/pretrained_eres2net.ckpt": ("eres2net", {}, "pretrained_eres2net.ckpt", SPEAKER, "3D-Speaker"),
    "3dspeaker/eres2net_base": ("eres2net", {"embedding": 512}, "eres2net.ckpt", SPEAKER, "3D-Speaker"),
    "3dspeaker/pretrained_eres2netv2.ckpt": ("eres2netv2", {}, "eres2netv2.ckpt", SPEAKER, "3D-Speaker"),
    "3dspeaker_or_speechbrain/ecapa_c1024": ("ecapa", {"channels": 1024}, "ecapa-tdnn.ckpt", SPEAKER, "3D-Speaker"),
    "wespeaker/ECAPA_TDNN_GLOB_c1024": (
        *("ecapa_wespeaker", {"channels": 1024, "context": True}, "avg_model.pt", WESPEAKER, "WeSpeaker"),
    ),
    "wespeaker/ECAPA_TDNN_GLOB_c512": ("ecapa_wespeaker", {"context": True}, "avg_model.pt", WESPEAKER, "WeSpeaker"),
    "wespeaker/CAMPPlus": ("campplus", {}, "avg_model.pt", WESPEAKER, "WeSpeaker"),
    "wespeaker/ERes2Net34_Base": ("eres2net", {}, "avg_model.pt", WESPEAKER, "WeSpeaker"),
    "panns/Cnn6": ("cnn6", {}, "Cnn6_mAP=0.343.pth", PANNS, "PANNs"),
    "panns/Cnn10": ("cnn10", {}, "Cnn10_mAP=0.380.pth", PANNS, "PANNs"),
    "panns/Cnn14": ("cnn14", {}, "Cnn14_mAP=0.431.pth", PANNS, "PANNs"),
    "macls/EcapaTdnn": ("ecapa", {}, "model.pth", MACLS, "macls"),
    "macls/TDNN": ("tdnn", {}, "model.pth", MACLS, "macls"),
    "macls/Res2Net": ("res2net", {}, "model.pth", MACLS, "macls"),
    "macls/ResNetSE": ("resnet_se", {}, "model.pth", MACLS, "macls"),
    "macls/PANNS_CNN10": ("cnn10", {}, "model.pth", MACLS, "macls"),
}


def _known() -> dict[str, Any]:
    if not (path := PARITY / "checkpoint_keys.json").exists():
        pytest.skip(f"no reference values at {path}")
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return known


def _file(checkpoint: str, folder: Path, name: str) -> Path:
    """A file with the checkpoint's names and shapes, in its layout; every tensor is one number many times over."""
    known = _known()
    entry = known[checkpoint]
    shapes = dict(entry.get("keys") or known[entry["same_keys_as"]]["keys"]) | dict(entry.get("different_shapes", []))
    state: dict[str, Any] = {}
    for number, (key, shape) in enumerate(shapes.items()):
        counter = key.endswith("num_batches_tracked")
        state[key] = torch.tensor(7) if counter else torch.tensor(0.5 + number).expand(shape)
    if checkpoint.startswith("wespeaker"):
        state["projection.weight"] = torch.zeros(()).expand(17982, 192)
    if checkpoint.startswith("panns"):
        sampler = {"indexes": np.arange(5), "pointer": 3, "scores": np.ones(2), "last": np.float64(0.5)}
        state = {"iteration": 600000, "model": state, "sampler": sampler}
    torch.save(state, folder / name)
    return folder / name


def _settings(name: str, file: Path, front: dict[str, Any], **more: Any) -> Config:
    return config.check({"model": {"name": name, "pretrained": str(file), **more}, **front}, "test")


def _model(name: str, sizes: dict[str, Any], bins: int) -> models.Model:
    if name not in models.ARCHITECTURES:
        pytest.skip(f"{name} is not built in")
    with torch.device("meta"):
        return models.build(name, bins, 10, **sizes)


def test_the_list_is_whole() -> None:
    assert OFFICIAL.keys() == _known().keys()


@pytest.mark.parametrize("checkpoint", OFFICIAL)
def test_every_tensor_finds_its_place(checkpoint: str, tmp_path: Path) -> None:
    name, sizes, file, front, origin = OFFICIAL[checkpoint]
    path = _file(checkpoint, tmp_path, file)
    bins = 64 if front is PANNS else 80
    model = _model(name, sizes, bins)
    chosen, report = pretrained.begin(_settings(name, path, front), model, [f"class{n}" for n in range(10)])
    ours = model.state_dict()
    body = {key for key in ours if not key.startswith("head.")}
    assert (report.missing, report.unexpected, report.reshaped) == ([], [], {})
    assert chosen.keys() == body and report.share == 1.0 and report.head == "fresh"
    assert all(value.shape == ours[key].shape for key, value in chosen.items())
    assert (report.origin, report.warning) == (origin, None)
    values = {float(value.flatten()[0]) for key, value in chosen.items() if value.is_floating_point()}
    zeros = set(report.zeroed)
    assert len(values - {0.0}) == sum(
        v.is_floating_point() for k, v in chosen.items() if k not in zeros
    )  # each its own
    assert bool(zeros) == checkpoint.startswith("panns")
    assert all(float(chosen[key].abs().max()) == 0 and key.endswith(".bias") for key in zeros)


@pytest.mark.parametrize(
    ("checkpoint", "front", "told"),
    [
        (
            "3dspeaker/campplus_voxceleb.bin",
            WESPEAKER,
            "(3D-Speaker); 3D-Speaker's has features.window=povey, not hamming",
        ),
        ("wespeaker/CAMPPlus", SPEAKER, "(WeSpeaker); WeSpeaker's has features.window=hamming, not povey"),
        (
            "panns/Cnn10",
            SPEAKER,
            "features.name=mel, not fbank",
        ),
        ("macls/TDNN", SPEAKER, "(macls); macls's has audio.target_db=-20.0, not None (features.preset=macls)"),
    ],
)
def test_another_front_end_is_named(checkpoint: str, front: dict[str, Any], told: str, tmp_path: Path) -> None:
    name, sizes, file, *_ = OFFICIAL[checkpoint]
    path = _file(checkpoint, tmp_path, file)
    _, report = pretrained.begin(_settings(name, path, front), _model(name, sizes, 80), ["a"] * 10)
    assert report.warning is not None and told in report.warning and "\n" not in report.warning
    if checkpoint.startswith("panns"):  # the norm of 64 bins is left as it is at the start
        assert report.reshaped.keys() == {f"bn0.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
        assert report.share > 0.99


def test_ecapa_of_unknown_origin_fits_either_front_end(tmp_path: Path) -> None:
    path = _file("3dspeaker_or_speechbrain/ecapa_c1024", tmp_path, "mine.pt")
    speechbrain = _file("3dspeaker_or_speechbrain/ecapa_c1024", tmp_path, "embedding_model.ckpt")
    model = _model("ecapa", {"channels": 1024}, 80)

    def warning(file: Path, front: dict[str, Any]) -> str | None:
        return pretrained.begin(_settings("ecapa", file, front), model, ["a"] * 10)[1].warning

    assert warning(path, SPEAKER) is warning(path, SPEECHBRAIN) is warning(speechbrain, SPEECHBRAIN) is None
    assert "(SpeechBrain or 3D-Speaker)" in str(warning(path, WESPEAKER))
    told = str(warning(speechbrain, SPEAKER))
    assert "(SpeechBrain); SpeechBrain's has " in told and "features.name=mel, not fbank" in told


def test_another_embedding_size_is_left_fresh(tmp_path: Path) -> None:
    path = _file("3dspeaker/campplus_cn_common.bin", tmp_path, "campplus_cn.bin")
    _, report = pretrained.begin(_settings("campplus", path, SPEAKER), _model("campplus", {}, 80), ["a"] * 10)
    assert report.reshaped["xvector.dense.linear.weight"] == [[192, 1024, 1], [512, 1024, 1]]
    assert 0.9 < report.share < 0.95
    assert "3 of another shape: xvector.dense.linear.weight [192, 1024, 1] there, [512, 1024, 1] here" in report.text()


ECAPA = {"channels": 32, "embedding": 24, "attention": 16, "squeeze": 16}
CAMPPLUS = {"channels": 16, "embedding": 24, "growth": 4, "bottleneck": 2}
ERES2NET = {"channels": 4, "embedding": 24}
HUGE = {"blocks": (1, 2, 2, 1), "expansion": 4, "base_width": 24, "scale": 3}
CNN14 = {"channels": (8, 12, 16, 24, 32, 40), "embedding": 48, "audioset": 20}
FIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "ecapa_official": ("ecapa", ECAPA),
    "ecapa_tdnn_asp": ("ecapa", ECAPA),
    "campplus_official": ("campplus", CAMPPLUS),
    "eres2net_official": ("eres2net", ERES2NET | {"blocks": (2, 2, 2, 2)}),
    "eres2net_official_huge": ("eres2net", ERES2NET | HUGE),
    "eres2netv2_official": ("eres2netv2", {"channels": 6, "embedding": 24, "blocks": (2, 2, 2, 2)}),
    "ws_ecapa_glob": ("ecapa_wespeaker", {"channels": 32, "embedding": 24, "attention": 16, "wide": 64}),
    "ws_eres2net": ("eres2net", ERES2NET | {"blocks": (1, 2, 2, 1)}),
    "tdnn_asp": ("tdnn", {"channels": 32, "embedding": 24}),
    "res2net_asp": ("res2net", {"channels": 4, "embedding": 24}),
    "panns_cnn10": ("cnn10", {"channels": (8, 16, 24, 32), "embedding": 48, "audioset": 20}),
    "panns_cnn14": ("cnn14", CNN14),
}


@pytest.mark.parametrize("fixture", FIXTURES)
@torch.no_grad()
def test_embeddings_are_those_of_the_system(fixture: str, tmp_path: Path) -> None:
    """Its weights in a file of its layout, a fresh network, its inputs: its embeddings, and its logits where kept."""
    name, sizes = FIXTURES[fixture]
    if name not in models.ARCHITECTURES:
        pytest.skip(f"{name} is not built in")
    case = _case(fixture, name, lambda: models.ARCHITECTURES[name](80, 7, **sizes))
    state = {k.removeprefix("state."): value for k, value in case.values.items() if k.startswith("state.")}
    file = tmp_path / ("model.safetensors" if fixture.endswith("asp") else "model.pth")
    if file.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, file)
    else:
        torch.save({"module." + key: value for key, value in state.items()}, file)
    torch.manual_seed(9)
    model = models.ARCHITECTURES[name](80, 7, **sizes).double()
    kept = "keep" if case.facts["classifier_module"] else "drop"
    settings = _settings(name, file, SPEAKER, pretrained_head=kept)
    chosen, report = pretrained.begin(settings, model, [f"class{number}" for number in range(7)])
    assert (report.missing, report.unexpected, report.reshaped) == ([], [], {})
    model.load_state_dict(chosen, strict=False)
    model.eval()
    for tag in case.tags:
        feat_BTF = case.values[f"input.{tag}"].double()
        assert_close(model.embed(feat_BTF), case.values[f"eval64.{tag}.embedding"], case.tolerance)
        if kept == "keep":
            assert_close(model(feat_BTF), case.values[f"eval64.{tag}.logits"], case.tolerance)


def _case(fixture: str, name: str, build: Callable[[], models.Model]) -> Case:
    return load(fixture, name, build, 1e-6 if "ecapa" in fixture or fixture.endswith("asp") else 1e-9)


@torch.no_grad()
def test_official_panns_without_biases(tmp_path: Path) -> None:
    """Their convolutions have none; their classifier of AudioSet is kept where the data has its classes."""
    name, sizes = "cnn14", CNN14
    case = _case("panns_cnn14", name, lambda: Panns(80, 7, shape=name, **sizes))
    state = {k.removeprefix("state."): value for k, value in case.values.items() if k.startswith("state.")}
    official = {
        k: v for k, v in state.items() if not (".conv" in k and k.endswith(".bias")) and not k.startswith("fc.")
    }
    official |= {
        "spectrogram_extractor.stft.conv_real.weight": torch.ones(3, 1, 4),
        "logmel_extractor.melW": torch.ones(3, 4),
    }
    torch.save({"iteration": 1, "model": official, "sampler": {"pointer": 0}}, tmp_path / "Cnn14.pth")
    settings = _settings(name, tmp_path / "Cnn14.pth", PANNS, pretrained_head="keep")
    model = Panns(80, 20, shape=name, **sizes).double()
    chosen, report = pretrained.begin(settings, model, [str(number) for number in range(20)])
    assert len(report.zeroed) == 12 and report.missing == [] and report.share == 1.0
    assert sorted(report.left_out) == ["logmel_extractor.melW", "spectrogram_extractor.stft.conv_real.weight"]
    model.load_state_dict(chosen, strict=False)
    plain = case.model
    for key, value in plain.state_dict().items():
        if ".conv" in key and key.endswith(".bias"):
            value.zero_()
    feat_BTF = case.values["input.t97"].double()
    model.eval()
    vector_BE: Tensor = plain.eval().embed(feat_BTF)
    torch.testing.assert_close(model.embed(feat_BTF), vector_BE, rtol=1e-12, atol=1e-12)
    weight, bias = (state[f"fc_audioset.{part}"].double() for part in ("weight", "bias"))
    torch.testing.assert_close(model(feat_BTF), functional.linear(vector_BE, weight, bias), rtol=1e-12, atol=1e-12)
