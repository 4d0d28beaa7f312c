"""The demo's data: ten kinds of urban sound in the manner of UrbanSound8K, made here in seconds.

`generate(dest)` writes `audio/*.wav|flac|ogg` and `table.csv` (path,label,fold,group), the same bytes for a seed.
Every clip is cut from a recording that has one source, one room, one microphone and one background; a recording lies
in one fold, so folds measure new recordings and a random split would not. `ensure(shards)` packs it once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from numpy.random import PCG64, Generator, SeedSequence

from dist_train import packing
from dist_train.assembly.jobs import Progress
from dist_train.assembly.options import Options

from . import mixtures
from .scene import Recording
from .sources import SOURCES
from .table import FOLDS, Row, fill, ogg_with_serial, write_audio

__all__ = ["FOLDS", "SOURCES", "build", "ensure", "generate", "mixtures", "ogg_with_serial", "record"]

SHARD_MB = 8.0
"""Small, so that there are more shards than ranks."""
Make = Callable[[Path, int, int, Callable[[int, int], None]], None]
"""Writes a folder of so many recordings by a seed."""


def generate(
    dest: Path, seed: int = 0, recordings: int = 400, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write the demo's recordings to `dest`, which must be new or empty.

    recordings: how many, a multiple of 50 (ten classes, five folds); each gives 2 or 3 clips of 0.3 to 5 s.
    progress: called with recordings done and to do. Raises ValueError for a full folder or a bad number.
    """
    fill(dest, lambda index: record(dest, index, seed), recordings, len(SOURCES), recordings, progress)


def ensure(
    shards: Path,
    recordings: int = 400,
    progress: Progress = lambda stage, done, total: None,
    make: Make = generate,
) -> None:
    """Make a demo's shards at `shards` unless their index is there; a second process waits, then finds them.

    `make` writes its recordings: `generate`, or `mixtures.generate`. They appear at once and complete, by a rename.
    ValueError if something else lies at `shards`.
    """
    shards.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(shards.parent / f".{shards.name}.lock"):
        if (shards / "index.json").is_file():
            return
        if shards.exists() and (not shards.is_dir() or any(shards.iterdir())):
            raise ValueError(f"{shards} is no shard set and not empty: delete it, or set data.shards to another folder")
        building = shards.parent / f".{shards.name}.building"
        shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
        try:
            build(building, recordings, progress, make)
            if shards.exists():
                shards.rmdir()
            (building / "shards").rename(shards)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def build(folder: Path, recordings: int, progress: Progress, make: Make = generate) -> None:
    """Recordings in `folder`/source, their shards in `folder`/shards."""
    make(folder / "source", 0, recordings, lambda done, total: progress("synthesis", done, total))
    # One worker is this process: spawned ones would run the caller's main file again, be it a notebook or torchrun's.
    options = Options(layout="csv", shard_mb=SHARD_MB, workers=1)
    packing.pack(folder / "source/table.csv", folder / "shards", options, progress)


def record(dest: Path, index: int, seed: int) -> list[Row]:
    """Make recording `index` and write its clips; its random numbers depend on seed and index only."""
    rng = Generator(PCG64(SeedSequence((seed, index))))
    label = list(SOURCES)[index % len(SOURCES)]
    fold = 1 + index // len(SOURCES) % FOLDS
    group = f"recording-{index:04d}"
    recording = Recording(label, rng)
    rows: list[Row] = []
    for take in range(rng.integers(2, 4)):
        path = f"audio/{index:04d}-{take}.{container(recording)}"
        write_audio(dest / path, recording.cut(rng), recording.rate)
        rows.append((path, label, fold, group))
    return rows


def container(recording: Recording) -> str:
    """Low rates as WAV, the middle as FLAC, high rates and stereo as OGG: all together stay near 30 MB."""
    if recording.rate <= 16000:
        return "wav"
    return "flac" if recording.rate <= 24000 and recording.channels == 1 else "ogg"
