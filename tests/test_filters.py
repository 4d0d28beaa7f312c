"""Low-pass, high-pass, white noise, codec: against torchaudio and tones; draws that belong to positions."""

from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from clips import plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.effects import chosen, filters
from dist_train.settings import Codec, Pass, White

RATE = 16000


def both_ways(wave: torch.Tensor, cut: float, kind: str) -> torch.Tensor:
    """torchaudio's biquad of a Butterworth filter's Q, forwards and backwards."""
    biquad = {"low": torchaudio.functional.lowpass_biquad, "high": torchaudio.functional.highpass_biquad}[kind]
    return biquad(biquad(wave, RATE, cut, 0.5**0.5).flip(-1), RATE, cut, 0.5**0.5).flip(-1)


def noise(rows: int, channels: int, samples: int, seed: int = 0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(rows, channels, samples, generator=made, dtype=torch.float64) * 0.1


@settings(max_examples=15, deadline=None)
@given(
    low=st.just(0.0) | st.floats(200, 7900),
    high=st.just(0.0) | st.floats(150, 7900),
    samples=st.integers(1, 5000),
    seed=st.integers(0, 2**32),
)
def test_it_is_a_butterworth_filter_forwards_and_backwards(low: float, high: float, samples: int, seed: int) -> None:
    wave = noise(1, 2, samples, seed)
    out = filters.band(wave.clone(), np.array([samples]), np.array([low]), np.array([high]), RATE)
    expected = torch.nn.functional.pad(wave, (RATE // 2, RATE // 2))
    for cut, kind in ((low, "low"), (high, "high")):
        expected = both_ways(expected, cut, kind) if cut else expected
    torch.testing.assert_close(out, expected[..., RATE // 2 : RATE // 2 + samples], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["low", "high"])
@pytest.mark.parametrize("cut", [100.0, 1000.0])
def test_tones_get_the_gain_of_the_formula(kind: str, cut: float) -> None:
    """-6 dB at the cut-off; an octave and two beyond it and before it."""
    time = np.arange(RATE) / RATE
    for ratio in (0.25, 0.5, 1.0, 2.0, 4.0):
        tone = torch.from_numpy(np.sin(2 * np.pi * cut * ratio * time))[None, None]
        cuts, none = np.array([cut]), np.zeros(1)
        pair = (cuts, none) if kind == "low" else (none, cuts)
        out = filters.band(tone.clone(), np.array([RATE]), *pair, RATE)
        gain = float((out[..., 4000:-4000].square().mean() / tone[..., 4000:-4000].square().mean()).sqrt())
        warped = np.tan(np.pi * cut * ratio / RATE) / np.tan(np.pi * cut / RATE)
        assert gain == pytest.approx(1 / (1 + (warped if kind == "low" else 1 / warped) ** 4), rel=1e-3)
        assert ratio != 1 or 20 * np.log10(gain) == pytest.approx(-6.02, abs=0.02)


def test_a_low_cut_off_rings_within_what_is_filtered() -> None:
    wave = noise(1, 1, 48000)
    out = filters.band(wave.clone(), np.array([48000]), np.zeros(1), np.array([20.0]), RATE)[0, 0]
    expected = both_ways(torch.nn.functional.pad(wave[0, 0], (RATE, RATE)), 20.0, "high")[RATE:-RATE]
    assert (out - expected).abs().max() < 1e-4 * expected.abs().max()


def test_cut_offs_are_uniform_in_octaves_and_belong_to_the_position() -> None:
    plan = plan_of(20000)
    cuts = filters.pass_draws(plan, Pass(probability=0.3, hz=(250.0, 4000.0)), "low pass", 1)
    assert abs((cuts > 0).mean() - 0.3) < 0.015
    octaves = np.log2(cuts[cuts > 0] / 250)
    np.testing.assert_allclose(np.quantile(octaves, [0, 0.25, 0.5, 0.75, 1]), [0, 1, 2, 3, 4], atol=0.07)
    some = np.array([9, 3, 19999])
    again = filters.pass_draws(plan[some], Pass(probability=0.3, hz=(250.0, 4000.0)), "low pass", 1)
    np.testing.assert_array_equal(cuts[some], again)
    assert not filters.pass_draws(plan, None, "low pass", 1).any()


def test_white_noise_has_the_deviation_or_the_ratio_asked_for() -> None:
    plan, wave = plan_of(40, 20000, 20000), noise(40, 2, 20000)
    filled = np.full(40, 20000)
    filled[:20] = 8000
    wave[:20, :, 8000:] = 0
    for asked, level in ((White(sigma=(0.001, 0.01)), "sigma"), (White(snr_db=(0.0, 20.0)), "snr_db")):
        out = filters.add_white(wave.clone(), filled, plan, asked, 2)
        added = out - wave
        changed = (added != 0).flatten(1).any(1).numpy()
        assert 0.2 < changed.mean() < 0.8
        levels = []
        for row in np.flatnonzero(changed):
            end = filled[row]
            assert not added[row, :, end:].any()
            power = float(added[row, :, :end].square().mean())
            signal_power = float(wave[row, :, :end].square().mean())
            levels.append(np.sqrt(power) if level == "sigma" else 10 * np.log10(signal_power / power))
            assert abs(float((added[row, 0, :end] * added[row, 1, :end]).mean())) < 0.1 * power
        low, high = getattr(asked, level)
        assert low * 0.95 - 0.2 < min(levels) < max(levels) < high * 1.05 + 0.2
        assert max(levels) - min(levels) > (high - low) / 2


def test_system_bs_white_noise() -> None:
    """A share of .3, a deviation of .001."""
    plan, wave = plan_of(2000), torch.zeros(2000, 1, 100)
    added = filters.add_white(wave, np.full(2000, 100), plan, White(probability=0.3, sigma=(0.001, 0.001)), 0)
    noisy = added[added.flatten(1).any(1)]
    assert abs(len(noisy) / 2000 - 0.3) < 0.03
    assert float(noisy.std()) == pytest.approx(0.001, rel=0.02)


def test_mu_law_is_torchaudios() -> None:
    wave = torch.cat([torch.linspace(-1.5, 1.5, 20000), torch.logspace(-5.9, 0, 5000), torch.zeros(1)]).double()
    coded = torchaudio.functional.mu_law_encoding(wave.clamp(-1, 1), 256)
    expected = torchaudio.functional.mu_law_decoding(coded, 256)
    torch.testing.assert_close(filters.mulaw(wave), expected.double(), rtol=0, atol=1e-6)
    assert len(filters.mulaw(wave).unique()) == 256


def test_silence_stays_one_level() -> None:
    """Two levels meet at 0: rounding errors must not choose between them."""
    levels = filters.mulaw(torch.tensor([0.0, 1e-17, -1e-17, 1e-7, -1e-7]))
    assert len(levels.unique()) == 1
    assert levels.abs().max() < 1e-4


def test_the_codec_has_its_band_and_its_share() -> None:
    plan, wave = plan_of(300, 4000, 4000), noise(300, 1, 4000)
    filled = np.full(300, 4000)
    filled[0] = 1000
    wave[0, :, 1000:] = 0
    plain = filters.coded(wave.clone(), filled, plan, Codec(probability=0.4), RATE, 0)
    changed = (plain != wave).flatten(1).any(1).numpy()
    assert abs(changed.mean() - 0.4) < 0.08
    narrow = filters.coded(wave.clone(), filled, plan, Codec(probability=0.4, band_hz=2000.0), RATE, 0)
    assert ((narrow != wave).flatten(1).any(1).numpy() == changed).all()
    cut = np.where(changed, 2000.0, 0.0)
    expected = filters.band(wave.clone(), filled, cut, np.zeros(300), RATE)
    expected[changed] = filters.mulaw(expected[changed])
    expected[0, :, 1000:] = 0
    torch.testing.assert_close(narrow, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_the_same_alone_and_all_at_once(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, wave, filled = plan_of(11, 3000, 3000), noise(11, 2, 3000).to(dtype), np.linspace(1, 3000, 11).astype(int)
    low = filters.pass_draws(plan, Pass(hz=(500.0, 4000.0)), "low pass", 0)
    high = filters.pass_draws(plan, Pass(hz=(50.0, 400.0)), "high pass", 0)

    def change(rows: np.ndarray) -> torch.Tensor:
        out = filters.band(wave[rows].clone(), filled[rows], low[rows], high[rows], RATE)
        out = filters.add_white(out, filled[rows], plan[rows], White(snr_db=(0.0, 20.0)), 0)
        return filters.coded(out, filled[rows], plan[rows], Codec(), RATE, 0)

    by_row = change(np.arange(11))
    for row in range(11):
        assert torch.equal(change(np.array([row]))[0], by_row[row])
    monkeypatch.setattr(chosen, "alone", chosen.together)
    at_once = change(np.arange(11))
    close = (at_once - by_row).abs() < (1e-12 if dtype == torch.float64 else 1e-6)
    assert close.double().mean() > 0.999  # a rounding error may choose the next level of the codec
