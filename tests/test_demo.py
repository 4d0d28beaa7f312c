"""The demo's data is what it claims: no single number gives the class away, new recordings are harder than clips."""

import csv
import filecmp
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray

from dist_train import demo, shards

ROOT = Path(__file__).parents[1]
Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Guess = Callable[[Array, Ids, Array], Ids]
"""(features and classes to learn from, features to name) -> classes."""


@dataclass
class Clips:
    """One entry a clip, in the table's order. looks: mean and deviation over time of 80 Fbank bins at 16 kHz."""

    folder: Path
    rows: list[dict[str, str]]
    waves: list[torch.Tensor]
    rates: list[int]
    channels: list[int]
    looks: Array
    label: Ids
    fold: Ids
    group: Ids

    def column(self, value: Callable[[torch.Tensor], float]) -> Array:
        return np.array([[value(wave)] for wave in self.waves])


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder = tmp_path_factory.mktemp("demo") / "urban"
    demo.generate(folder)
    rows = table(folder)
    read = [soundfile.read(folder / row["path"], dtype="float32", always_2d=True) for row in rows]
    waves = [torch.from_numpy(data.mean(1)) for data, _ in read]
    looks = np.stack([look(wave, rate) for wave, (_, rate) in zip(waves, read, strict=True)])
    ids = [np.unique([row[name] for row in rows], return_inverse=True)[1] for name in ("label", "fold", "group")]
    return Clips(folder, rows, waves, [rate for _, rate in read], [data.shape[1] for data, _ in read], looks, *ids)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def look(wave: torch.Tensor, rate: int) -> Array:
    wave = torchaudio.functional.resample(wave, rate, 16000)
    bank = torchaudio.compliance.kaldi.fbank(wave[None] * 32768, num_mel_bins=80, dither=0.0).double().numpy()
    return np.concatenate([bank.mean(0), bank.std(0)])


def nearest_centroid(known: Array, label: Ids, asked: Array) -> Ids:
    centres = np.stack([known[label == one].mean(0) for one in np.unique(label)])
    return ((asked[:, None] - centres) ** 2).sum(-1).argmin(1)


def nearest_clip(known: Array, label: Ids, asked: Array) -> Ids:
    return label[((asked[:, None] - known) ** 2).sum(-1).argmin(1)]


def accuracy(guess: Guess, features: Array, label: Ids, fold: Ids) -> float:
    """Mean over the folds: learn from the others, with features standardised there, and name this one's clips."""
    scores = []
    for held in np.unique(fold):
        mean, deviation = features[fold != held].mean(0), features[fold != held].std(0) + 1e-9
        standard = (features - mean) / deviation
        named = guess(standard[fold != held], label[fold != held], standard[fold == held])
        scores.append(np.mean(named == label[fold == held]))
    return float(np.mean(scores))


def decibels(value: torch.Tensor) -> float:
    return float(20 * torch.log10(value + 1e-9))


def test_the_table_is_complete_and_balanced(clips: Clips) -> None:
    assert list(clips.rows[0]) == ["path", "label", "fold", "group"]
    assert {row["path"] for row in clips.rows} == {f"audio/{path.name}" for path in (clips.folder / "audio").iterdir()}
    recordings = {row["group"]: (row["label"], row["fold"]) for row in clips.rows}
    assert set(Counter(recordings.values()).values()) == {8}
    assert set(recordings.values()) == {(label, str(fold)) for label in demo.SOURCES for fold in range(1, 6)}


def test_a_recording_has_one_class_one_fold_and_one_format(clips: Clips) -> None:
    seen = defaultdict(set)
    for row, rate, channels in zip(clips.rows, clips.rates, clips.channels, strict=True):
        seen[row["group"]].add((row["label"], row["fold"], Path(row["path"]).suffix, rate, channels))
    assert {len(kinds) for kinds in seen.values()} == {1}


def test_formats_rates_and_lengths_are_mixed(clips: Clips) -> None:
    suffixes = Counter(Path(row["path"]).suffix for row in clips.rows)
    assert set(suffixes) == {".wav", ".flac", ".ogg"}
    assert suffixes[".wav"] > len(clips.rows) / 2
    assert set(clips.rates) == {8000, 16000, 22050, 44100, 48000}
    assert set(clips.channels) == {1, 2}
    seconds = np.array([len(wave) for wave in clips.waves]) / clips.rates
    assert 0.29 < seconds.min() < 0.5
    assert 3.5 < seconds.max() <= 5
    assert 25e6 < sum(path.stat().st_size for path in (clips.folder / "audio").iterdir()) < 40e6


