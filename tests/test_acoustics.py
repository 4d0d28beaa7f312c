"""Rooms, noise and level against float64 arithmetic; draws that belong to positions; rows that ignore their mates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.effects import acoustics, bank
from dist_train.effects.acoustics import NoiseDraws, ReverbDraws
from dist_train.effects.bank import Bank, Rooms
from dist_train.settings import Noise, Reverb
from dist_train.window import PLAN

SHAPES = {"rows": st.integers(1, 4), "channels": st.integers(1, 2), "samples": st.integers(1, 300)}


def plan_of(positions: np.ndarray) -> np.ndarray:
    plan = np.zeros(len(positions), PLAN)
    plan["position"] = positions
    return plan


def waves(rows: int, channels: int, samples: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Rows of which a part counts, zeros behind it."""
    rng = np.random.default_rng(seed)
    filled = rng.integers(1, samples + 1, rows)
    wave = rng.standard_normal((rows, channels, samples)).astype(np.float32) * 0.1
    for row, end in zip(wave, filled, strict=True):
        row[:, end:] = 0
    return torch.from_numpy(wave), filled


def rooms_of(count: int, taps: int, seed: int) -> Rooms:
    """Decaying noise of different lengths, aligned as `rooms_bank` does."""
    rng = np.random.default_rng(seed)
    impulses = np.zeros((count, taps))
    for row in impulses:
        size = rng.integers(1, taps + 1)
        sound = rng.standard_normal(size) * np.exp(-np.arange(size) / (taps / 4))
        cut = bank.aligned(sound.astype(np.float32), size)
        row[: len(cut)] = cut
    return Rooms(torch.from_numpy(impulses).float())


def bank_of(lengths: list[int], seed: int) -> Bank:
    sound = np.random.default_rng(seed).integers(-3000, 3000, sum(lengths)).astype(np.int16)
    return Bank(torch.from_numpy(sound), np.cumsum([0, *lengths]))


def some_noise(noise: Bank, rows: int, seed: int) -> NoiseDraws:
    rng = np.random.default_rng(seed)
    clip = rng.integers(0, len(noise), rows)
    length = np.diff(noise.offsets)[clip]
    start = (rng.uniform(size=rows) * length).astype(np.int64)
    return NoiseDraws(rng.uniform(size=rows) < 0.8, noise.offsets[clip], length, start, rng.uniform(-20, 40, rows))


def some_rooms(rooms: Rooms, rows: int, seed: int) -> ReverbDraws:
    rng = np.random.default_rng(seed)
    wet = np.where(rng.uniform(size=rows) < 0.5, 1.0, rng.uniform(size=rows))
    return ReverbDraws(rng.uniform(size=rows) < 0.8, rng.integers(0, len(rooms), rows), wet)


@settings(max_examples=60, deadline=None)
@given(**SHAPES, taps=st.integers(1, 400), seed=st.integers(0, 2**32))
def test_reverb_is_convolution_at_the_level_before(
    rows: int, channels: int, samples: int, taps: int, seed: int
) -> None:
    wave, filled = waves(rows, channels, samples, seed)
    rooms = rooms_of(5, taps, seed)
    draws = some_rooms(rooms, rows, seed)
    out = acoustics.reverberate(wave.clone(), filled, rooms, draws).double().numpy()
    for row, before in enumerate(wave.double().numpy()):
        expected = before.copy()
        if draws.chosen[row]:
            end, room = filled[row], rooms.impulses_RL[draws.room[row]].double().numpy()
            wet = np.stack([np.convolve(sound[:end], room)[:end] for sound in before])
            mixed = (1 - draws.wet[row]) * before[:, :end] + draws.wet[row] * wet
            expected[:, :end] = mixed * np.sqrt((before**2).sum() / (mixed**2).sum())
        np.testing.assert_allclose(out[row], expected, rtol=0, atol=1e-5)


