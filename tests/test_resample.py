"""Resampling: equal to torchaudio's transforms; too large filters are refused with the way out."""

import math
from fractions import Fraction

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.resample import Ratio, Resampler, Resamplers, rate_ratio, speed_ratio

CPU = torch.device("cpu")
RATIOS = [(9, 10), (11, 10), (23, 20), (441, 160), (441, 320), (160, 147), (1, 2), (3, 1), (2, 1), (4, 5), (1, 6)]


@pytest.mark.parametrize(("orig", "new"), RATIOS)
def test_equal_to_torchaudio_bit_for_bit(orig: int, new: int) -> None:
    ratio = Ratio(orig, new)
    wave = torch.randn(3, 20011, generator=torch.Generator().manual_seed(orig))
    expected = torchaudio.transforms.Resample(orig, new)(wave)
    samples = ratio.length(wave.shape[1])
    assert samples == expected.shape[1]
    padded = torch.nn.functional.pad(wave, (ratio.width, 0))
    out = Resamplers(CPU).convert(padded[:, None], ratio, samples)[:, 0]
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("orig", "new"), [(9, 10), (441, 160), (3, 1)])
def test_float64(orig: int, new: int) -> None:
    ratio = Ratio(orig, new)
    wave = torch.randn(2, 5003, dtype=torch.float64)
    expected = torchaudio.transforms.Resample(orig, new, dtype=torch.float64)(wave)
    padded = torch.nn.functional.pad(wave, (ratio.width, 0))
    out = Resamplers(CPU, torch.float64).convert(padded[:, None], ratio, expected.shape[1])[:, 0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RATIOS), st.integers(1, 3000), st.integers(1, 4))
def test_any_length_and_number_of_rows(parts: tuple[int, int], length: int, rows: int) -> None:
    ratio = Ratio(*parts)
    wave = torch.randn(rows, length, generator=torch.Generator().manual_seed(length))
    expected = torchaudio.transforms.Resample(*parts)(wave)
    assert ratio.length(length) == expected.shape[1]
    padded = torch.nn.functional.pad(wave, (ratio.width, 0))
    out = Resamplers(CPU).convert(padded[:, None], ratio, expected.shape[1])[:, 0]
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_batched_product_of_a_device_equals_the_rows() -> None:
    """The form that runs on CUDA, on the meta device: shapes and strides are legal."""
    resampler = Resampler(Ratio(441, 160), torch.device("meta"))
    samples = 16000
    out = resampler(torch.empty(3, resampler.needed(samples), device="meta"), samples)
    assert out.shape == (3, samples)


def test_lengths_are_exact_where_floats_are_not() -> None:
    samples = 9 * 12345679
    assert Ratio(9, 10).length(samples) == 123456790
    assert Ratio(9, 10).length(samples + 1) == 123456792 == math.ceil(Fraction(10 * (samples + 1), 9))


def test_large_filters_are_refused() -> None:
    assert rate_ratio(44100, 16000) == Ratio(441, 160)
    with pytest.raises(ValueError, match=r"clips at 44101 Hz .*audio.sample_rate=16000.*--sample-rate"):
        rate_ratio(44101, 16000)
    with pytest.raises(ValueError, match=r"augment.speed has the factor 9001/10000.*such as 23/20"):
        speed_ratio(Fraction(9001, 10000))
