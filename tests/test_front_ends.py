"""Each argument of torchaudio's functions is a key that means the same; each preset is the front end it is named after.

All in float64 against definitions written out or torchaudio's own, on fresh random input, row by row and batched.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from clips import index_rows, raw_batch, sound
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.batched import Batched
from dist_train.batched.kaldi import Kaldi
from dist_train.config import check
from dist_train.features import extractor
from dist_train.frontend import FrontEnd
from dist_train.presets import PRESETS
from dist_train.settings import Audio, Augment, Features
from dist_train.settings.features import READ_BY
from dist_train.window import eval_windows, train_windows

CPU = torch.device("cpu")


def waves(rows: int, samples: int, seed: int | None = None) -> torch.Tensor:
    """Noise, tones and an offset at levels 40 dB apart, float64."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, samples)))
    tone = 0.3 * torch.sin(torch.arange(samples, dtype=torch.float64) * 0.17)
    level = torch.logspace(-3, -1, rows, dtype=torch.float64)[:, None]
    return noise * level + tone * (torch.arange(rows) % 2)[:, None] + 0.02


def forms(features: Features, audio: Audio | None = None, dtype: torch.dtype = torch.float64) -> list[Any]:
    """(B, T), filled (B,) or None -> (B, frames, bins): row by row, and batched."""
    bank = extractor(audio or Audio(), features, CPU, dtype)
    other = Kaldi(audio or Audio(), features, CPU, dtype) if features.name in ("fbank", "mfcc") else bank
    return [bank, lambda wave, filled=None: other.batched(wave, None if filled is None else torch.from_numpy(filled))]


KALDI: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "energy": ({"use_energy": True}, {"use_energy": True}),
    "energy after": (
        {"use_energy": True, "raw_energy": False, "energy_floor": 0.0, "htk_compat": True},
        {"use_energy": True, "raw_energy": False, "energy_floor": 0.0, "htk_compat": True},
    ),
    "floor": ({"use_energy": True, "energy_floor": 3.0}, {"use_energy": True, "energy_floor": 3.0}),
    "nosnip": ({"snip_edges": False}, {"snip_edges": False}),
    "nosnip, gaps": (
        {"snip_edges": False, "frame_shift": 31.0, "frame_length": 20.0, "use_energy": True},
        {"snip_edges": False, "frame_shift": 31.0, "frame_length": 20.0, "use_energy": True},
    ),
    "blackman": ({"window": "blackman", "blackman_coeff": 0.4}, {"window_type": "blackman", "blackman_coeff": 0.4}),
    "shorter": ({"vtln_warp": 0.9}, {"vtln_warp": 0.9}),
    "longer": (
        {"vtln_warp": 1.15, "vtln_low": 200.0, "vtln_high": 6000.0},
        {"vtln_warp": 1.15, "vtln_low": 200.0, "vtln_high": 6000.0},
    ),
    "no power of two": ({"fft": 400}, {"round_to_power_of_two": False}),
    "linear": ({"scale": "linear"}, {"use_log_fbank": False}),
    "magnitude": ({"power": 1.0, "remove_dc": False}, {"use_power": False, "remove_dc_offset": False}),
    "samples": ({"win_length": 400, "hop_length": 161}, {"frame_shift": 161 / 16 + 1e-9}),
}
MFCC: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "htk": ({"htk_compat": True}, {"htk_compat": True}),
    "energy": ({"use_energy": True}, {"use_energy": True}),
    "htk energy": ({"use_energy": True, "htk_compat": True}, {"use_energy": True, "htk_compat": True}),
    "lifter": ({"lifter": 30.0}, {"cepstral_lifter": 30.0}),
    "no lifter": ({"lifter": 0.0, "snip_edges": False}, {"cepstral_lifter": 0.0, "snip_edges": False}),
}


@pytest.mark.parametrize(
    ("name", "case"), [*[("fbank", case) for case in KALDI], *[("mfcc", case) for case in MFCC]], ids=str
)
def test_kaldi_arguments(name: str, case: str) -> None:
    ours, theirs = (KALDI if name == "fbank" else MFCC)[case]
    features = Features(name=name, bins=30, **ours)
    function = getattr(torchaudio.compliance.kaldi, name)
    wave = waves(3, 5003)
    expected = torch.stack([function(row[None], num_mel_bins=30, **theirs) for row in wave])
    for form in forms(features):
        share = 1e-7 if "vtln_warp" not in ours else 2e-5  # whose corners are float32 there
        torch.testing.assert_close(form(wave), expected, rtol=share, atol=share)