def test_levels_are_spread_and_no_clip_is_silent(clips: Clips) -> None:
    level = clips.column(lambda wave: decibels(wave.square().mean().sqrt()))
    assert -49 < level.min() < -40
    assert -12 < level.max() < -3
    assert all(wave.isfinite().all() and wave.abs().max() <= 1.3 for wave in clips.waves)  # Vorbis overshoots a little


@pytest.mark.parametrize("guess", [nearest_centroid, nearest_clip])
@pytest.mark.parametrize(
    "value",
    [
        lambda wave: decibels(wave.square().mean().sqrt()),
        lambda wave: decibels(wave.abs().max()),
    ],
    ids=["rms", "peak"],
)
def test_level_does_not_give_the_class_away(clips: Clips, guess: Guess, value: Callable[[torch.Tensor], float]) -> None:
    assert accuracy(guess, clips.column(value), clips.label, clips.fold) < 0.25


@pytest.mark.parametrize("guess", [nearest_centroid, nearest_clip])
def test_length_does_not_give_the_class_away(clips: Clips, guess: Guess) -> None:
    seconds = np.log([[len(wave) / rate] for wave, rate in zip(clips.waves, clips.rates, strict=True)])
    assert accuracy(guess, seconds, clips.label, clips.fold) < 0.25


def test_the_spectrum_alone_does_not_give_the_class_away(clips: Clips) -> None:
    assert 0.15 < accuracy(nearest_centroid, clips.looks, clips.label, clips.fold) < 0.6


def test_a_random_split_leaks_and_the_folds_do_not(clips: Clips) -> None:
    shuffled = np.random.default_rng(0).permutation(clips.fold)
    random_split = accuracy(nearest_clip, clips.looks, clips.label, shuffled)
    assert random_split - accuracy(nearest_clip, clips.looks, clips.label, clips.fold) > 0.2


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        demo.generate(tmp_path / name, seed, recordings=50)
    paths = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert {path.suffix for path in paths} == {".csv", ".wav", ".flac", ".ogg"}
    equal, differ, missing = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", map(str, paths), shallow=False)
    assert (len(equal), differ, missing) == (len(paths), [], [])
    assert table(tmp_path / "other") != table(tmp_path / "one")


def test_ogg_keeps_its_sound_when_its_serial_number_changes(clips: Clips, tmp_path: Path) -> None:
    source = next((clips.folder / "audio").glob("*.ogg"))
    data = demo.ogg_with_serial(source.read_bytes(), 99)
    (tmp_path / "changed.ogg").write_bytes(data)
    before, after = soundfile.read(source)[0], soundfile.read(tmp_path / "changed.ogg")[0]
    assert data != source.read_bytes()
    assert np.array_equal(before, after)
    assert demo.ogg_with_serial(data, 1) == source.read_bytes()


@pytest.mark.parametrize("recordings", [0, 30, -50])
def test_an_uneven_number_of_recordings_is_refused(tmp_path: Path, recordings: int) -> None:
    with pytest.raises(ValueError, match="multiple of 50"):
        demo.generate(tmp_path / "urban", recordings=recordings)
    assert not (tmp_path / "urban").exists()


def test_ensure_packs_once_for_all_who_ask(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(demo.ensure, [tmp_path / "deep/demo"] * 2, [50] * 2))
    packed = shards.open_set(tmp_path / "deep/demo")
    assert packed.classes == tuple(demo.SOURCES)
    assert set(packed.rows["fold"]) == {1, 2, 3, 4, 5}
    assert len(np.unique(packed.rows["group"])) == 50
    before = (tmp_path / "deep/demo/index.json").stat().st_mtime_ns
    demo.ensure(tmp_path / "deep/demo")
    assert (tmp_path / "deep/demo/index.json").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "deep").iterdir() if path.is_dir()] == ["demo"]


def test_ensure_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no shard set"):
        demo.ensure(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "tools/make_demo.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_the_command_writes_what_the_function_does(tmp_path: Path) -> None:
    done = command(str(tmp_path / "urban"), "--recordings", "50", "--seed", "7")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    demo.generate(tmp_path / "direct", 7, recordings=50)
    assert table(tmp_path / "urban") == table(tmp_path / "direct")


def test_the_command_refuses_a_full_folder_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = command(str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "not an empty folder" in done.stderr