def test_a_long_reverb_is_convolution() -> None:
    wave, rooms = torch.randn(2, 1, 48000) * 0.1, rooms_of(3, 16000, 1)
    draws = ReverbDraws(np.ones(2, bool), np.array([2, 0]), np.ones(2))
    out = acoustics.reverberate(wave.clone(), np.array([48000, 30001]), rooms, draws)
    for row, end in enumerate((48000, 30001)):
        before, room = wave[row, 0, :end].double().numpy(), rooms.impulses_RL[draws.room[row]].double().numpy()
        wet = np.convolve(before, room)[:end]
        np.testing.assert_allclose(out[row, 0, :end], wet * np.sqrt((before**2).sum() / (wet**2).sum()), atol=1e-5)
        assert torch.equal(out[row, 0, end:], wave[row, 0, end:])


@pytest.mark.parametrize("taps", [1, 2, 1000])
def test_a_room_without_echoes_changes_nothing(taps: int) -> None:
    rooms = Rooms(torch.eye(1, taps))
    wave, filled = waves(3, 2, 500, 0)
    for wet in (1.0, 0.3):
        draws = ReverbDraws(np.ones(3, bool), np.zeros(3, np.int64), np.full(3, wet))
        torch.testing.assert_close(acoustics.reverberate(wave.clone(), filled, rooms, draws), wave, rtol=0, atol=1e-6)


