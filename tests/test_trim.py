"""Trimming at packing: what stays is what was measured, joined as it lay, the same for any blocks and workers."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dist_train.assembly import trim
from dist_train.assembly.options import Options
from dist_train.packing import Report, pack

RATE = 8000
FRAME = 160  # 20 ms at 8 kHz
needs_vad = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")
Wave = NDArray[np.float32]


def noise(seconds: float, level: float = 0.1, rate: int = RATE, channels: int = 1) -> Wave:
    """Uniform noise of that RMS."""
    wave = np.random.default_rng(round(1000 * seconds)).uniform(-1, 1, (round(seconds * rate), channels))
    return (level * np.sqrt(3) * wave).astype(np.float32)


def zeros(seconds: float, rate: int = RATE, channels: int = 1) -> Wave:
    return np.zeros((round(seconds * rate), channels), np.float32)


def speech(syllables: int, rate: int, seed: int) -> Wave:
    """Vowels of three formants on a wavering pitch, with consonants of noise before them, (frames, 1)."""
    random = np.random.default_rng(seed)
    vowels = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480)]
    parts = []
    for _ in range(syllables):
        time = np.arange(round(random.uniform(0.12, 0.25) * rate)) / rate
        pitch, formants = random.uniform(100, 150), vowels[random.integers(4)]
        phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.03 * np.sin(10 * np.pi * time))) / rate
        gains = [
            sum(
                strength / (1 + ((pitch * k - formant) / 100) ** 2)
                for formant, strength in zip(formants, (1, 0.4, 0.2), strict=True)
            )
            for k in range(1, int(3500 / pitch))
        ]
        vowel = sum(gain * np.sin(k * phase) for k, gain in enumerate(gains, 1))
        consonant = random.normal(0, 0.15, round(0.05 * rate)) * np.hanning(round(0.05 * rate))
        parts += [consonant, 0.3 * vowel * np.minimum(1, np.minimum(time, time[::-1]) / 0.04)]
    wave = np.concatenate(parts)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)[:, None]


def blocks(wave: Wave, ends: list[int]) -> list[Wave]:
    return np.split(wave, sorted(end for end in ends if end < len(wave)))


def put(path: Path, wave: Wave, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype="FLOAT")


def packed(source: Path, dest: Path, **chosen: Any) -> tuple[Report, dict[str, dict[str, Any]]]:
    """The report, and each clip's JSON with its `wave`, by the name of its recording."""
    report = pack(source, dest, Options(**{"sample_rate": RATE, "workers": 1, "folds": 0, **chosen}))
    found = {}
    for sample in webdataset.WebDataset([str(path) for path in sorted(dest.glob("*.tar"))], shardshuffle=False):
        record = json.loads(sample["json"])
        record["wave"] = soundfile.read(io.BytesIO(sample["wav"]), dtype="int16", always_2d=True)[0]
        found[f"{record['source']}@{record.get('start', 0)}"] = record
    return report, found


