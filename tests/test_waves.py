"""The CPU's way from bytes to windows: what converting the whole clip and cutting it afterwards gives."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
import torchaudio
from clips import SUBTYPES, encode, index_rows, raw_batch, sound
from hypothesis import given
from hypothesis import strategies as st

from dist_train.archive.row import CODECS
from dist_train.decode import mix
from dist_train.resample import Resamplers
from dist_train.settings import Audio, Augment
from dist_train.waves import Waves, fill
from dist_train.window import PLAIN, eval_windows, train_windows

CPU = torch.device("cpu")
SPEEDS = [Fraction(9, 10), Fraction(1), Fraction(11, 10), Fraction(23, 20)]


def whole(clip: np.ndarray, codec: CODECS, rate: int, factor: Fraction, channels: str | int) -> torch.Tensor:
    """(C, samples) of the whole clip as soundfile and torchaudio have it, then its channels."""
    _, samples = encode(clip, codec)
    wave = torchaudio.transforms.Resample(rate, 16000)(mix(torch.from_numpy(samples).T[None], channels)[0])
    return torch.stack([torchaudio.transforms.Speed(16000, float(factor))(row)[0] for row in wave])


def filled(wave_CT: torch.Tensor, window: int, short: str, place: float) -> torch.Tensor:
    """A clip of up to `window` samples, repeated, moved or followed by silence."""
    length = wave_CT.shape[1]
    if short == "tile":
        return wave_CT.repeat(1, -(-window // length))[:, :window]
    before = min(int(place * (window - length + 1)), window - length) if short == "random_pad" else 0
    return torch.nn.functional.pad(wave_CT, (before, window - length - before))


@pytest.mark.parametrize(("short", "channels"), [("tile", "mono"), ("random_pad", "first"), ("pad", 2), ("tile", 3)])
@pytest.mark.parametrize("training", [True, False])
def test_windows_equal_whole_clips_cut_afterwards(short: str, channels: str | int, training: bool) -> None:
    """All codecs, rates, factors and lengths in one batch, and 0xFF (NaN) in all bytes that nobody should read."""
    clips, parts = [], []
    kinds = list(product(SUBTYPES, [8000, 16000, 22050, 44100]))
    for number, (codec, rate) in enumerate(kinds):
        frames = [40, rate // 3, rate, 2 * rate][(number + number // 4) % 4]
        clips.append(np.clip(sound(frames, 1 + number % 3 // 2, seed=number), -1, 1))
        parts.append(index_rows(clips[-1:], rate, codec))
    rows, ids = np.concatenate(parts), np.arange(len(clips))
    audio, draw = Audio(seconds=0.6, short=short, channels=channels), np.random.default_rng(0)
    plan = eval_windows(rows, ids, audio)
    if training:
        plan = train_windows(rows, ids, ids + 77, None, audio, Augment(speed=SPEEDS), 3)
    gain, place = draw.uniform(0.5, 2, len(plan)).astype(np.float32), draw.random(len(plan))
    out = Waves(audio, SPEEDS, Resamplers(CPU))(raw_batch(plan, clips).data, plan, 9700, gain, place)
    assert not out[..., 9600:].any()
    for row, one in enumerate(plan):
        codec, rate = kinds[one["id"]]
        factor = Fraction(1) if one["factor"] == PLAIN else SPEEDS[one["factor"]]
        start, length = int(one["start"]), int(one["length"])
        clip = whole(clips[one["id"]], codec, rate, factor, channels)[:, start : start + 9600]
        assert clip.shape[1] == length
        expected = filled(clip, 9600, short, place[row]) * float(gain[row])
        # torchaudio sums short clips in another order than long ones, and mono after or before a filter: the last bits
        torch.testing.assert_close(out[row, :, :9600], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("short", ["tile", "random_pad"])
def test_a_row_does_not_depend_on_the_others(short: str) -> None:
    clips = [sound(500 + 3000 * number, seed=number) for number in range(12)]
    rates = [8000, 16000, 22050, 44100] * 3
    audio, ids, place = Audio(seconds=0.4, short=short), np.arange(12), np.linspace(0, 1, 12)
    plan = train_windows(index_rows(clips, rates), ids, ids, None, audio, Augment(speed=SPEEDS), 3)
    together = Waves(audio, SPEEDS, Resamplers(CPU))(raw_batch(plan, clips).data, plan, 6400, None, place)
    for row in range(12):
        one = plan[row : row + 1]
        alone = Waves(audio, SPEEDS, Resamplers(CPU))(raw_batch(one, clips).data, one, 6400, None, place[row : row + 1])
        assert torch.equal(alone[0], together[row])


@given(length=st.integers(1, 10), place=st.floats(0, 1))
def test_short_clips_are_placed_whole(length: int, place: float) -> None:
    wave = torch.zeros(1, 10)
    wave[0, :length] = torch.arange(1.0, length + 1)
    fill(wave, length, 10, "random_pad", place)
    first = int(wave[0].nonzero()[0])
    assert wave[0, first : first + length].tolist() == list(range(1, length + 1))
    assert wave.count_nonzero() == length
    if place in {0, 1}:
        assert first == place * (10 - length)


def test_memory_is_used_again() -> None:
    clips, audio = [sound(9000, seed=number) for number in range(4)], Audio(seconds=0.5)
    waves = Waves(audio, [Fraction(1)], Resamplers(CPU))
    plan = eval_windows(index_rows(clips), np.arange(4), audio)
    first = waves(raw_batch(plan, clips).data, plan, 8000, None, np.zeros(len(plan)))
    again = waves(raw_batch(plan[::-1], clips).data, plan[::-1], 8000, None, np.zeros(len(plan)))
    assert first.data_ptr() == again.data_ptr()