def test_reverb_follows_what_sounds_and_delays_nothing() -> None:
    """An impulse becomes the room, from its own place on."""
    rooms, wave = rooms_of(1, 50, 3), torch.zeros(1, 1, 200)
    wave[0, 0, 120] = 0.5
    draws = ReverbDraws(np.ones(1, bool), np.zeros(1, np.int64), np.ones(1))
    out = acoustics.reverberate(wave.clone(), np.array([200]), rooms, draws)[0, 0]
    assert out[:120].abs().max() < 1e-6
    torch.testing.assert_close(out[120:170], 0.5 * rooms.impulses_RL[0], rtol=0, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(**SHAPES, lengths=st.lists(st.integers(1, 700), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_noise_has_the_ratio_drawn(rows: int, channels: int, samples: int, lengths: list[int], seed: int) -> None:
    wave, filled = waves(rows, channels, samples, seed)
    noise = bank_of(lengths, seed)
    draws = some_noise(noise, rows, seed)
    out = acoustics.add_noise(wave.double(), filled, noise, draws)
    for row, end in enumerate(filled):
        added = (out[row] - wave[row].double())[:, :end].numpy()
        assert torch.equal(out[row, :, end:], wave[row, :, end:].double())
        clip = noise.samples.numpy()[draws.first[row] :][: draws.length[row]].astype(np.float64)
        segment = clip[(draws.start[row] + np.arange(end)) % len(clip)]
        if not draws.chosen[row] or not segment.any():
            assert not added.any()
            continue
        signal = wave[row, :, :end].double().numpy()
        ratio = 10 * np.log10((signal**2).mean() / (added**2).mean())
        assert abs(ratio - draws.snr_db[row]) < 1e-4
        scale = np.sqrt((added**2).mean() / (segment**2).mean())
        np.testing.assert_allclose(added, np.broadcast_to(segment * scale, added.shape), atol=1e-6 * scale * 3000)


def test_noise_has_the_ratio_drawn_in_float32() -> None:
    wave, filled = torch.randn(4, 2, 48000) * 0.1, np.array([48000, 47999, 20000, 160])
    noise = bank_of([30000, 90000], 0)
    draws = some_noise(noise, 4, 0)._replace(chosen=np.ones(4, bool), snr_db=np.array([-5.0, 0.0, 12.3, 30.0]))
    out = acoustics.add_noise(wave.clone(), filled, noise, draws).double()
    for row, end in enumerate(filled):
        signal, added = wave[row, :, :end].double(), out[row, :, :end] - wave[row, :, :end].double()
        assert abs(10 * torch.log10(signal.square().mean() / added.square().mean()) - draws.snr_db[row]) < 1e-4


def test_level_is_that_of_what_counts() -> None:
    wave, filled = waves(5, 2, 4000, 0)
    wave[3] = 0
    out = acoustics.level(wave.clone(), filled, -23.0)
    rms = [float(row[:, :end].double().square().mean().sqrt()) for row, end in zip(out, filled, strict=True)]
    np.testing.assert_allclose(20 * np.log10(np.delete(rms, 3)), -23, atol=1e-4)
    assert not out[3].any()


@pytest.mark.parametrize("loud", [0.0, 1e-30, 1e-18, 1e-12, 1e3])
def test_silence_never_becomes_nan(loud: float) -> None:
    wave, filled = torch.randn(3, 1, 100) * loud, np.array([100, 0, 1])
    noise = Bank(torch.cat([torch.zeros(200), torch.ones(200)]).short(), np.array([0, 200, 400]))
    rooms = rooms_of(1, 50, 0)
    for clip in (0, 1):
        first, every = np.full(3, noise.offsets[clip]), np.ones(3, bool)
        noisy = NoiseDraws(every, first, np.full(3, 200), np.zeros(3, np.int64), np.full(3, -30.0))
        roomy = ReverbDraws(every, np.zeros(3, np.int64), np.array([1.0, 0.5, 0.0]))
        for out in (
            acoustics.add_noise(wave.clone(), filled, noise, noisy),
            acoustics._add_noise_batched(wave.clone(), filled, noise, noisy, np.arange(3)),
            acoustics.reverberate(wave.clone(), filled, rooms, roomy),
            acoustics._reverberate_batched(wave.clone(), filled, rooms, roomy, np.arange(3)),
            acoustics.level(wave.clone(), filled, -20.0),
            acoustics._level_batched(wave.clone(), filled, 0.01 * filled),
        ):
            assert torch.isfinite(out).all()
            assert loud > 0 or not out.any()
        if clip == 0:
            assert torch.equal(acoustics.add_noise(wave.clone(), filled, noise, noisy), wave)


@pytest.mark.parametrize("table", [bank.TABLE, 0])
def test_batched_forms_equal_the_row_by_row_ones(table: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs, against what a CPU runs; spectra from the table, or made each time."""
    monkeypatch.setattr(bank, "TABLE", table)
    wave, filled = waves(11, 2, 777, 5)
    rooms, noise = rooms_of(4, 300, 5), bank_of([100, 2000, 5], 5)
    roomy, noisy = some_rooms(rooms, 11, 5), some_noise(noise, 11, 5)
    rows = np.flatnonzero(roomy.chosen)
    batched = acoustics._reverberate_batched(wave.clone(), filled, rooms, roomy, rows)
    torch.testing.assert_close(batched, acoustics.reverberate(wave.clone(), filled, rooms, roomy), rtol=0, atol=1e-6)
    rows = np.flatnonzero(noisy.chosen)
    batched = acoustics._add_noise_batched(wave.clone(), filled, noise, noisy, rows)
    torch.testing.assert_close(batched, acoustics.add_noise(wave.clone(), filled, noise, noisy), rtol=1e-5, atol=1e-6)
    batched = acoustics._level_batched(wave.clone(), filled, 0.01 * 2 * filled)
    torch.testing.assert_close(batched, acoustics.level(wave.clone(), filled, -20.0), rtol=1e-5, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(samples=st.integers(1000, 9000), taps=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_a_row_is_the_same_alone_bit_for_bit(samples: int, taps: int, seed: int) -> None:
    wave, filled = waves(5, 1, samples, seed)
    rooms, noise = rooms_of(3, taps, seed), bank_of([5000, 700], seed)
    roomy, noisy = some_rooms(rooms, 5, seed), some_noise(noise, 5, seed)

    def change(rows: np.ndarray) -> torch.Tensor:
        out = acoustics.reverberate(wave[rows].clone(), filled[rows], rooms, ReverbDraws(*(x[rows] for x in roomy)))
        out = acoustics.add_noise(out, filled[rows], noise, NoiseDraws(*(x[rows] for x in noisy)))
        return acoustics.level(out, filled[rows], -20.0)

    together = change(np.arange(5))
    for row in range(5):
        assert torch.equal(change(np.array([row]))[0], together[row])
    assert torch.equal(change(np.array([3, 1])), together[[3, 1]])
    assert torch.equal(acoustics.loudness(together, 16000)[2:3], acoustics.loudness(together[2:3], 16000))


def test_draws_belong_to_the_position() -> None:
    rooms, noise = rooms_of(7, 10, 0), bank_of([100, 50000], 0)
    hall, street = Reverb(shards=["x"], wet=(0.2, 0.9)), Noise(shards=["x"])
    positions = np.arange(1000)
    together = acoustics.reverb_draws(plan_of(positions), rooms, hall, 4)
    noisy = acoustics.noise_draws(plan_of(positions), noise, street, 4, 3000)
    some = np.array([500, 3, 999])
    for all_, part in (
        (together, acoustics.reverb_draws(plan_of(some), rooms, hall, 4)),
        (noisy, acoustics.noise_draws(plan_of(some), noise, street, 4, 3000)),
    ):
        for column, picked in zip(all_, part, strict=True):
            np.testing.assert_array_equal(column[some], picked)
    assert (noisy.snr_db != acoustics.noise_draws(plan_of(positions), noise, street, 5, 3000).snr_db).mean() > 0.9


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_draws_have_the_shares_and_ranges_asked_for(probability: float) -> None:
    rooms, noise, plan = rooms_of(7, 10, 0), bank_of([100, 50000, 3000], 0), plan_of(np.arange(20000))
    roomy = acoustics.reverb_draws(plan, rooms, Reverb(shards=["x"], wet=(0.2, 0.9), probability=probability), 1)
    noisy = acoustics.noise_draws(plan, noise, Noise(shards=["x"], snr_db=(-3, 9), probability=probability), 1, 3000)
    for draws in (roomy, noisy):
        assert abs(draws.chosen.mean() - probability) < (0.015 if 0 < probability < 1 else 1e-9)
    assert abs((roomy.chosen & noisy.chosen).mean() - probability**2) < 0.015
    assert np.bincount(roomy.room).min() > 20000 / 7 * 0.9
    assert np.bincount(roomy.room).shape == (7,)
    for draw, low, high in ((roomy.wet, 0.2, 0.9), (noisy.snr_db, -3, 9)):
        assert low <= draw.min() < draw.max() <= high
        np.testing.assert_allclose(
            np.quantile(draw, [0.25, 0.5, 0.75]), low + (high - low) * np.arange(1, 4) / 4, atol=0.2
        )
    for first, length, last in ((0, 100, 100), (100, 50000, 47001), (50100, 3000, 1)):
        mine = noisy.first == first
        assert abs(mine.mean() - 1 / 3) < 0.02
        assert (noisy.length[mine] == length).all()
        assert noisy.start[mine].min() == 0 or last > 1000
        assert last * 0.99 - 1 <= noisy.start[mine].max() < last


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_weighting_is_the_standards(rate: int) -> None:
    """IEC 61672-1, table 3: A in dB at nominal frequencies."""
    size = 2**16
    level = 10 * np.log10(acoustics.a_weighting(size, rate)[1:])
    table = {63: -26.2, 125: -16.1, 250: -8.6, 500: -3.2, 1000: 0.0, 2000: 1.2, 4000: 1.0, 8000: -1.1, 16000: -6.6}
    for frequency, expected in table.items():
        if frequency < rate / 2:
            exact = 1000 * 10 ** (round(10 * np.log10(frequency / 1000)) / 10)
            if exact < rate / 2:
                assert abs(level[round(exact * size / rate) - 1] - expected) < 0.1


def test_loudness_is_that_of_the_loudest_frame() -> None:
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 1000 * time)
    wave = np.stack([tone, tone * 0.1, np.where(time > 0.8, tone, 0), np.sin(2 * np.pi * 100 * time), 0 * tone])
    loud = 20 * np.log10(acoustics.loudness(torch.from_numpy(wave)[:, None].float(), 16000).numpy())
    np.testing.assert_allclose(loud[1:4] - loud[0], [-20, 0, -19.1], atol=0.3)
    assert loud[4] == pytest.approx(-80, abs=1e-3)
    short = torch.from_numpy(wave[:, :700])[:, None]
    assert torch.isfinite(acoustics.loudness(short, 16000)).all()
    spectrum = np.fft.rfft(wave[0, :2048] * np.hanning(2049)[:-1])
    expected = (np.abs(spectrum) ** 2 * acoustics.a_weighting(2048, 16000)).sum()
    np.testing.assert_allclose(10 ** (loud[0] / 10), expected, rtol=1e-3)


@given(least=st.integers(1, 200000))
def test_transform_lengths_have_small_factors_only(least: int) -> None:
    size = acoustics.smooth(least)
    assert least <= size <= max(2 * least, 8)
    assert size % 2048
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    assert size == 1
