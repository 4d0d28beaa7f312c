"""Spectrograms: equal to torchaudio's transforms, exact on ragged batches, a clip's level its own.

Two results are equal where, in linear values, no bin differs by more than a share of the row's loudest: 2e-6 in
float32, 1e-10 in float64. (A quiet bin's logarithm shows the rounding errors of the loud ones, in torchaudio as here.)
"""

from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.settings import Audio, Features
from dist_train.spectra import mel, spectrogram
from dist_train.spectra.spectrogram import Spectrogram

CPU = torch.device("cpu")
WINDOWS = {
    "hanning": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "rectangular": torch.ones,
    "povey": lambda size, **options: torch.hann_window(size, **options) ** 0.85,
}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (16000, {"bins": 40}),
    "default": (16000, {"window": "povey", "scale": "ln"}),
    "crnn": (44100, {"fft": 2048, "frame_length": 40.0, "frame_shift": 20.0, "bins": 128, "low_freq": 0.0}),
    "cnn4": (32000, {"frame_length": 32.0, "bins": 64, "scale": "db", "top_db": 80.0, "low_freq": 50.0}),
    "fsdkaggle": (44100, {"fft": 2048, "frame_length": 40.0, "bins": 128, "scale": "ln", "high_freq": 22050.0}),
    "slaney": (22050, {"frame_length": 46.43990929705215, "mel_scale": "slaney", "mel_norm": "slaney", "power": 1.0}),
    "odd": (16000, {"frame_length": 25.0625, "fft": 513, "bins": 32, "window": "blackman", "power": 1.0}),
    "within": (8000, {"center": False, "fft": 512, "bins": 23, "window": "hamming", "high_freq": -400.0}),
    "cubed": (8000, {"power": 3.0, "fft": 256, "bins": 20, "window": "rectangular", "waveform_scale": 32768.0}),
    "lines": (16000, {"name": "spectrogram", "fft": 512, "frame_shift": 12.5}),
    "magnitude": (16000, {"name": "spectrogram", "power": 1.0, "scale": "db", "top_db": 60.0}),
}


