"""Banks of noise and rooms from real folders: recordings of all kinds, damaged ones, shards; a choice of many."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from faulty import Faulty
from hypothesis import given
from hypothesis import strategies as st
from tars import rewrite

from dist_train.assembly.options import Options
from dist_train.effects import bank
from dist_train.packing import pack
from dist_train.settings import Audio, Noise, Reverb

RATE = 16000
AUDIO = Audio(sample_rate=RATE)


def sound(samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples) * level


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path: Path, wave: np.ndarray, rate: int = RATE, **more: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings in any depth, two that cannot be read, one that is silent, and files that are none."""
    root = tmp_path / "noise"
    write(root / "a.wav", sound(8000, 1))
    write(root / "b/c.wav", np.stack([tone(0.5, 44100), tone(0.5, 44100) / 2], 1), 44100, subtype="PCM_24")
    write(root / "b/d/e.flac", sound(5000, 2))
    write(root / "f.ogg", tone(1.0, 22050), 22050)
    write(root / "silent.wav", np.zeros(4000))
    write(root / "nan.wav", np.full(400, np.nan), subtype="FLOAT")
    (root / "broken.flac").write_bytes((root / "b/d/e.flac").read_bytes()[:100])
    (root / "noise.wav").write_bytes(b"not a recording")
    (root / "README.txt").write_text("licence")
    return root


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A shard set of two classes of clips at 44.1 kHz stereo and at 16 kHz."""
    source = tmp_path / "source"
    for number in range(4):
        write(source / f"hum/{number}.wav", sound(4000 + number, number))
    write(source / "hum/stereo.wav", np.stack([tone(0.5, 44100), tone(0.5, 44100) / 2], 1), 44100)
    write(source / "void/silent.wav", np.zeros(3000))
    pack(source, tmp_path / "shards", Options(codec="original", workers=1))
    return tmp_path / "shards"


def clips(noise: bank.Bank) -> list[np.ndarray]:
    return np.split(noise.samples.numpy(), noise.offsets[1:-1])


def names(bad: list[str]) -> list[str]:
    return [line.partition(": ")[0].rpartition("/")[2] for line in bad]


def test_a_folder_of_recordings(folder: Path) -> None:
    noise = bank.noise_bank(Noise(shards=[str(folder)]), AUDIO, "cpu")
    assert noise.samples.dtype == torch.int16
    assert noise.offsets.dtype == np.int64
    assert noise.offsets[-1] == len(noise.samples)
    assert names(noise.bad) == ["broken.flac", "nan.wav", "noise.wav"]
    first, ogg, stereo, flac = clips(noise)
    np.testing.assert_array_equal(first, soundfile.read(folder / "a.wav", dtype="int16")[0])
    np.testing.assert_array_equal(flac, soundfile.read(folder / "b/d/e.flac", dtype="int16")[0])
    for clip, expected in ((stereo, 0.75 * tone(0.5, RATE)), (ogg, tone(1.0, RATE))):
        assert len(clip) == len(expected)
        np.testing.assert_allclose(clip[1000:-1000] / 32768, expected[1000:-1000], atol=0.02)


def test_a_set_of_shards(shards: Path) -> None:
    noise = bank.noise_bank(Noise(shards=[str(shards)]), AUDIO, "cpu")
    assert noise.bad == []
    found = clips(noise)
    assert len(found) == 5  # the silent one is left out
    source = shards.parent / "source/hum"
    kept = {len(clip): clip for clip in found}
    for number in range(4):
        expected = soundfile.read(source / f"{number}.wav", dtype="int16")[0]
        np.testing.assert_array_equal(kept[4000 + number], expected)
    np.testing.assert_allclose(kept[8000][200:-200] / 32768, 0.75 * tone(0.5, RATE)[200:-200], atol=0.01)
    both = bank.noise_bank(Noise(shards=[str(shards / "index.json"), str(source)]), AUDIO, "cpu")
    assert len(both) == 10
    np.testing.assert_array_equal(both.samples[: len(noise.samples)], noise.samples)


def test_damaged_shards_are_named(shards: Path) -> None:
    rows = np.load(shards / "index.npy")
    rows["size"][1] = 10  # fewer bytes than its frames take
    rewrite(shards, rows)
    noise = bank.noise_bank(Noise(shards=[str(shards)]), AUDIO, "cpu")
    assert len(noise) == 4
    assert len(noise.bad) == 1
    assert str(shards) in noise.bad[0]


def test_the_same_bank_each_time_and_of_a_copy(folder: Path, tmp_path: Path) -> None:
    settings = Noise(shards=[str(folder)], minutes=1 / 60)
    once, again = (bank.noise_bank(settings, AUDIO, "cpu") for _ in range(2))
    assert torch.equal(once.samples, again.samples)
    assert len(once.samples) <= RATE


def test_a_budget_is_kept_and_spread_over_the_list(tmp_path: Path) -> None:
    for number in range(32):
        write(tmp_path / f"{number:02d}.wav", np.full(RATE, (number + 1) / 64))
    noise = bank.noise_bank(Noise(shards=[str(tmp_path)], minutes=8 / 60), AUDIO, "cpu")
    taken = [round(clip[0] / 512) - 1 for clip in clips(noise)]
    assert taken == list(range(0, 32, 4))
    assert len(noise.samples) == 8 * RATE


@given(
    lengths=st.lists(st.integers(1, 1000), min_size=1, max_size=60),
    budget=st.integers(1, 20000),
    piece=st.integers(1, 500),
    least=st.integers(1, 50),
)
def test_what_is_taken_of_a_list(lengths: list[int], budget: int, piece: int, least: int) -> None:
    there = np.array(lengths)
    taken = bank.take(there, budget, piece, least)
    assert (taken >= 0).all()
    assert (taken <= there).all()
    assert taken.sum() <= budget
    assert taken.any()
    if there.sum() <= budget:
        assert (taken == there).all()
    else:
        longest = max(piece, budget // len(there))
        assert taken.max() <= longest
        assert taken.sum() > min(budget, np.minimum(there, longest).sum()) - least


@given(count=st.integers(1, 300))
def test_the_first_few_numbers_are_evenly_spaced(count: int) -> None:
    order = bank.evenly(count)
    assert sorted(order) == list(range(count))
    for few in {1, min(4, count), count // 2} - {0}:
        gaps = np.diff(np.concatenate([[0], np.sort(order[:few]), [count]]))
        assert gaps.max() <= 4 * count / few + 1


def test_few_long_clips_share_the_budget() -> None:
    assert bank.take(np.array([1000, 1000, 1000]), 300, 30, 10).tolist() == [100, 100, 100]
    assert bank.take(np.full(100, 1000), 300, 30, 10).tolist().count(30) == 10
    assert bank.take(np.array([1000, 5]), 300, 30, 10).tolist() == [150, 5]


def test_loud_floats_are_brought_to_full_scale(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(0.1, RATE) * 40, subtype="FLOAT")
    clip = bank.noise_bank(Noise(shards=[str(tmp_path)]), AUDIO, "cpu").samples.numpy()
    np.testing.assert_allclose(clip / 32768, tone(0.1, RATE) * 2, atol=2e-3)


def impulse(samples: int, delay: int, seed: int) -> np.ndarray:
    """A room: silence, the direct sound, echoes that decay."""
    wave = np.zeros(samples)
    wave[delay:] = sound(samples - delay, seed) * np.exp(-np.arange(samples - delay) / 500)
    wave[delay] = 0.9
    return wave


def test_rooms_are_aligned_cut_and_of_unit_energy(tmp_path: Path) -> None:
    for number, delay in enumerate((0, 37, 4000)):
        wave = impulse(3000 + delay, delay, number) * (1 if number else -0.2)
        write(tmp_path / f"{number}.wav", np.stack([wave, sound(len(wave), 9)], 1), subtype="FLOAT")
    write(tmp_path / "silent.wav", np.zeros(100))
    (tmp_path / "x.flac").write_bytes(b"fLaC")
    rooms = bank.rooms_bank(Reverb(shards=[str(tmp_path)], seconds=0.125), AUDIO, "cpu")
    assert rooms.impulses_RL.shape == (3, 2000)
    assert names(rooms.bad) == ["x.flac"]
    for number, (room, delay) in enumerate(zip(rooms.impulses_RL, (0, 37, 4000), strict=True)):
        expected = (impulse(3000 + delay, delay, number) * (1 if number else -0.2))[delay:][:2000]
        np.testing.assert_allclose(room, expected / np.sqrt((expected**2).sum()), atol=1e-6)
        assert int(room.abs().argmax()) == 0
        assert float(room.square().sum()) == pytest.approx(1, abs=1e-5)


def test_rooms_are_as_long_as_the_longest_and_as_many_as_asked(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.wav", impulse(100 + number, 0, number))
    rooms = bank.rooms_bank(Reverb(shards=[str(tmp_path)], rooms=5), AUDIO, "cpu", torch.float64)
    assert rooms.impulses_RL.shape == (5, 108)
    assert rooms.impulses_RL.dtype == torch.float64
    assert [int(room.nonzero().max()) + 1 for room in rooms.impulses_RL] == [100, 102, 104, 106, 108]


def test_rooms_of_shards_at_another_rate(shards: Path) -> None:
    rooms = bank.rooms_bank(Reverb(shards=[str(shards)]), Audio(sample_rate=8000), "cpu")
    assert len(rooms) == 5
    assert rooms.bad == []
    assert torch.isfinite(rooms.impulses_RL).all()


def test_spectra_are_those_of_the_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = bank.Rooms(torch.randn(4, 30))
    expected = np.fft.rfft(rooms.impulses_RL[:, :20].double().numpy(), 64)
    for _ in range(2):
        np.testing.assert_allclose(rooms.spectra(np.array([3, 1]), 20, 64), expected[[3, 1]], atol=1e-5)
        np.testing.assert_allclose(rooms.spectrum(2, 20, 64), expected[2], atol=1e-5)
        monkeypatch.setattr(bank, "TABLE", 0)


@pytest.mark.parametrize("kind", ["noise", "reverb"])
def test_errors_say_what_is_wrong_in_one_line(kind: str, folder: Path, tmp_path: Path) -> None:
    def load(path: Path) -> None:
        if kind == "noise":
            bank.noise_bank(Noise(shards=[str(path)]), AUDIO, "cpu")
        else:
            bank.rooms_bank(Reverb(shards=[str(path)]), AUDIO, "cpu")

    for good in ("a.wav", "f.ogg", "b/c.wav", "b/d/e.flac"):
        (folder / good).unlink()
    (tmp_path / "empty").mkdir()
    tars = tmp_path / "tars"
    tars.mkdir()
    (tars / "x.tar").write_bytes(b"\0" * 1024)
    for path, message in (
        (folder, "broken.flac: "),
        (tmp_path / "nowhere", "there is no such folder"),
        (tmp_path / "empty", "no clip of sound"),
        (tars, "no index"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match=rf"augment\.{kind}\.shards"):
        load(tmp_path / "empty")
    with pytest.raises(ValueError, match="runs a shell"):
        load("pipe:cat noise.tar")


def test_shards_at_an_address_are_those_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(3):
        write(tmp_path / f"source/noise/{number}.wav", sound(3000 + number, number))
    pack(tmp_path / "source", tmp_path / "shards", Options(workers=1, folds=2))
    with Faulty(tmp_path / "shards") as server:
        near, far = (
            bank.noise_bank(Noise(shards=[str(place)]), AUDIO, "cpu") for place in (tmp_path / "shards", server.address)
        )
    assert torch.equal(near.samples, far.samples) and (near.offsets == far.offsets).all() and len(far) == 3


def test_of_shards_with_several_classes_the_one_by_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("alarm", "noise", "rir", "noise")):
        write(source / f"{name}/{number}.wav", sound(3000 + number, number))
    pack(source, tmp_path / "shards", Options(workers=1, folds=2))
    noise = bank.noise_bank(Noise(shards=[str(tmp_path / "shards")]), AUDIO, "cpu")
    assert sorted(map(len, clips(noise))) == [3001, 3003]
    for clip in clips(noise):
        expected = soundfile.read(source / f"noise/{len(clip) - 3000}.wav", dtype="int16")[0]
        np.testing.assert_array_equal(clip, expected)
    rooms = bank.rooms_bank(Reverb(shards=[str(tmp_path / "shards")]), AUDIO, "cpu")
    room = soundfile.read(source / "rir/2.wav", dtype="float32")[0]
    assert len(rooms) == 1
    cut = bank.aligned(room, RATE)
    np.testing.assert_allclose(rooms.impulses_RL[0, : len(cut)], cut, atol=1e-6)