@given(
    before=st.integers(0, 700),
    inside=st.integers(1, 900),
    after=st.integers(0, 700),
    channels=st.integers(1, 2),
    ends=st.lists(st.integers(0, 2300), max_size=4),
)
def test_silence_ends_at_the_frames_with_sound(
    before: int, inside: int, after: int, channels: int, ends: list[int]
) -> None:
    wave = np.zeros((before + inside + after, channels), np.float32)
    wave[before : before + inside] = np.where(np.arange(inside) % 2, 0.25, -0.25)[:, None]
    loud = [  # frames with so many samples that they lie within 10 dB of the loudest: a tenth of its samples
        number
        for number in range(-(-len(wave) // FRAME))
        if np.square(wave[number * FRAME : (number + 1) * FRAME, 0], dtype=np.float64).mean()
        >= 0.1 * max(np.square(wave[i : i + FRAME, 0], dtype=np.float64).mean() for i in range(0, len(wave), FRAME))
    ]
    expected = [(loud[0] * FRAME, min(len(wave), (loud[-1] + 1) * FRAME))]
    assert trim.silence(blocks(wave, ends), RATE, 10.0) == expected
    if before % FRAME == 0 and inside % FRAME == 0:
        assert expected == [(before, before + inside)]


def test_channels_in_opposite_phase_are_no_silence() -> None:
    half = noise(0.1)
    wave = np.concatenate([zeros(0.1, channels=2), np.hstack([half, -half])])
    assert trim.silence([wave], RATE, 40.0) == [(800, 1600)]


@pytest.mark.parametrize("wave", [zeros(0.3), zeros(0)])
def test_nothing_but_zeros_has_no_part(wave: Wave) -> None:
    assert trim.silence([wave], RATE, 40.0) == []
    assert trim.silence([], RATE, 40.0) == []


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.lists(st.integers(0, 300), max_size=5))
def test_parts_are_joined_as_they_lie(steps: list[int], ends: list[int]) -> None:
    wave = np.arange(300, dtype=np.float32)[:, None]
    bounds = np.cumsum(steps)
    parts = [(int(first), int(end)) for first, end in zip(bounds[::2], bounds[1::2], strict=False)]
    found = list(trim.joined(blocks(wave, ends), parts))
    expected = [wave[first:end] for first, end in parts]
    np.testing.assert_array_equal(np.concatenate([wave[:0], *found]), np.concatenate([wave[:0], *expected]))


def test_what_is_packed_is_the_part_with_sound(tmp_path: Path) -> None:
    sound = noise(0.4)
    put(tmp_path / "in/a/1.wav", np.concatenate([zeros(0.3), sound, noise(0.2, 1e-4)]))
    put(tmp_path / "in/a/2.wav", sound)
    put(tmp_path / "in/b/silent.wav", zeros(0.5))
    report, found = packed(tmp_path / "in", tmp_path / "out", trim="silence")
    one, two, silent = found["a/1.wav@0"], found["a/2.wav@0"], found["b/silent.wav@0"]
    np.testing.assert_array_equal(one["wave"], np.rint(sound * 32768).astype(np.int16))
    assert (one["kept"], one["trimmed"]) == ([[0.3, 0.7]], 0.5)
    assert (two["kept"], two["trimmed"]) == ([[0.0, 0.4]], 0.0)
    assert len(silent["wave"]) == 4000 and silent["trimmed"] == 0 and "kept" not in silent
    assert report.untrimmed == ["b/silent.wav"] and report.trimmed == pytest.approx(0.5)
    assert report.seconds == pytest.approx(0.4 + 0.4 + 0.5)


def test_a_limit_of_more_decibels_keeps_quieter_ends(tmp_path: Path) -> None:
    put(tmp_path / "in/a/1.wav", np.concatenate([noise(0.2, 1e-3), noise(0.4)]))
    put(tmp_path / "in/b/1.wav", noise(0.1))
    for limit, kept in ((30.0, [[0.2, 0.6]]), (60.0, [[0.0, 0.6]])):
        _, found = packed(tmp_path / "in", tmp_path / f"{limit}", trim="silence", trim_limit=limit)
        assert found["a/1.wav@0"]["kept"] == kept


def test_cuts_of_a_table_are_trimmed_and_told_in_time_of_the_recording(tmp_path: Path) -> None:
    wave = np.concatenate([zeros(0.5), noise(0.2), zeros(0.3), noise(0.5), zeros(0.5)])
    put(tmp_path / "long.wav", wave)
    (tmp_path / "t.csv").write_text("path,label,start,end\nlong.wav,x,0,0.9\nlong.wav,y,0.9,2\n")
    _, found = packed(tmp_path / "t.csv", tmp_path / "out", trim="silence")
    first, second = found["long.wav@0.0"], found["long.wav@0.9"]
    assert (first["kept"], first["trimmed"], first["end"]) == ([[0.5, 0.7]], 0.7, 0.9)
    assert (second["kept"], second["trimmed"]) == ([[1.0, 1.5]], 0.6)
    np.testing.assert_array_equal(second["wave"], np.rint(wave[8000:12000] * 32768).astype(np.int16))


def test_clips_that_trimming_makes_short_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "in/a/1.wav", np.concatenate([noise(0.1), zeros(0.5)]))
    put(tmp_path / "in/b/1.wav", noise(0.4))
    report, found = packed(tmp_path / "in", tmp_path / "out", trim="silence", min_seconds=0.2)
    assert list(found) == ["b/1.wav@0"] and [name for name, _ in report.short] == ["a/1.wav"]


