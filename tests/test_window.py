"""Windows: what is read gives, bit for bit, what converting the whole clip and cutting it afterwards would give."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchaudio
from clips import index_rows, raw_batch, sound
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.archive.row import CODECS
from dist_train.resample import Resamplers
from dist_train.settings import Audio, Augment, Cut
from dist_train.waves import Waves
from dist_train.window import PLAIN, eval_windows, full_windows, train_windows

CPU = torch.device("cpu")


def whole(clip: np.ndarray, rate: int, factor: Fraction, target: int = 16000) -> torch.Tensor:
    """The reference: torchaudio on the whole clip."""
    wave = torch.from_numpy(clip.astype(np.float32).mean(1))[None]
    wave = torchaudio.transforms.Resample(rate, target)(wave)
    return torchaudio.transforms.Speed(target, float(factor))(wave)[0][0]


def waves(plan: np.ndarray, clips: list[np.ndarray], audio: Audio, factors: list[Fraction]) -> torch.Tensor:
    """Each row alone as the front end cuts it, zeros past its length."""
    cut, place = Waves(audio.model_copy(update={"short": "pad"}), factors, Resamplers(CPU)), np.zeros(1)
    ones = [plan[row : row + 1] for row in range(len(plan))]
    parts = [cut(raw_batch(one, clips).data, one, int(one["window"][0]), None, place)[0, 0].clone() for one in ones]
    return torch.stack(parts)


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    factor=st.sampled_from([Fraction(9, 10), Fraction(1), Fraction(11, 10)]),
    seconds=st.floats(0.05, 1.5),
    seed=st.integers(0, 2**40),
)
def test_crop_before_conversion_equals_crop_after(rate: int, factor: Fraction, seconds: float, seed: int) -> None:
    audio, augment = Audio(seconds=0.5), Augment(speed=[factor])
    clips = [sound(max(1, int(rate * seconds)), seed=seed % 7)]
    rows = index_rows(clips, rate, CODECS.F32)
    plan = train_windows(rows, np.zeros(1, np.int64), np.array([seed]), None, audio, augment, seed=3)
    expected = whole(clips[0], rate, factor)
    start, length = int(plan["start"][0]), int(plan["length"][0])
    assert start + length <= len(expected)
    assert length == min(8000, len(expected))
    out = waves(plan, clips, audio, augment.speed)[0]
    # torchaudio sums short clips in another order than long ones; half a unit in the last place
    torch.testing.assert_close(out[:length], expected[start : start + length], rtol=0, atol=2e-7)
    assert not out[length:].any()
    assert plan["count"][0] <= rate * (0.5 * 1.1) + 6 * rate / 100 + 100  # little more than the window is read


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("factor", [Fraction(9, 10), Fraction(1), Fraction(11, 10)])
def test_crop_of_three_seconds_is_equal_bit_for_bit(rate: int, factor: Fraction) -> None:
    audio, augment = Audio(), Augment(speed=[factor])
    clips = [sound(5 * rate, seed=1)]
    plan = train_windows(
        index_rows(clips, rate, CODECS.F32), np.zeros(1, np.int64), np.array([5]), None, audio, augment, 0
    )
    start = int(plan["start"][0])
    assert start > 0
    out = waves(plan, clips, audio, augment.speed)[0]
    torch.testing.assert_close(out, whole(clips[0], rate, factor)[start : start + 48000], rtol=0, atol=0)


def test_draws_depend_on_seed_and_position_alone() -> None:
    audio, augment = Audio(seconds=1.0), Augment()
    rows = index_rows([sound(40000)] * 200)
    ids, positions = np.arange(200), np.arange(200) + 10**12
    plan = train_windows(rows, ids, positions, None, audio, augment, seed=1)
    parts = [
        train_windows(rows[cut], ids[cut], positions[cut], None, audio, augment, 1)
        for cut in (slice(0, 7), slice(7, 200))
    ]
    assert (np.concatenate(parts) == plan).all()
    other = train_windows(rows, ids, positions + 200, None, audio, augment, seed=1)
    assert (other["start"] != plan["start"]).mean() > 0.9
    assert np.bincount(plan["factor"], minlength=3).min() > 40
    assert len(np.unique(plan["start"] // 5000)) >= 4  # starts spread over the 1.5 s that are free


def test_some_windows_keep_their_speed() -> None:
    rows, positions = np.repeat(index_rows([sound(30000)]), 4000), np.arange(4000)
    always = Augment(speed=[Fraction(9, 10), Fraction(11, 10)])
    some = always.model_copy(update={"speed_probability": 0.3})
    full = train_windows(rows, positions, positions, None, Audio(seconds=1.0), always, 0)
    plan = train_windows(rows, positions, positions, None, Audio(seconds=1.0), some, 0)
    plain = plan["factor"] == PLAIN
    assert abs(plain.mean() - 0.7) < 0.03
    assert np.array_equal(plan[~plain], full[~plain])
    assert (plan["count"][plain] == 16000).all()


def test_starts_reach_from_the_first_to_the_last_sample() -> None:
    rows = index_rows([sound(16010)] * 500)
    plan = train_windows(
        rows, np.arange(500), np.arange(500), None, Audio(seconds=1.0), Augment(speed=[Fraction(1)]), 0
    )
    assert set(plan["start"]) == set(range(11))
    assert (plan["length"] == 16000).all()


def test_active_crop_falls_where_the_sound_is() -> None:
    rows = index_rows([sound(160000)] * 300)
    activity = np.zeros((300, 16), np.uint8)
    activity[:, 11] = 255
    audio = Audio(seconds=1.0, crop="active")
    plan = train_windows(rows, np.arange(300), np.arange(300), activity, audio, Augment(speed=[Fraction(1)]), 0)
    centre = plan["start"] + 8000
    assert ((centre >= 110000 - 1) & (centre <= 120000)).all()
    assert np.ptp(centre) > 9000
    silent = train_windows(rows, np.arange(300), np.arange(300), activity * 0, audio, Augment(), 0)
    assert np.ptp(silent["start"]) > 100000


@given(frames=st.integers(1, 10**6), seconds=st.sampled_from([0.5, 1.0, 3.0]), hop=st.sampled_from([None, 0.3]))
def test_evaluation_windows_cover_the_clip_evenly(frames: int, seconds: float, hop: float | None) -> None:
    rows = np.repeat(index_rows([sound(1)]), 1)
    rows["frames"] = frames
    plan = eval_windows(rows, np.array([7]), Audio(seconds=seconds), hop)
    window = round(seconds * 16000)
    starts = plan["start"].tolist()
    assert starts[0] == 0
    assert starts[-1] == max(frames - window, 0)
    gaps = [b - a for a, b in pairwise(starts)]
    assert all(0 < gap <= (window if hop is None else 4800) for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert (plan["id"] == 7).all()
    assert (plan["factor"] == PLAIN).all()
    if hop is None:
        assert len(starts) == -(-frames // window)


def test_evaluation_windows_of_many_clips() -> None:
    rows = index_rows([sound(1)] * 3)
    rows["frames"] = [16000, 40000, 5]
    plan = eval_windows(rows, np.array([4, 5, 6]), Audio(seconds=1.0))
    assert plan["id"].tolist() == [4, 5, 5, 5, 6]
    assert plan["start"].tolist() == [0, 0, 12000, 24000, 0]
    assert plan["length"].tolist() == [16000, 16000, 16000, 16000, 5]


def test_full_windows_are_whole_clips_up_to_a_limit() -> None:
    rows = index_rows([sound(1)] * 3, [16000, 8000, 16000])
    rows["frames"] = [5000, 5000, 900000]
    plan = full_windows(rows, np.arange(3), Audio(), max_seconds=20)
    assert plan["window"].tolist() == [5000, 10000, 320000] == plan["length"].tolist()


def test_errors_name_rate_and_factor() -> None:
    rows, ids = index_rows([sound(100)], 44101), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="44101 Hz"):
        eval_windows(rows, ids, Audio())
    with pytest.raises(ValueError, match="factor 10001/10000"):
        train_windows(index_rows([sound(100)]), ids, ids, None, Audio(), Augment(speed=[Fraction(10001, 10000)]), 0)


@settings(max_examples=10, deadline=None)
@given(seconds=st.floats(0.05, 1.5), seed=st.integers(0, 2**40), crop=st.sampled_from(["random", "active"]))
def test_a_crop_of_length_keeps_a_part_of_the_clip(seconds: float, seed: int, crop: str) -> None:
    audio, augment = Audio(seconds=0.5, crop=crop), Augment(crop=Cut(probability=0.6, keep=(0.25, 0.75)))
    clips = [sound(max(100, int(16000 * seconds)), seed=1)]
    rows, ids, positions = index_rows(clips, 16000, CODECS.F32), np.zeros(64, np.int64), seed + np.arange(64)
    activity = np.ones((64, 16), np.uint8)
    plan = train_windows(rows[ids], ids, positions, activity, audio, augment, seed=3)
    plain = train_windows(rows[ids], ids, positions, activity, audio, Augment(), seed=3)
    cut = plan["length"] < plain["length"]
    assert 0.3 < cut.mean() < 0.85
    assert (plan["window"] == 8000).all() and (plan["count"] == plain["count"]).all()  # shapes stay
    for name in ("start", "length", "first"):
        assert (plan[name][~cut] == plain[name][~cut]).all()
    share = plan["length"][cut] / plain["length"][cut]
    assert 0.24 < share.min() <= share.max() < 0.76
    assert (plan["start"] >= 0).all()
    for row in np.flatnonzero(cut)[:3]:
        expected = whole(clips[0], 16000, augment.speed[plan["factor"][row]])
        start, length = int(plan["start"][row]), int(plan["length"][row])
        assert start + length <= len(expected)
        out = waves(plan[row : row + 1], clips, audio, augment.speed)[0]
        torch.testing.assert_close(out[:length], expected[start : start + length], rtol=0, atol=1e-6)
        assert not out[length:].any()
    some = np.array([40, 3])
    again = train_windows(rows[ids[some]], ids[some], positions[some], activity[some], audio, augment, seed=3)
    assert (again == plan[some]).all()
