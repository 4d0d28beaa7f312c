"""Mixup and CutMix: pairs that belong to (seed, position), sums and parts as written, labels by what is heard."""

import numpy as np
import pytest
import torch
from clips import plan_of

from dist_train.effects import mixing
from dist_train.effects.acoustics import loudness
from dist_train.effects.mixing import Pairs
from dist_train.settings import Augment, CutMix, Mixup


def drawn(plan: np.ndarray, augment: Augment, seed: int, bins: int = 80) -> Pairs:
    """Pairs of windows that count up to their length; a frame is ten samples."""
    return mixing.pairs(plan, augment, plan["length"].astype(np.int64), lambda filled: filled // 10, bins, seed)


def summed(partner: np.ndarray, weight: np.ndarray) -> Pairs:
    weight = np.asarray(weight, np.float32)
    return Pairs(partner, weight, weight, *mixing.alone(len(partner))[3:])


def test_mixup_pairs() -> None:
    plan = plan_of(2000)
    plan["weight"][7] = 0
    partner, weight = drawn(plan, Augment(mixup=Mixup(probability=0.5, alpha=0.4)), 3)[:2]
    mixed = weight < 1
    assert 0.45 < mixed.mean() < 0.55
    assert (partner[mixed] != np.flatnonzero(mixed)).all()
    assert (partner[~mixed] == np.flatnonzero(~mixed)).all()
    assert not mixed[7]
    assert 7 not in partner[mixed]
    alone = drawn(plan[:1], Augment(mixup=Mixup(probability=1.0)), 3)
    assert (alone[0].tolist(), alone[1].tolist()) == ([0], [1.0])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0, 16.0])