def build(case: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Spectrogram:
    rate, options = CASES[case]
    options = {"name": "mel", "scale": "linear", "window": "hanning"} | options | changes
    return Spectrogram(Audio(sample_rate=rate), Features(**options), CPU, dtype)


def reference(case: str, wave_BT: torch.Tensor) -> torch.Tensor:
    """The clips one by one through torchaudio's transforms."""
    bank, dtype = build(case), wave_BT.dtype
    rate, keys = CASES[case][0], bank.settings
    options: dict[str, Any] = {
        "n_fft": bank.fft,
        "win_length": int(rate * keys.frame_length / 1000 + 1e-6),
        "hop_length": int(rate * keys.frame_shift / 1000),
        "window_fn": WINDOWS[keys.window],
        "wkwargs": {"dtype": dtype},
        "power": keys.power,
        "center": keys.center,
    }
    if keys.name == "mel":
        edge = keys.high_freq if keys.high_freq > 0 else rate / 2 + keys.high_freq
        options |= {"sample_rate": rate, "f_min": keys.low_freq, "f_max": edge, "n_mels": keys.bins}
        options |= {"mel_scale": keys.mel_scale, "norm": None if keys.mel_norm == "none" else "slaney"}
        transform = torchaudio.transforms.MelSpectrogram(**options).to(dtype)
    else:
        transform = torchaudio.transforms.Spectrogram(**options)
    decibel = torchaudio.transforms.AmplitudeToDB("power" if keys.power == 2 else "magnitude", keys.top_db)
    made = [transform(row * keys.waveform_scale) for row in wave_BT]
    if keys.scale != "linear":
        made = [decibel(row) if keys.scale == "db" else row.clamp(min=1e-10).log() for row in made]
    return torch.stack(made).transpose(1, 2)


def linear(value: torch.Tensor, keys: Features) -> torch.Tensor:
    """The scale undone, in float64."""
    value = value.double()
    if keys.scale == "db":
        return 10 ** (value / (10 if keys.power == 2 else 20))
    return value.exp() if keys.scale == "ln" else value


def worst(out: torch.Tensor, expected: torch.Tensor, keys: Features) -> float:
    """Largest difference, as a share of its row's loudest value."""
    assert out.shape == expected.shape
    left, right = linear(out, keys), linear(expected, keys)
    return float(((left - right).abs().amax((1, 2)) / right.amax((1, 2)).clamp(min=1e-20)).max())


def clips(rows: int, samples: int) -> torch.Tensor:
    """Noise, tones and an offset at levels 60 dB apart, float64."""
    noise = torch.from_numpy(np.random.default_rng(rows).standard_normal((rows, samples)))
    tone = torch.sin(torch.arange(samples, dtype=torch.float64) * 0.17)
    level = torch.logspace(-4, -0.5, rows, dtype=torch.float64)[:, None]
    return noise * level + 0.3 * tone * (torch.arange(rows) % 2)[:, None] + 0.02


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 2e-6), (torch.float64, 1e-10)], ids=["f32", "f64"])
def test_equals_torchaudio(case: str, dtype: torch.dtype, share: float) -> None:
    wave, bank = clips(5, 30011).to(dtype), build(case, dtype)
    expected = reference(case, wave)
    assert bank(wave).dtype == dtype
    assert worst(bank(wave), expected, bank.settings) <= share
    assert worst(bank.batched(wave), expected, bank.settings) <= share


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["none", "slaney"])
@pytest.mark.parametrize(
    ("bins", "fft", "rate", "low", "high"),
    [(80, 400, 16000, 20.0, 0.0), (128, 2048, 44100, 0.0, 22050.0), (64, 1024, 32000, 50.0, 14000.0)],
)
def test_triangles_are_torchaudios(
    bins: int, fft: int, rate: int, low: float, high: float, scale: str, norm: str
) -> None:
    top = high if high > 0 else rate / 2 + high
    form = (None if norm == "none" else norm, scale)
    expected = torchaudio.functional.melscale_fbanks(fft // 2 + 1, low, top, bins, rate, *form)
    keys = Features(name="mel", bins=bins, low_freq=low, high_freq=high, mel_scale=scale, mel_norm=norm)
    assert torch.equal(mel.triangles(keys, fft, rate), expected)


def test_blocks_hold_the_whole_bank() -> None:
    bank = mel.triangles(Features(name="mel", bins=40, low_freq=0.0), 512, 16000)
    for count in (1, 3, 4, 40):
        whole = torch.zeros_like(bank)
        for lines, bins, matrix in mel.blocks(bank, count):
            whole[lines, bins] = matrix
        assert torch.equal(whole, bank)


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(sorted(CASES)),
    lengths=st.lists(st.integers(0, 5000), min_size=1, max_size=5),
    junk=st.sampled_from([7.0, float("nan"), float("-inf"), 1e30]),
)
def test_padding_is_never_seen(case: str, lengths: list[int], junk: float) -> None:
    bank, samples = build(case), 5000
    wave = clips(len(lengths), samples).float()
    padded, filled = wave.clone(), np.array(lengths)
    for row, length in enumerate(lengths):
        padded[row, length:] = junk
    valid = bank.valid(filled)
    assert valid.dtype == np.int64
    together, batched = bank(padded, filled), bank.batched(padded, torch.from_numpy(filled))
    assert together.shape == batched.shape == (len(lengths), bank.frames(samples), bank.bins)
    assert torch.isfinite(together).all()
    assert torch.isfinite(batched).all()
    for row, length in enumerate(lengths):
        alone = torch.zeros(1, max(length, bank.size))
        alone[0, :length] = wave[row, :length]
        expected, count = bank(alone), int(valid[row])
        assert count == expected.shape[1] >= 1
        assert torch.equal(together[row, :count], expected[0])
        if length:
            assert worst(batched[row : row + 1, :count], expected, bank.settings) <= 4e-6


