"""The CPU's row-by-row way from bytes to windows: bit for bit what the operations give one after another."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from clips import SUBTYPES, index_rows, raw_batch, sound

from dist_train import augment as change
from dist_train.decode import decode
from dist_train.resample import Resamplers
from dist_train.settings import Audio, Augment
from dist_train.waves import Waves
from dist_train.window import eval_windows, train_windows

CPU = torch.device("cpu")
SPEEDS = [Fraction(9, 10), Fraction(1), Fraction(11, 10), Fraction(23, 20)]


def step_by_step(
    data: torch.Tensor, plan: np.ndarray, audio: Audio, gain: np.ndarray, place: np.ndarray
) -> torch.Tensor:
    resamplers = Resamplers(CPU)
    rows = []
    for row in range(len(plan)):
        one = plan[row : row + 1]
        wave = change.speed(decode(data[row : row + 1], one, audio, resamplers), one, SPEEDS, resamplers)
        wave = change.fill(wave, one, audio.short, place[row : row + 1])
        rows.append(wave * torch.tensor(gain[row]))
    return torch.cat(rows)


@pytest.mark.parametrize(("short", "channels"), [("tile", "mono"), ("random_pad", "first"), ("pad", 2), ("tile", 3)])
def test_equal_to_the_operations_one_after_another(short: str, channels: str | int) -> None:
    clips, parts = [], []
    for number, (codec, rate) in enumerate(product(SUBTYPES, [8000, 16000, 22050, 44100])):
        frames = [40, rate // 3, rate, 2 * rate][number % 4]
        clips.append(np.clip(sound(frames, 1 + number % 3 // 2, seed=number), -1, 1))
        parts.append(index_rows(clips[-1:], rate, codec))
    rows, count = np.concatenate(parts), len(clips)
    audio, position = Audio(seconds=0.6, short=short, channels=channels), np.arange(count) + 77
    waves = Waves(audio, SPEEDS, Resamplers(CPU))
    draw = np.random.default_rng(0)
    for plan in (
        train_windows(rows, np.arange(count), position, None, audio, Augment(speed=SPEEDS), 3),
        eval_windows(rows, np.arange(count), audio)[:count],
    ):
        raw, gain, place = raw_batch(plan, clips), draw.uniform(0.5, 2, count).astype(np.float32), draw.random(count)
        out = waves(raw.data, plan, 9600, gain, place)
        assert torch.equal(out, step_by_step(raw.data, plan, audio, gain, place))
        assert torch.equal(
            waves(raw.data, plan, 9700, None, place)[:, :, 9600:], torch.zeros(1).expand(out[..., :100].shape)
        )


def test_memory_is_used_again() -> None:
    clips, audio = [sound(9000, seed=number) for number in range(4)], Audio(seconds=0.5)
    waves = Waves(audio, [Fraction(1)], Resamplers(CPU))
    plan = eval_windows(index_rows(clips), np.arange(4), audio)
    first = waves(raw_batch(plan, clips).data, plan, 8000, None, np.zeros(len(plan)))
    again = waves(raw_batch(plan[::-1], clips).data, plan[::-1], 8000, None, np.zeros(len(plan)))
    assert first.data_ptr() == again.data_ptr()