def test_mixup_weights_follow_the_beta_distribution(alpha: float) -> None:
    partner, weight = drawn(plan_of(100000), Augment(mixup=Mixup(probability=1.0, alpha=alpha)), 1)[:2]
    expected = np.random.default_rng(0).beta(alpha, alpha, 400000)
    shares = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(np.quantile(weight, shares), np.quantile(expected, shares), atol=0.012)
    assert np.bincount((partner - np.arange(100000)) % 100000 * 10 // 100000).min() > 9500


def test_mix_uses_partners_as_they_were() -> None:
    wave = torch.tensor([[[1.0]], [[10.0]], [[100.0]]])
    out = mixing.mix(wave.clone(), summed(np.array([1, 2, 2]), np.array([0.5, 0.25, 1.0], np.float32)))
    assert out.flatten().tolist() == [5.5, 77.5, 100.0]


@pytest.mark.parametrize("loud", [1.0, 0.01, 30.0])
def test_between_class_mixing_is_by_sound_pressure(loud: float) -> None:
    """Sounds alike but for their level, of which G1 - G2 is known: the formula in float64."""
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 1, 2048 * 4)) * 0.05
    pair = torch.from_numpy(np.stack([one, two, loud * one])).float()
    weight = np.array([0.3, 1.0, 1.0], np.float32)
    out = mixing.mix(pair.clone(), summed(np.array([2, 1, 2]), weight), "between_class")
    p = 1 / (1 + 10 ** (-20 * np.log10(loud) / 20) * (1 - 0.3) / 0.3)
    expected = (p + (1 - p) * loud) * one / np.sqrt(p**2 + (1 - p) ** 2)
    np.testing.assert_allclose(out[0], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(out[1:], pair[1:])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_between_class_mixing_keeps_the_ratio_of_pressures(share: float) -> None:
    """The mixed-in parts are heard as r to 1 - r, whatever the levels were, at the energy of sounds as loud."""
    sounds = torch.randn(2, 1, 16000) * torch.tensor([0.3, 0.002])[:, None, None]
    mixed = mixing.mix(sounds.clone(), summed(np.array([1, 1]), np.array([share, 1], np.float32)), "between_class")[
        0, 0
    ]
    parts = torch.linalg.lstsq(sounds[:, 0].T.double(), mixed[:, None].double()).solution[:, 0]
    heard = parts * loudness(sounds, 16000).double()
    assert float(heard[0] / heard[1]) == pytest.approx(share / (1 - share), rel=1e-3)
    assert float(parts.square().sum()) == pytest.approx(1, rel=1e-3)


def test_a_share_of_one_is_the_sound_itself() -> None:
    loud = torch.rand(50) + 1e-4
    own, rest = mixing.pressures(loud, loud.flip(0), torch.ones(50))
    assert (own == 1).all()
    assert (rest == 0).all()


def test_between_class_mixing_of_silence() -> None:
    sounds = torch.zeros(3, 2, 300)
    sounds[2] = torch.randn(2, 300)
    for partner in ([1, 2, 0], [2, 0, 1]):
        for share in (0.0, 1e-7, 0.5, 0.999999):
            weight = np.full(3, share, np.float32)
            out = mixing.mix(sounds.clone(), summed(np.array(partner), weight), "between_class", 8000)
            assert torch.isfinite(out).all()
            assert out.abs().max() <= sounds.abs().max() * 1.001


@pytest.mark.parametrize("kind", ["linear", "between_class"])
def test_a_mix_depends_on_its_pair_only(kind: str) -> None:
    sounds, partner = torch.randn(6, 2, 5000), np.array([3, 2, 2, 0, 4, 1])
    weight = np.array([0.2, 0.7, 1.0, 0.5, 1.0, 0.9], np.float32)
    together = mixing.mix(sounds.clone(), summed(partner, weight), kind)
    for row, other in enumerate(partner):
        alone = mixing.mix(sounds[[row, other]].clone(), summed(np.array([1, 1]), np.array([weight[row], 1.0])), kind)
        assert torch.equal(alone[0], together[row])


CUT = Augment(mixup=Mixup(probability=0.3), cutmix=CutMix(probability=0.4))
BOX = Augment(mixup=Mixup(probability=0.3), cutmix=CutMix(probability=0.4, part="box"))


def mixed_plan(rows: int) -> np.ndarray:
    plan = plan_of(rows, 1000, 1000)
    plan["length"] = np.random.default_rng(0).integers(10, 1001, rows)
    plan["weight"][5] = 0
    return plan


@pytest.mark.parametrize("augment", [CUT, BOX])
def test_one_draw_decides_between_mixup_and_cutmix(augment: Augment) -> None:
    plan = mixed_plan(4000)
    found = drawn(plan, augment, 1)
    summed, replaced = found.share < 1, (found.span[1] > found.span[0]) | (found.box[1] > found.box[0])
    assert not (summed & replaced).any()
    assert abs(summed.mean() - 0.3) < 0.03
    assert abs(replaced.mean() - 0.4) < 0.04
    assert ((found.weight < 1) <= (summed | replaced)).all()
    assert (found.partner[found.weight == 1][~summed[found.weight == 1]] == np.flatnonzero(found.weight == 1)).all()
    assert found.weight[5] == 1
    assert 5 not in found.partner[found.weight < 1]
    only = drawn(plan, Augment(mixup=Mixup(probability=0.3)), 1)
    np.testing.assert_array_equal(only.share, found.share)  # CutMix changes nothing in mixup's draws
    assert (found.until(plan["length"])[replaced] == plan["length"][replaced]).all()


def test_the_label_of_a_span_is_its_share_of_what_counts() -> None:
    plan = mixed_plan(4000)
    found, filled = drawn(plan, CUT, 2), plan["length"].astype(np.int64)
    cut = found.span[1] > found.span[0]
    both = np.minimum(filled, filled[found.partner])
    assert (found.span[0] >= 0).all() and (found.span[1][cut] <= both[cut]).all()
    np.testing.assert_allclose(found.weight[cut], 1 - (found.span[1] - found.span[0])[cut] / filled[cut], atol=1e-6)
    alike = cut & (both == filled)
    assert 0.4 < found.weight[alike].mean() < 0.6  # Beta(1, 1)


def test_the_label_of_a_box_is_its_share_of_frames_and_bins() -> None:
    plan = mixed_plan(4000)
    found, frames = drawn(plan, BOX, 2, bins=64), plan["length"] // 10
    first, end, low, high = found.box
    cut = (end > first) & (high > low)
    both = np.minimum(frames, frames[found.partner])
    assert (end[cut] <= both[cut]).all() and high.max() == 64 and low.min() == 0
    expected = 1 - ((end - first) * (high - low) / (frames * 64))[cut]
    np.testing.assert_allclose(found.weight[cut], expected, atol=1e-6)
    whole = cut & (both >= 50)
    sides = ((end - first) / both)[whole], ((high - low) / 64)[whole]
    np.testing.assert_allclose(sides[0], sides[1], atol=0.02)  # alike, as in the paper


def test_spans_and_boxes_are_the_partners_as_they_were() -> None:
    wave = torch.arange(3.0).view(3, 1, 1) + torch.zeros(3, 2, 6)
    span = np.array([[1, 0, 2], [4, 6, 2]])
    pairs = Pairs(np.array([1, 2, 2]), np.ones(3), np.array([1, 1, 1], np.float32), span, np.zeros((4, 3), np.int64))
    out = mixing.mix(wave.clone(), pairs)
    assert out[:, 1].tolist() == [[0, 1, 1, 1, 0, 0], [2] * 6, [2] * 6]
    feat = torch.arange(2.0).view(2, 1, 1) + torch.zeros(2, 4, 6)
    boxes = np.array([[1, 0], [3, 0], [1, 0], [2, 0]])
    out = mixing.cut_boxes(feat.clone(), np.array([1, 0]), boxes, 3)
    expected = torch.zeros(4, 6)
    expected[1:3, [1, 4]] = 1  # the bin in both channels
    assert torch.equal(out[0], expected)
    assert torch.equal(out[1], feat[1])


def test_draws_depend_on_position_and_place_in_the_group_only() -> None:
    plan = mixed_plan(64)
    one, again, other = drawn(plan, CUT, 3), drawn(plan.copy(), CUT, 3), drawn(plan, CUT, 4)
    for mine, theirs in zip(one, again, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (one.weight != other.weight).any()