STFT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hop 441": ({"win_length": 1024, "hop_length": 441}, {"win_length": 1024, "n_fft": 1024, "hop_length": 441}),
    "hop 1024": ({"win_length": 2048, "hop_length": 1024}, {"win_length": 2048, "n_fft": 2048, "hop_length": 1024}),
    "padded": ({"pad": 700}, {"pad": 700}),
    "padded within": ({"pad": 700, "center": False}, {"pad": 700, "center": False}),
    "constant": ({"pad_mode": "constant"}, {"pad_mode": "constant"}),
    "replicate": ({"pad_mode": "replicate", "pad": 3}, {"pad_mode": "replicate", "pad": 3}),
    "circular": ({"pad_mode": "circular"}, {"pad_mode": "circular"}),
    "window's norm": ({"normalized": "window"}, {"normalized": "window"}),
    "fft's norm": (
        {"normalized": "frame_length", "fft": 600},
        {"normalized": "frame_length", "n_fft": 600, "win_length": 400},
    ),
    "kaiser": (
        {"window": "kaiser", "kaiser_beta": 8.0},
        {"window_fn": lambda size, **options: torch.kaiser_window(size, True, 8.0, **options)},
    ),
    "bartlett": ({"window": "bartlett"}, {"window_fn": torch.bartlett_window}),
    "symmetric": ({"window_periodic": False}, {"wkwargs": {"periodic": False}}),
}


def transform(kind: Any, options: dict[str, Any], **more: Any) -> Any:
    """One of torchaudio's, in float64."""
    options = {"n_fft": 400, "hop_length": 160, "win_length": None} | options
    options["wkwargs"] = options.get("wkwargs", {}) | {"dtype": torch.float64}
    if kind is torchaudio.transforms.MFCC:
        mel = options | {"n_mels": 40, "f_min": 20.0}
        return kind(sample_rate=44100, melkwargs=mel, **more).to(torch.float64)
    if kind is torchaudio.transforms.MelSpectrogram:
        return kind(sample_rate=44100, n_mels=40, f_min=20.0, **options, **more).to(torch.float64)
    return kind(**options, **more).to(torch.float64)