def test_workers_and_resuming_do_not_change_the_bytes(tmp_path: Path) -> None:
    for number in range(12):
        put(tmp_path / f"in/{number % 2}/{number}.wav", np.concatenate([zeros(0.05 * number), noise(0.2), zeros(0.1)]))
    put(tmp_path / "in/1/silent.wav", zeros(0.2))
    chosen = {"trim": "silence", "shard_mb": 0.02}
    reports = [packed(tmp_path / "in", tmp_path / f"{n}", workers=n, **chosen)[0] for n in (1, 2)]
    names = sorted(path.name for path in (tmp_path / "1").glob("*.tar"))
    assert len(names) > 2
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    again, _ = packed(tmp_path / "in", tmp_path / "1", **chosen)
    assert again.kept == again.shards and again.untrimmed == reports[0].untrimmed == ["1/silent.wav"]
    assert again.trimmed == pytest.approx(reports[0].trimmed)
    for other in ({}, {"trim": "silence", "trim_limit": 50.0}):
        with pytest.raises(ValueError, match=r"holds another packing .*trim_limit was 40"):
            packed(tmp_path / "in", tmp_path / "1", shard_mb=0.02, **other)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"trim": "quiet"}, "--trim quiet: is none of silence, vad"),
        ({"trim_limit": 3.0}, "--trim-limit 3.0: is for --trim silence or vad"),
        ({"trim": "silence", "trim_limit": 0.5}, "is not from 1 to 120"),
        ({"trim": "vad", "trim_limit": 40.0}, r"is not from 0\.01 to 0\.99"),
        ({"trim": "silence", "codec": "original"}, "--codec original cannot"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, chosen: dict[str, Any], message: str) -> None:
    put(tmp_path / "in/a/1.wav", noise(0.1))
    with pytest.raises(ValueError, match=message):
        packed(tmp_path / "in", tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in/a/1.wav", noise(0.1))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"install it with pip install -e '\.\[vad\]'"):
        packed(tmp_path / "in", tmp_path / "out", trim="vad")


@needs_vad
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (22050, 2)])
def test_stretches_of_speech_are_joined(tmp_path: Path, rate: int, channels: int) -> None:
    """Speech from 1 s on and after a pause of 2 s; packed at 8 kHz, found at 16 kHz whatever the recording's rate."""
    one, two = speech(6, rate, 1), speech(6, rate, 2)
    wave = np.concatenate([zeros(1, rate), one, zeros(2, rate), two, zeros(1, rate)])
    wave = wave + 1e-3 * np.random.default_rng(0).standard_normal(wave.shape).astype(np.float32)
    put(tmp_path / "in/x/1.wav", np.repeat(wave, channels, 1), rate)
    put(tmp_path / "in/y/noise.wav", noise(1.5, 0.02, rate), rate)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    report, found = packed(tmp_path / "in", tmp_path / "out", trim="vad")
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    clip, hiss = found["x/1.wav@0"], found["y/noise.wav@0"]
    second = 3 + len(one) / rate
    bounds = [(1, 1 + len(one) / rate), (second, second + len(two) / rate)]
    assert np.abs(np.array(clip["kept"]) - bounds).max() < 0.3
    left = sum(end - start for start, end in clip["kept"])
    assert len(clip["wave"]) == pytest.approx(left * RATE, abs=4)
    assert clip["trimmed"] == pytest.approx(len(wave) / rate - left, abs=1e-4)
    assert "kept" not in hiss and len(hiss["wave"]) == 1.5 * RATE and report.untrimmed == ["y/noise.wav"]


@needs_vad
def test_what_came_before_does_not_matter() -> None:
    one, two = (np.concatenate([zeros(0.3, 16000), speech(5, 16000, seed), zeros(0.3, 16000)]) for seed in (4, 5))
    alone = trim.speech([two], 16000, 0.5)
    assert alone and trim.speech([one], 16000, 0.5) != alone == trim.speech([two[:7000], two[7000:]], 16000, 0.5)


@needs_vad
def test_a_stricter_limit_keeps_no_more() -> None:
    wave = np.concatenate([zeros(0.5, 16000), speech(5, 16000, 3), zeros(0.5, 16000)])
    wave = wave + 0.02 * np.random.default_rng(1).standard_normal(wave.shape).astype(np.float32)
    kept = [sum(end - first for first, end in trim.speech([wave], 16000, limit)) for limit in (0.3, 0.5, 0.95)]
    assert kept[0] >= kept[1] >= kept[2] and kept[0] > 0
