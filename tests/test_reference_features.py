"""Every reference array of features is met, row by row and batched: Kaldi, torchaudio, macls, systems B, C and D."""

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dist_train.batched.kaldi import Kaldi
from dist_train.config import check
from dist_train.features import extractor
from dist_train.resample import Resampler, rate_ratio, speed_ratio
from dist_train.settings import Audio, Features
from dist_train.spectra.norm import normalise

CPU = torch.device("cpu")
KALDI = {  # torchaudio.compliance.kaldi's argument -> ours
    "num_mel_bins": "bins",
    "num_ceps": "ceps",
    "window_type": "window",
    "low_freq": "low_freq",
    "high_freq": "high_freq",
    "preemphasis_coefficient": "preemphasis",
    "remove_dc_offset": "remove_dc",
    "use_energy": "use_energy",
    "snip_edges": "snip_edges",
}
PLAIN: dict[str, Any] = {"window": "hanning", "win_length": 400, "hop_length": 200, "fft": 400, "low_freq": 0.0}
TRANSFORMS: dict[str, dict[str, Any]] = {
    "melspec_default": PLAIN | {"name": "mel", "bins": 128, "scale": "linear"},
    "melspec_1024_320_64": PLAIN
    | {"name": "mel", "win_length": 1024, "fft": 1024, "hop_length": 320, "low_freq": 50.0, "high_freq": 8000.0}
    | {"bins": 64, "scale": "linear"},
    "melspec_slaney": PLAIN
    | {"name": "mel", "fft": 512, "hop_length": 160, "bins": 40, "mel_norm": "slaney", "mel_scale": "slaney"}
    | {"power": 1.0, "scale": "linear"},
    "spec_default": {key: value for key, value in PLAIN.items() if key != "low_freq"}
    | {"name": "spectrogram", "scale": "linear"},
    "mfcc_default": PLAIN | {"name": "torchaudio_mfcc", "ceps": 40, "bins": 128},
    "mfcc_13_log": PLAIN
    | {"name": "torchaudio_mfcc", "ceps": 13, "bins": 40, "fft": 512, "hop_length": 160, "log_mels": True},
}
KALDI_SETTINGS = (
    *("fbank80", "fbank40", "fbank23_default", "fbank80_x32768", "fbank80_hamming_x32768", "fbank80_energy"),
    *("fbank80_nosnip", "fbank80_band_nodc", "mfcc80_ceps40", "mfcc40_ceps13", "mfcc23_default"),
)


@pytest.fixture(scope="module")
def reference() -> tuple[Any, dict[str, Any]]:
    default = Path(__file__).parents[1].parent / "shared/reference/parity"
    folder = Path(os.environ.get("DIST_TRAIN_PARITY", default))
    if not (folder / "features_synthetic.npz").exists():
        pytest.skip(f"no reference features in {folder}")
    return np.load(folder / "features_synthetic.npz"), json.loads((folder / "features.json").read_text())


def forms(features: Features, audio: Audio | None = None, dtype: torch.dtype = torch.float32) -> list[Any]:
    """The row-wise form and the batched one, each (B, T) -> (B, frames, bins)."""
    audio = audio or Audio()
    bank = extractor(audio, features, CPU, dtype)
    return [bank, Kaldi(audio, features, CPU, dtype).batched if features.name in ("fbank", "mfcc") else bank.batched]


@pytest.mark.parametrize("setting", [*KALDI_SETTINGS, *TRANSFORMS])
def test_every_setting_and_wave(reference: tuple[Any, dict[str, Any]], setting: str) -> None:
    arrays, meta = reference
    if setting in TRANSFORMS:
        features = Features(**TRANSFORMS[setting])
    else:
        said = meta["kaldi_settings"][setting]
        args = {KALDI[key]: value for key, value in said["args"].items() if key in KALDI}
        args = {"bins": 23} | args | {"name": said["function"], "waveform_scale": float(said["scale"])}
        features = Features(**args, power=2.0 if said["args"].get("use_power", True) else 1.0)
    names = [name for name in arrays.files if name.startswith(f"{setting}/")]
    assert len(names) >= 6
    for name in names:
        expected = torch.from_numpy(arrays[name])
        expected = expected.T if setting in TRANSFORMS else expected
        tolerance = max(1e-4, 5 * meta["f32_vs_f64_max_abs"].get(name, 1e-4))
        for form in forms(features):
            made = form(torch.from_numpy(arrays[f"wave/{name.split('/')[1]}"])[None])[0]
            torch.testing.assert_close(made, expected, rtol=1e-5, atol=tolerance)


