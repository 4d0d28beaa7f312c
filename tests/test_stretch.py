"""Time stretch: torchaudio's phase vocoder between torch's STFT and its inverse, in float64; lengths, places, draws."""

from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from clips import plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.effects import chosen
from dist_train.effects.stretch import StretchDraws, stretch, stretch_draws, vocoded
from dist_train.settings import Stretch


def reference(sound_CT: torch.Tensor, rate: float, fft: int) -> torch.Tensor:
    """(C, round(T / rate)) by torch.stft, torchaudio.functional.phase_vocoder and torch.istft."""
    window, hop = torch.hann_window(fft, dtype=sound_CT.dtype), fft // 4
    spectrum = torch.stft(sound_CT, fft, hop, window=window, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, np.pi * hop, fft // 2 + 1, dtype=sound_CT.dtype)[:, None]
    stretched = torchaudio.functional.phase_vocoder(spectrum, rate, advance)
    return torch.istft(stretched, fft, hop, window=window, length=max(1, round(sound_CT.shape[1] / rate)))


def sounds(rows: int, channels: int, samples: int, seed: int) -> torch.Tensor:
    """A gliding tone in noise."""
    made = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, channels, samples, generator=made, dtype=torch.float64) * 0.05
    return noise + 0.3 * torch.sin(torch.arange(samples).double().square() * 2e-5)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 2),
    samples=st.integers(600, 6000),
    share=st.floats(0.1, 1),
    rate=st.floats(0.26, 3.9),
    fft=st.sampled_from([64, 128, 512]),
    seed=st.integers(0, 2**32),
)
def test_it_is_torchaudios_phase_vocoder(
    channels: int, samples: int, share: float, rate: float, fft: int, seed: int
) -> None:
    rate += 1e-4 * np.sqrt(2)  # where k * rate is a whole number, rounding picks the pair of frames
    filled, wave = max(fft, int(share * samples)), sounds(1, channels, samples, seed)
    made = vocoded(wave, np.array([filled]), np.array([rate]), fft)[0]
    expected = reference(wave[0, :, :filled], rate, fft)
    kept = min(samples, expected.shape[1])
    torch.testing.assert_close(made[:, :kept], expected[:, :kept], rtol=0, atol=1e-8)


def test_phases_do_not_drift_in_float32() -> None:
    wave = sounds(1, 1, 48000, 0)
    made = vocoded(wave.float(), np.array([48000]), np.array([0.87]), 512)[0]
    torch.testing.assert_close(made.double(), reference(wave[0], 0.87, 512)[:, :48000], rtol=0, atol=3e-5)


@pytest.mark.parametrize("rate", [0.7, 1.0, 1.37])
def test_a_tone_keeps_its_pitch_and_a_rate_of_one_the_sound(rate: float) -> None:
    tone = torch.sin(2 * np.pi * 440 * torch.arange(16000).double() / 16000)[None, None]
    made = vocoded(tone, np.array([16000]), np.array([rate]), 1024)[0, 0, : min(16000, round(16000 / rate))]
    middle = made[2000:-2000] * torch.hann_window(len(made) - 4000, dtype=torch.float64)
    peak = float(torch.fft.rfft(middle, 2**16).abs().argmax()) * 16000 / 2**16
    assert abs(peak - 440) < 1
    if rate == 1:
        torch.testing.assert_close(made, tone[0, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("short", ["tile", "pad", "random_pad"])
def test_what_is_shorter_is_filled_up_and_what_is_longer_cut(short: str) -> None:
    plan, wave = plan_of(40, 2000, 2000), sounds(40, 1, 2000, 1)
    filled = np.full(40, 2000)
    draws = stretch_draws(plan, filled, Stretch(probability=0.7, rate=(0.5, 2.0), fft=128), short, 3)
    out = stretch(wave.clone(), filled, plan, draws, 128)
    assert 0.4 < draws.chosen.mean() < 0.95
    for row in range(40):
        made, offset = int(draws.made[row]), int(draws.offset[row])
        if not draws.chosen[row]:
            assert torch.equal(out[row], wave[row])
            continue
        assert made == min(2000, round(2000 / draws.rate[row]))
        sound = vocoded(wave[row : row + 1], filled[:1], draws.rate[row : row + 1], 128)[0, :, :made]
        expected = torch.zeros(1, 2000, dtype=torch.float64)
        expected[:, offset : offset + made] = sound
        if short == "tile":
            expected = sound.repeat(1, 5)[:, :2000]
        assert offset == 0 or short == "random_pad"
        torch.testing.assert_close(out[row], expected, rtol=0, atol=1e-12)
    short_ones = draws.made[draws.chosen] < 2000
    assert 0.3 < short_ones.mean() < 0.95


def test_draws_have_the_share_and_range_and_belong_to_the_position() -> None:
    plan, filled = plan_of(20000), np.full(20000, 100)
    asked = Stretch(probability=0.4, rate=(0.6, 1.4))
    draws = stretch_draws(plan, filled, asked, "tile", 5)
    assert abs(draws.chosen.mean() - 0.4) < 0.015
    np.testing.assert_allclose(np.quantile(draws.rate, [0.0, 0.25, 0.5, 1.0]), [0.6, 0.8, 1.0, 1.4], atol=0.01)
    some = np.array([7, 19999, 3])
    again = stretch_draws(plan[some], filled[some], asked, "tile", 5)
    for whole, part in zip(draws, again, strict=True):
        np.testing.assert_array_equal(whole[some], part)
    assert (stretch_draws(plan, filled, asked, "tile", 6).rate != draws.rate).mean() > 0.9


def test_silence_and_empty_rows() -> None:
    plan, wave = plan_of(3, 300, 300), torch.zeros(3, 2, 300)
    filled = np.array([300, 0, 1])
    draws = stretch_draws(plan, filled, Stretch(probability=1.0, fft=64), "pad", 0)
    assert draws.chosen.tolist() == [True, False, True]
    assert not stretch(wave, filled, plan, draws, 64).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_alone_and_all_at_once(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, wave = plan_of(11, 3000, 3000), sounds(11, 2, 3000, 2).to(dtype)
    filled = np.linspace(500, 3000, 11).astype(np.int64)
    draws = stretch_draws(plan, filled, Stretch(probability=0.8, rate=(0.6, 1.4), fft=256), "pad", 0)

    def change(rows: np.ndarray) -> torch.Tensor:
        return stretch(wave[rows].clone(), filled[rows], plan[rows], StretchDraws(*(one[rows] for one in draws)), 256)

    by_row = change(np.arange(11))
    for row in range(11):
        assert torch.equal(change(np.array([row]))[0], by_row[row])
    monkeypatch.setattr(chosen, "alone", chosen.together)
    torch.testing.assert_close(change(np.arange(11)), by_row, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-5)
