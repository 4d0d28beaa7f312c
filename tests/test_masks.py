"""SpecAugment: masks within bins and valid frames, and what fills them."""

import numpy as np
import pytest
import torch
from clips import plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.effects import masks
from dist_train.settings import SpecAugment


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 300), share=st.floats(0, 1), width=st.integers(0, 200), seed=st.integers(0, 2**32))
def test_masks_stay_within_bins_and_valid_frames(frames: int, share: float, width: int, seed: int) -> None:
    spec = SpecAugment(freq_width=width, time_width=share)
    plan = plan_of(20)
    freq, time = masks.bands(plan, np.full(20, frames), 80, spec, seed)
    for spans, size, widest in ((freq, 80, width), (time, frames, share * frames)):
        assert spans.shape == (2, 20, 2)
        assert spans.min() >= 0
        assert spans.max() <= size
        assert ((spans[1] >= spans[0]) & (spans[1] - spans[0] <= widest)).all()


def test_masks_reach_everywhere_and_their_share_is_kept() -> None:
    plan = plan_of(4000)
    freq, time = masks.bands(plan, np.full(4000, 100), 80, SpecAugment(probability=0.25), seed=0)
    used = (freq[1] > freq[0]).any(1) | (time[1] > time[0]).any(1)
    assert 0.22 < used.mean() < 0.28
    assert freq[1].max() == 80
    assert time[1].max() == 100
    assert (freq[1] - freq[0]).max() == 8
    assert (time[1] - time[0]).max() == 10


def test_mask_fills() -> None:
    feat = torch.ones(2, 6, 5)
    freq = np.array([[[1], [0]], [[3], [0]]])
    time = np.array([[[0], [4]], [[0], [6]]])
    out = masks.mask(feat, freq, time, torch.tensor([7.0, 9.0])[:, None, None])
    assert out[0, 0].tolist() == [1, 7, 7, 1, 1]
    assert out[1, :, 0].tolist() == [1, 1, 1, 1, 9, 9]


def test_widths_as_a_share_of_bins() -> None:
    plan, frames = plan_of(4000), np.full(4000, 100)
    for bins, share, widest in ((64, 0.1, 6), (80, 0.25, 20)):
        freq, _ = masks.bands(plan, frames, bins, SpecAugment(freq_width=share), seed=0)
        whole, _ = masks.bands(plan, frames, bins, SpecAugment(freq_width=widest), seed=0)
        np.testing.assert_array_equal(freq, whole)
        assert (freq[1] - freq[0]).max() == widest


def test_noise_that_fills_has_the_mean_and_deviation_of_what_counts() -> None:
    frames = torch.tensor([100, 60])
    feat = torch.randn(2, 100, 40, generator=torch.Generator().manual_seed(0)).double() * 3 - 7
    feat[1, 60:] = 0
    keys = masks.mask_keys(plan_of(2), SpecAugment(fill="noise"), 0)
    fill = masks.filling(feat, frames, "noise", torch.from_numpy(keys))
    for row, end in enumerate(frames.tolist()):
        assert float(fill[row].mean()) == pytest.approx(float(feat[row, :end].mean()), abs=0.2)
        assert float(fill[row].std()) == pytest.approx(float(feat[row, :end].std()), rel=0.05)
    whole = np.array([[[0], [0]], [[40], [0]]]), np.array([[[0], [10]], [[0], [13]]])
    out = masks.mask(feat.clone(), *whole, fill)
    assert torch.equal(out[0], fill[0])
    assert torch.equal(out[1, 10:13], fill[1, 10:13])
    assert torch.equal(out[1, 13:], feat[1, 13:])
    alone = masks.filling(feat[1:], frames[1:], "noise", torch.from_numpy(keys[1:]))
    assert torch.equal(alone[0], fill[1])
    assert masks.filling(feat, frames, "zero", None) == 0.0
    torch.testing.assert_close(masks.filling(feat, frames, "mean", None)[1, 0, 0], feat[1, :60].mean())
