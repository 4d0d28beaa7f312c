"""Augmentation: what each change does, and that its draws belong to (seed, position)."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import index_rows, plan_of, raw_batch, sound
from hypothesis import given
from hypothesis import strategies as st

from dist_train import augment
from dist_train.effects.gaussian import gaussian, noise_keys
from dist_train.frontend import FrontEnd
from dist_train.settings import Audio, Augment, Features, Mixup, SpecAugment
from dist_train.window import train_windows

CPU = torch.device("cpu")


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


def test_noise_is_normal_and_belongs_to_the_position() -> None:
    noise = gaussian(torch.from_numpy(noise_keys(np.arange(4), 1)), 1, 50000)
    again = gaussian(torch.from_numpy(noise_keys(np.array([2, 99]), 1)), 1, 50000)
    assert torch.equal(noise[2], again[0])
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert 3.5 < noise.abs().max() < 6
    assert abs((noise[:, 0, 1:] * noise[:, 0, :-1]).mean()) < 0.01
    assert abs((noise[0] * noise[1]).mean()) < 0.02


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