@pytest.mark.parametrize("case", STFT)
def test_transform_arguments(case: str) -> None:
    ours, theirs = STFT[case]
    keys = {"win_length": 400, "hop_length": 160, "window": "hanning", "scale": "linear"} | ours
    audio, wave = Audio(sample_rate=44100), waves(3, 7003)
    for name, kind in (("spectrogram", "Spectrogram"), ("mel", "MelSpectrogram")):
        expected = transform(getattr(torchaudio.transforms, kind), theirs)(wave).transpose(1, 2)
        features = Features(name=name, **keys, **({"bins": 40} if name == "mel" else {}))
        for form in forms(features, audio):
            torch.testing.assert_close(form(wave), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"dct_norm": "none"}, {"norm": None}),
        ({"log_mels": True, "ceps": 20}, {"log_mels": True, "n_mfcc": 20}),
    ],
)
def test_torchaudios_mfcc_clip_by_clip(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    keys = {"win_length": 400, "hop_length": 160, "window": "hanning", "bins": 40, "ceps": 40} | ours
    reference = transform(torchaudio.transforms.MFCC, {}, **theirs)
    wave = torch.cat([waves(2, 7003), 1e-5 * waves(1, 7003)])
    expected = torch.stack([reference(row) for row in wave]).transpose(1, 2)
    for form in forms(Features(name="torchaudio_mfcc", **keys), Audio(sample_rate=44100)):
        torch.testing.assert_close(form(wave), expected, rtol=1e-6, atol=1e-5)  # its cosines are float32
    if not theirs.get("log_mels"):
        assert (reference(wave)[2].T - expected[2]).abs().max() > 10  # over the batch a quiet clip changes


RAGGED: dict[str, dict[str, Any]] = {
    "nosnip": {"snip_edges": False},
    "nosnip energy": {"name": "mfcc", "snip_edges": False, "use_energy": True, "raw_energy": False},
    "constant": {"name": "mel", "pad_mode": "constant", "scale": "db", "top_db": 30.0},
    "replicate": {"name": "mel", "pad_mode": "replicate", "pad": 20},
    "circular": {"name": "spectrogram", "pad_mode": "circular"},
    "mfcc": {"name": "torchaudio_mfcc", "top_db": 20.0, "normalized": "window"},
}


@settings(max_examples=40, deadline=None)
@given(
    case=st.sampled_from(sorted(RAGGED)),
    lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    junk=st.sampled_from([7.0, float("nan"), 1e30]),
)
def test_a_padded_row_is_the_row_alone(case: str, lengths: list[int], junk: float) -> None:
    features = Features(**RAGGED[case])
    bank = extractor(Audio(), features, CPU, torch.float64)
    wave, filled = waves(len(lengths), 3000, seed=1), np.array(lengths)
    padded = wave.clone()
    for row, length in enumerate(lengths):
        padded[row, length:] = junk
    for form in forms(features):
        together = form(padded, filled)
        for row, length in enumerate(lengths):
            alone = torch.zeros(1, max(length, bank.size), dtype=torch.float64)
            alone[0, :length] = wave[row, :length]
            count = int(bank.valid(filled)[row])
            assert count == bank.frames(alone.shape[1]) >= 1
            torch.testing.assert_close(together[row, :count], form(alone)[0], rtol=1e-9, atol=1e-6)


def test_a_stereo_clip_has_one_top_level() -> None:
    config = check({"features": {"preset": "cnn4"}}, "test")
    wave = waves(4, 9000) * torch.tensor([[1.0], [1e-5], [1e-6], [1e-6]])  # clips of two channels side by side
    power = torchaudio.transforms.MelSpectrogram(44100, 1024, hop_length=512, n_mels=64, wkwargs={"dtype": wave.dtype})
    decibel = torchaudio.transforms.AmplitudeToDB("power", 80.0)
    expected = torch.cat([decibel(power.to(wave.dtype)(clip)) for clip in (wave[:2], wave[2:])]).transpose(1, 2)
    for form in forms(config.features, config.audio):
        torch.testing.assert_close(form(wave), expected, rtol=1e-9, atol=1e-6)
        part = decibel(power(wave[:2, :5000])).transpose(1, 2)
        shorter = form(wave, np.array([5000, 5000, 9000, 9000]))
        torch.testing.assert_close(shorter[:2, : part.shape[1]], part, rtol=1e-9, atol=1e-6)


def made(preset: str, wave: torch.Tensor) -> list[torch.Tensor]:
    """Features of a preset by both forms, as many as it has, not normalised."""
    config = check({"features": {"preset": preset}}, "test")
    return [form(wave) for form in forms(config.features, config.audio)]


SPEECHBRAIN = {  # frame -> values of bins 0, 5, 20, 40, 60, 79: speechbrain 1.1.2, lobes.features.Fbank(n_mels=80)
    0: [-0.0412, 5.301, 6.5239, -12.3386, -21.8831, -33.9371],
    2: [-41.1681, -32.4858, -20.7482, -37.465, -29.4984, -30.8474],
    5: [-23.7135, -17.1238, -16.3099, -16.2323, -19.8843, -22.7009],
}


def test_speechbrains_fbank() -> None:
    time = np.arange(800)
    wave = 0.4 * np.sin(2 * np.pi * 440 * time / 16000) * np.exp(-time / 300) + 0.05 * np.cos(0.9 * time)
    for out in made("speechbrain", torch.from_numpy(wave)[None]):
        assert out.shape == (1, 6, 80)
        for frame, values in SPEECHBRAIN.items():
            expected = torch.tensor(values, dtype=torch.float64)
            torch.testing.assert_close(out[0, frame, [0, 5, 20, 40, 60, 79]], expected, rtol=0, atol=1e-3)


def power_spectrum(wave_T: np.ndarray, fft: int, hop: int, mirror: bool = True) -> np.ndarray:
    """(frames, lines) of a periodic Hann window as long as the transform."""
    wave_T = np.pad(wave_T, fft // 2, "reflect") if mirror else wave_T
    frames = np.lib.stride_tricks.sliding_window_view(wave_T, fft)[::hop]
    return np.abs(np.fft.rfft(frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)))) ** 2


def slopes(corners: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """(lines, bins) triangles between neighbouring corners."""
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    return np.minimum((lines - left) / (centre - left), (right - lines) / (right - centre)).clip(0)


def htk(hz: Any) -> Any:
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def htk_corners(bins: int, top: float) -> np.ndarray:
    return 700 * (10 ** (np.linspace(0, htk(top), bins + 2) / 2595) - 1)


def test_panns_front_end() -> None:
    step = math.log(6.4) / 27  # Slaney's scale above 1 kHz, which is mel 15
    ends = (50 * 3 / 200, 15 + math.log(14) / step)
    mel = np.linspace(*ends, 66)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * step))
    bank = slopes(corners, np.linspace(0, 16000, 513)[:, None]) * 2 / (corners[2:] - corners[:-2])
    wave = waves(1, 9000)
    expected = 10 * np.log10((power_spectrum(wave[0].numpy(), 1024, 320) @ bank).clip(1e-10))
    for out in made("panns", wave):
        torch.testing.assert_close(out[0], torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_vggish_front_end() -> None:
    wave = waves(1, 6000)
    frames = np.lib.stride_tricks.sliding_window_view(wave[0].numpy(), 400)[::160]
    magnitude = np.abs(np.fft.rfft(frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)), 512))
    low, high = (1127 * np.log(1 + hz / 700) for hz in (125.0, 7500.0))
    bank = slopes(np.linspace(low, high, 66), 1127 * np.log(1 + np.linspace(0, 8000, 257)[:, None] / 700))
    expected = np.log(magnitude @ bank + 0.01)
    for out in made("vggish", wave):
        torch.testing.assert_close(out[0], torch.from_numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("preset", "fft", "hop", "bins"), [("crnn", 2048, 1024, 128), ("resnetish", 1024, 441, 64)])