@settings(max_examples=40, deadline=None)
@given(data=st.data(), center=st.booleans(), length=st.integers(2, 90), shift=st.integers(1, 90))
def test_frames_are_torchaudios(data: st.DataObject, center: bool, length: int, shift: int) -> None:
    fft = data.draw(st.integers(length, 130))
    keys = Features(name="spectrogram", fft=fft, frame_length=length, frame_shift=shift, center=center)
    bank = Spectrogram(Audio(sample_rate=1000), keys, CPU)
    samples = data.draw(st.integers(bank.size, 400))
    transform = torchaudio.transforms.Spectrogram(fft, length, shift, center=center)
    count = transform(torch.ones(samples)).shape[1]
    assert bank(torch.ones(2, samples)).shape[1] == count == bank.frames(samples)
    assert bank.valid(np.array([samples])).tolist() == [count]
    assert bank.frames(bank.size - 1) == bank(torch.ones(2, bank.size - 1)).shape[1] == 0
    assert bank.valid(np.array([0])).tolist() == [bank.frames(bank.size)]
    assert bank.batched(torch.ones(2, bank.size - 1)).shape == (2, 0, fft // 2 + 1)


@pytest.mark.parametrize("case", CASES)
def test_a_row_does_not_depend_on_the_others(case: str) -> None:
    bank, wave = build(case), clips(9, 9000).float()
    filled = np.array([9000, 100, 8999, 4000, 9000, 2500, 1, 7000, 9000])
    together = bank(wave, filled)
    for order in ([8, 3, 0], [1], [5, 5, 2, 7, 6]):
        assert torch.equal(bank(wave[order], filled[order]), together[order])
    assert torch.equal(bank(wave), bank(wave, np.full(9, 9000)))


def test_many_blocks_of_frames_are_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in ("cnn4", "magnitude"):
        bank, wave = build(case), clips(5, 20000).float()
        filled = np.array([20000, 900, 11111, 5, 20000])
        whole, batched = bank(wave, filled), bank.batched(wave, torch.from_numpy(filled))
        with monkeypatch.context() as patch:
            patch.setattr(spectrogram, "CPU_SAMPLES", 7 * bank.fft)
            patch.setattr(spectrogram, "GPU_SAMPLES", 2 * bank.frames(20000) * bank.fft)
            parts, chunks = bank(wave, filled), bank.batched(wave, torch.from_numpy(filled))
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-3)
        torch.testing.assert_close(chunks, batched, rtol=0, atol=1e-3)


def test_top_db_is_of_the_clip() -> None:
    """torchaudio takes the loudest value of all (clips, bins, frames): a quiet clip changes beside a loud one."""
    bank, keys = build("cnn4"), CASES["cnn4"][1]
    wave = torch.stack([torch.randn(32000) * 1e-5, torch.randn(32000)])
    out = bank(wave)
    assert torch.equal(out[:1], bank(wave[:1]))
    upstream = torchaudio.transforms.AmplitudeToDB("power", keys["top_db"])
    powers = build("cnn4", scale="linear", top_db=None)(wave).transpose(1, 2)
    torch.testing.assert_close(out[0], upstream(powers[0]).T, rtol=0, atol=1e-4)
    assert (upstream(powers)[0].T - out[0]).abs().max() > 1
    loud_tail = wave[:1].clone()
    loud_tail[:, 20000:] = 1.0
    for made in (bank(loud_tail, np.array([20000])), bank.batched(loud_tail, torch.tensor([20000]))):
        count = bank.frames(20000)
        torch.testing.assert_close(made[:, :count], bank(wave[:1, :20000]), rtol=0, atol=1e-4)


def test_what_a_gpu_runs_has_legal_shapes_and_strides() -> None:
    """The meta device computes shapes only."""
    for case, (rate, options) in CASES.items():
        keys = Features(**{"name": "mel", "window": "hanning"} | options)
        bank = Spectrogram(Audio(sample_rate=rate), keys, torch.device("meta"))
        wave = torch.empty(6, 9000, device="meta")
        for filled in (None, np.array([9000, 5, 800, 9000, 1, 2])):
            assert bank(wave, filled).shape == build(case)(torch.zeros(6, 9000)).shape


def test_settings_that_make_no_frame() -> None:
    with pytest.raises(ValueError, match=r"features.fft=256 is shorter than a frame, 400 samples .* give a longer fft"):
        build("plain", fft=256)
    with pytest.raises(ValueError, match=r"features.high_freq=9000 do not fit audio.sample_rate=16000"):
        build("plain", high_freq=9000.0)
    with pytest.raises(ValueError, match=r"frame_shift=0.01 ms"):
        build("plain", frame_shift=0.01)