def test_a_quiet_clip_does_not_change_beside_a_loud_one(reference: tuple[Any, dict[str, Any]]) -> None:
    arrays, _ = reference
    both, alone = torch.from_numpy(arrays["batch/wave"]), torch.from_numpy(arrays["batch/mfcc_default_row1_alone"]).T
    beside = torch.from_numpy(arrays["batch/mfcc_default"]).transpose(1, 2)
    for form in forms(Features(**TRANSFORMS["mfcc_default"])):
        made = form(both)
        torch.testing.assert_close(made[0], beside[0], rtol=1e-5, atol=2e-3)
        torch.testing.assert_close(made[1], alone, rtol=1e-5, atol=2e-3)
    assert (beside[1] - alone).abs().max() > 500


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("Fbank", "macls"), ("MelSpectrogram", "macls_mel"), ("Spectrogram", "macls_spectrogram")),
        ("MFCC", "macls_mfcc"),
    ],
)
def test_macls_front_ends(reference: tuple[Any, dict[str, Any]], name: str, preset: str) -> None:
    """Its mean is that of all frames, padding included; its MFCC's top level that of the batch: the louder row's."""
    arrays, _ = reference
    features = check({"features": {"preset": preset}}, "test").features
    assert features.norm == "cmn"
    for form in forms(features):
        made = form(torch.from_numpy(arrays["macls/wave"]))
        full = made - made.mean(1, keepdim=True)
        expected, masked = (torch.as_tensor(arrays.get(f"macls/{name}{end}", full)) for end in ("", "_masked"))
        frames = np.round(arrays["macls/ratio"] * full.shape[1]).astype(int)
        for row, count in enumerate(frames[:1] if name == "MFCC" else frames):
            torch.testing.assert_close(full[row], expected[row], rtol=1e-5, atol=5e-3)
            torch.testing.assert_close(full[row, :count], masked[row, :count], rtol=1e-5, atol=5e-3)


@pytest.mark.parametrize("preset", ["crnn", "cnn4", "resnetish"])
def test_front_ends_of_systems_b_c_d(reference: tuple[Any, dict[str, Any]], preset: str) -> None:
    arrays, _ = reference
    config = check({"features": {"preset": preset}}, "test")
    wave_CT = torch.from_numpy(arrays["seed/stereo44k"])
    wave_CT = wave_CT if preset == "cnn4" else wave_CT[:1]
    key = {"crnn": "crnn_whitened", "cnn4": "cnn4_logmel_db", "resnetish": "resnetish_logmel"}[preset]
    expected = torch.from_numpy(arrays[f"seed/{key}"]).flatten(0, -3).transpose(1, 2)
    for form in forms(config.features, config.audio):
        made = form(wave_CT)
        if preset == "crnn":
            made = normalise(made.clone(), None, config.features.norm)
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-3)


def test_speed_and_resampling(reference: tuple[Any, dict[str, Any]]) -> None:
    arrays, _ = reference
    for rate in (44100, 8000, 48000):
        wave = torch.from_numpy(arrays[f"resample/{rate}_in"])[None]
        expected = torch.from_numpy(arrays[f"resample/{rate}_to_16000_transform"])
        torch.testing.assert_close(whole(wave, rate_ratio(rate, 16000), len(expected))[0], expected, rtol=0, atol=2e-6)
    for factor in ("0.9", "1.1"):
        wave, expected = (torch.from_numpy(arrays[f"speed/{name}"]) for name in ("wave", factor))
        made = whole(wave, speed_ratio(Fraction(factor)), expected.shape[1])
        torch.testing.assert_close(made, expected, rtol=0, atol=2e-6)


def whole(wave_BT: torch.Tensor, ratio: Any, samples: int) -> torch.Tensor:
    """A whole clip converted: silence past both its ends."""
    resampler = Resampler(ratio, CPU)
    wide = torch.nn.functional.pad(wave_BT, (ratio.width, resampler.needed(samples)))
    out = torch.empty(len(wave_BT), resampler.room(samples))
    resampler.into(wide, samples, out)
    return out[:, :samples]
