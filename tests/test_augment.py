"""Augmentation: what each change does, and that its draws belong to (seed, position)."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import index_rows, raw_batch, sound
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train import augment
from dist_train.acoustics import loudness
from dist_train.frontend import FrontEnd
from dist_train.gaussian import gaussian, noise_keys
from dist_train.settings import Audio, Augment, Features, Mixup, SpecAugment
from dist_train.window import PLAN, train_windows

CPU = torch.device("cpu")


def plan_of(count: int, length: int = 100, window: int = 100) -> np.ndarray:
    plan = np.zeros(count, PLAN)
    plan["position"], plan["length"], plan["window"] = np.arange(count) + 1000, length, window
    plan["weight"], plan["rms"] = 1.0, 0.1
    return plan


@given(share=st.floats(-1, 1), filled=st.integers(1, 12))
def test_shift_is_circular_within_what_counts(share: float, filled: int) -> None:
    wave = torch.arange(1.0, 13).view(1, 1, 12).clone()
    out = augment.shift(wave, np.array([filled]), np.array([share]))[0, 0]
    expected = np.roll(np.arange(1, filled + 1), round(share * filled)).tolist()
    assert out.tolist() == [*expected, *range(filled + 1, 13)]


def test_level_and_gain() -> None:
    plan = plan_of(1000)
    plan["rms"][:2] = 0.0, np.nan
    level = augment.gains(plan, -20.0, None, seed=0)
    assert level is not None
    assert level[:2].tolist() == [1, 1]  # silence stays silence
    np.testing.assert_allclose(level[2:] * 0.1, 0.1)
    drawn = 20 * np.log10(augment.gains(plan, None, (-6.0, 3.0), seed=0))
    assert -6 <= drawn.min() < -5.9
    assert 2.9 < drawn.max() < 3
    assert augment.gains(plan, None, None, seed=0) is None


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_share_of_rows_gets_the_gain(probability: float) -> None:
    plan = plan_of(10000)
    gains = augment.gains(plan, None, (-6.0, 3.0), 0, probability)
    always = augment.gains(plan, None, (-6.0, 3.0), 0)
    changed = gains != 1
    assert abs(changed.mean() - probability) < (0.015 if 0 < probability < 1 else 1e-3)
    assert (gains[changed] == always[changed]).all()
    np.testing.assert_allclose(augment.gains(plan, -20.0, (6.0, 6.0), 0, 0.0), augment.gains(plan, -20.0, None, 0))


def test_mixup_pairs() -> None:
    plan = plan_of(2000)
    plan["weight"][7] = 0
    partner, weight = augment.mix_pairs(plan, Mixup(probability=0.5, alpha=0.4), seed=3)
    mixed = weight < 1
    assert 0.45 < mixed.mean() < 0.55
    assert (partner[mixed] != np.flatnonzero(mixed)).all()
    assert (partner[~mixed] == np.flatnonzero(~mixed)).all()
    assert not mixed[7]
    assert 7 not in partner[mixed]
    alone = augment.mix_pairs(plan[:1], Mixup(probability=1.0), seed=3)
    assert (alone[0].tolist(), alone[1].tolist()) == ([0], [1.0])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_mixup_weights_follow_the_beta_distribution(alpha: float) -> None:
    partner, weight = augment.mix_pairs(plan_of(100000), Mixup(probability=1.0, alpha=alpha), seed=1)
    expected = np.random.default_rng(0).beta(alpha, alpha, 400000)
    shares = np.linspace(0.02, 0.98, 25)
    np.testing.assert_allclose(np.quantile(weight, shares), np.quantile(expected, shares), atol=0.012)
    assert np.bincount((partner - np.arange(100000)) % 100000 * 10 // 100000).min() > 9500


def test_mix_uses_partners_as_they_were() -> None:
    wave = torch.tensor([[[1.0]], [[10.0]], [[100.0]]])
    out = augment.mix(wave.clone(), np.array([1, 2, 2]), np.array([0.5, 0.25, 1.0], np.float32))
    assert out.flatten().tolist() == [5.5, 77.5, 100.0]


@pytest.mark.parametrize("loud", [1.0, 0.01, 30.0])
def test_between_class_mixing_is_by_sound_pressure(loud: float) -> None:
    """Sounds alike but for their level, of which G1 - G2 is known: the formula in float64."""
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 1, 2048 * 4)) * 0.05
    pair = torch.from_numpy(np.stack([one, two, loud * one])).float()
    weight = np.array([0.3, 1.0, 1.0], np.float32)
    out = augment.mix(pair.clone(), np.array([2, 1, 2]), weight, "between_class")
    p = 1 / (1 + 10 ** (-20 * np.log10(loud) / 20) * (1 - 0.3) / 0.3)
    expected = (p + (1 - p) * loud) * one / np.sqrt(p**2 + (1 - p) ** 2)
    np.testing.assert_allclose(out[0], expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(out[1:], pair[1:])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_between_class_mixing_keeps_the_ratio_of_pressures(share: float) -> None:
    """The mixed-in parts are heard as r to 1 - r, whatever the levels were, at the energy of sounds as loud."""
    sounds = torch.randn(2, 1, 16000) * torch.tensor([0.3, 0.002])[:, None, None]
    mixed = augment.mix(sounds.clone(), np.array([1, 1]), np.array([share, 1], np.float32), "between_class")[0, 0]
    parts = torch.linalg.lstsq(sounds[:, 0].T.double(), mixed[:, None].double()).solution[:, 0]
    heard = parts * loudness(sounds, 16000).double()
    assert float(heard[0] / heard[1]) == pytest.approx(share / (1 - share), rel=1e-3)
    assert float(parts.square().sum()) == pytest.approx(1, rel=1e-3)


def test_a_share_of_one_is_the_sound_itself() -> None:
    loud = torch.rand(50) + 1e-4
    own, rest = augment.pressures(loud, loud.flip(0), torch.ones(50))
    assert (own == 1).all()
    assert (rest == 0).all()


def test_between_class_mixing_of_silence() -> None:
    sounds = torch.zeros(3, 2, 300)
    sounds[2] = torch.randn(2, 300)
    for partner in ([1, 2, 0], [2, 0, 1]):
        for share in (0.0, 1e-7, 0.5, 0.999999):
            weight = np.full(3, share, np.float32)
            out = augment.mix(sounds.clone(), np.array(partner), weight, "between_class", 8000)
            assert torch.isfinite(out).all()
            assert out.abs().max() <= sounds.abs().max() * 1.001


@pytest.mark.parametrize("kind", ["linear", "between_class"])
def test_a_mix_depends_on_its_pair_only(kind: str) -> None:
    sounds, partner = torch.randn(6, 2, 5000), np.array([3, 2, 2, 0, 4, 1])
    weight = np.array([0.2, 0.7, 1.0, 0.5, 1.0, 0.9], np.float32)
    together = augment.mix(sounds.clone(), partner, weight, kind)
    for row, other in enumerate(partner):
        alone = augment.mix(sounds[[row, other]].clone(), np.array([1, 1]), np.array([weight[row], 1.0]), kind)
        assert torch.equal(alone[0], together[row])


def test_noise_is_normal_and_belongs_to_the_position() -> None:
    noise = gaussian(torch.from_numpy(noise_keys(np.arange(4), 1)), 1, 50000)
    again = gaussian(torch.from_numpy(noise_keys(np.array([2, 99]), 1)), 1, 50000)
    assert torch.equal(noise[2], again[0])
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert 3.5 < noise.abs().max() < 6
    assert abs((noise[:, 0, 1:] * noise[:, 0, :-1]).mean()) < 0.01
    assert abs((noise[0] * noise[1]).mean()) < 0.02


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 300), share=st.floats(0, 1), width=st.integers(0, 200), seed=st.integers(0, 2**32))
def test_masks_stay_within_bins_and_valid_frames(frames: int, share: float, width: int, seed: int) -> None:
    spec = SpecAugment(freq_width=width, time_width=share)
    plan = plan_of(20)
    freq, time = augment.bands(plan, np.full(20, frames), 80, spec, seed)
    for spans, size, widest in ((freq, 80, width), (time, frames, share * frames)):
        assert spans.shape == (2, 20, 2)
        assert spans.min() >= 0
        assert spans.max() <= size
        assert ((spans[1] >= spans[0]) & (spans[1] - spans[0] <= widest)).all()


def test_masks_reach_everywhere_and_their_share_is_kept() -> None:
    plan = plan_of(4000)
    freq, time = augment.bands(plan, np.full(4000, 100), 80, SpecAugment(probability=0.25), seed=0)
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
    out = augment.mask(feat, freq, time, torch.tensor([7.0, 9.0])[:, None, None])
    assert out[0, 0].tolist() == [1, 7, 7, 1, 1]
    assert out[1, :, 0].tolist() == [1, 1, 1, 1, 9, 9]


@pytest.fixture
def busy() -> tuple[Audio, Augment, Features]:
    spec = SpecAugment(fill="mean")
    change = Augment(gain_db=(-6.0, 6.0), shift=0.4, mixup=Mixup(probability=0.6), spec=spec)
    return Audio(seconds=0.5, target_db=-20.0, short="random_pad"), change, Features(dither=1e-4)


def test_a_group_repeats_itself_and_changes_with_seed_and_position(busy: tuple[Audio, Augment, Features]) -> None:
    clips = [sound(3000 + 1500 * number, seed=number) for number in range(8)]
    rows, ids = index_rows(clips), np.arange(8)

    def features(seed: int, first: int) -> torch.Tensor:
        plan = train_windows(rows, ids, ids + first, None, busy[0], busy[1], seed)
        return FrontEnd(*busy, seed=seed, device="cpu")(raw_batch(plan, clips), training=True).feat_BTF

    once = features(1, 0)
    assert torch.isfinite(once).all()
    assert torch.equal(once, features(1, 0))
    assert not torch.allclose(once, features(2, 0), atol=0.1)
    assert not torch.allclose(once, features(1, 8), atol=0.1)


def test_without_mixup_a_training_row_does_not_depend_on_its_group(busy: tuple[Audio, Augment, Features]) -> None:
    audio, change, features = busy
    change = change.model_copy(update={"mixup": Mixup()})
    clips = [sound(3000 + 1500 * number, seed=number) for number in range(6)]
    plan = train_windows(index_rows(clips), np.arange(6), np.arange(6) + 50, None, audio, change, 1)
    front = FrontEnd(audio, change, features, seed=1, device="cpu")
    together = front(raw_batch(plan, clips), training=True)
    for row in range(6):
        alone = front(raw_batch(plan[row : row + 1], clips), training=True)
        torch.testing.assert_close(alone.feat_BTF[0], together.feat_BTF[row], rtol=0, atol=1e-5)


def test_mixup_reports_what_it_mixed() -> None:
    clips = [sound(20000, seed=number) for number in range(6)]
    audio, change = Audio(seconds=1.0), Augment(speed=[Fraction(1)], mixup=Mixup(probability=1.0))
    plan = train_windows(index_rows(clips), np.arange(6), np.arange(6), None, audio, change, 0)
    raw = raw_batch(plan, clips)
    mixed = FrontEnd(audio, change, Features(), seed=0, device="cpu")(raw, training=True)
    plain = FrontEnd(audio, Augment(speed=[Fraction(1)]), Features(), seed=0, device="cpu")(raw, training=True)
    share = mixed.mix_B[:, None]
    expected = plain.wave_BT * share + plain.wave_BT[mixed.partner_B] * (1 - share)
    torch.testing.assert_close(mixed.wave_BT, expected, rtol=0, atol=1e-7)
    assert (plain.mix_B == 1).all()
    assert torch.equal(plain.partner_B, torch.arange(6))