def test_front_ends_at_44_khz(preset: str, fft: int, hop: int, bins: int) -> None:
    wave = waves(1, 11025)
    bank = slopes(htk_corners(bins, 22050), np.linspace(0, 22050, fft // 2 + 1)[:, None])
    expected = power_spectrum(wave[0].numpy(), fft, hop) @ bank
    expected = np.log(expected) if preset == "resnetish" else expected
    for out in made(preset, wave):
        torch.testing.assert_close(out[0], torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    silent = made(preset, torch.zeros_like(wave))
    assert all(torch.isfinite(out).all() for out in silent)


def batches(config: Any, training: bool, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """A group of clips of both channels through the CPU's front end and the accelerator's."""
    clips = [0.2 * sound(12000 + 3000 * number, 2, seed=number) for number in range(4)]
    rows = index_rows(clips, config.audio.sample_rate)
    ids = np.arange(4)
    plan = train_windows(rows, ids, ids, None, config.audio, Augment(speed=[1]), 0)
    raw = raw_batch(plan if training else eval_windows(rows, ids, config.audio), clips)
    options = {"seed": 0, "device": "cpu", "dtype": dtype}
    made = []
    for kind in (FrontEnd, Batched):
        front = kind(config.audio, Augment(speed=[1]), config.features, **options)
        made.append(front(raw, training))
    return made[0], made[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_both_front_ends_agree_on_every_preset(preset: str) -> None:
    rate = check({"features": {"preset": preset}}, "test").audio.sample_rate
    config = check({"audio": {"seconds": 16000 / rate}, "features": {"preset": preset}}, "test")
    for training in (True, False):
        ours, theirs = batches(config, training)
        torch.testing.assert_close(ours.feat_BTF, theirs.feat_BTF, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*PRESETS, "nosnip"])
def test_what_a_gpu_runs_has_legal_shapes(name: str) -> None:
    """The meta device computes shapes only."""
    keys: dict[str, Any] = {"snip_edges": False, "use_energy": True} if name == "nosnip" else {"preset": name}
    config = check({"audio": {"seconds": 0.5, "short": "pad"}, "features": keys}, "test")
    front = FrontEnd(config.audio, Augment(speed=[1]), config.features, seed=0, device="meta")
    clips = [sound(3000 + 9000 * number, 2, seed=number) for number in range(4)]
    rows = index_rows(clips, config.audio.sample_rate)
    plan = train_windows(rows, np.arange(4), np.arange(4), None, config.audio, Augment(speed=[1]), 0)
    assert front(raw_batch(plan, clips), training=True).feat_BTF.shape == (4, front.frame_count, front.bins)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fixes_every_key_that_makes_features(name: str) -> None:
    features = check({"features": {"preset": name}}, "test").features
    changes: dict[str, Any] = {"pad_mode": "replicate", "pad": 9, "snip_edges": False, "power": 1.5, "bins": 11}
    for key, value in changes.items():
        if features.name not in READ_BY[key]:
            continue
        with pytest.raises(ValueError, match=f"features.{key}: features.preset={name} fixes it to"):
            check({"features": {"preset": name, key: value}}, "test")


def test_whitening_and_batches_are_torchs_std() -> None:
    for preset in ("crnn", "cnn4"):
        config = check({"audio": {"seconds": 0.25}, "features": {"preset": preset}}, "test")
        plain = config.model_copy(update={"features": config.features.model_copy(update={"norm": "none"})})
        ours, raw = batches(config, True)[0].feat_BTF, batches(plain, True)[0].feat_BTF
        over = (1, 2) if preset == "crnn" else (0, 1, 2)
        expected = (raw - raw.mean(over, keepdim=True)) / raw.std(over, keepdim=True)
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_m5_hears_samples_at_8_khz() -> None:
    audio, features = Audio(sample_rate=8000, seconds=4.0), Features(name="waveform", norm="none")
    wave = sound(40000, seed=3)
    front = FrontEnd(audio, Augment(), features, seed=0, device="cpu")
    raw = raw_batch(eval_windows(index_rows([wave], 8000), np.arange(1), audio), [wave])
    first = torch.from_numpy(np.round(wave[:32000] * 32768) / 32768).float()
    torch.testing.assert_close(front(raw, training=False).feat_BTF[0], first, rtol=0, atol=2**-15)
