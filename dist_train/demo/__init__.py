"""The demo's data: ten kinds of urban sound in the manner of UrbanSound8K, made here in seconds.

`generate(dest)` writes `audio/*.wav|flac|ogg` and `table.csv` (path,label,fold,group), the same bytes for a seed.
Every clip is cut from a recording that has one source, one room, one microphone and one background; a recording lies
in one fold, so folds measure new recordings and a random split would not. `ensure(shards)` packs it once.
"""

from __future__ import annotations

import csv
import shutil
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
from filelock import FileLock
from numpy.random import PCG64, Generator, SeedSequence

from dist_train import packing
from dist_train.packing import Progress

from .scene import Recording
from .sound import Wave
from .sources import SOURCES

FOLDS = 5
SHARD_MB = 8.0
"""Small, so that there are more shards than ranks."""
Row = tuple[str, str, int, str]
"""path, label, fold, group"""


def generate(
    dest: Path, seed: int = 0, recordings: int = 400, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write the demo's recordings to `dest`, which must be new or empty.

    recordings: how many, a multiple of 50 (ten classes, five folds); each gives 2 or 3 clips of 0.3 to 5 s.
    progress: called with recordings done and to do. Raises ValueError for a full folder or a bad number.
    """
    if recordings < 1 or recordings % (FOLDS * len(SOURCES)):
        raise ValueError(
            f"recordings={recordings}: not a multiple of {FOLDS * len(SOURCES)} (classes x folds); try 400"
        )
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ValueError(f"{dest} is there and not an empty folder; name another one or delete it")
    (dest / "audio").mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    try:
        with ThreadPoolExecutor() as threads:  # numpy and soundfile let go of the interpreter's lock
            jobs = threads.map(lambda index: record(dest, index, seed), range(recordings))
            for done, clips in enumerate(jobs, 1):
                rows += clips
                progress(done, recordings)
        write_table(dest / "table.csv", rows)
    except BaseException:  # a full disk, Ctrl-C: the folder must be empty for the next try
        shutil.rmtree(dest / "audio", ignore_errors=True)
        raise


def ensure(shards: Path, recordings: int = 400, progress: Progress = lambda stage, done, total: None) -> None:
    """Make the demo's shards at `shards` unless their index is there; a second process waits, then finds them.

    They appear at once and complete, by a rename. ValueError if something else lies at `shards`.
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
            build(building, recordings, progress)
            if shards.exists():
                shards.rmdir()
            (building / "shards").rename(shards)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def build(folder: Path, recordings: int, progress: Progress) -> None:
    """Recordings in `folder`/source, their shards in `folder`/shards."""
    generate(folder / "source", 0, recordings, lambda done, total: progress("synthesis", done, total))
    # One worker is this process: spawned ones would run the caller's main file again, be it a notebook or torchrun's.
    options = packing.Options(layout="csv", shard_mb=SHARD_MB, workers=1)
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


def write_audio(path: Path, wave: Wave, rate: int) -> None:
    """Write (frames, channels) as 16-bit WAV or FLAC, or as Vorbis, by the name's ending."""
    if path.suffix != ".ogg":
        soundfile.write(path, np.round(wave * 32767).astype(np.int16), rate, subtype="PCM_16")
        return
    with soundfile.SoundFile(path, "w", rate, wave.shape[1], format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(wave), rate):  # libsndfile's Vorbis writer overruns a thread's stack on long blocks
            file.write(wave[start : start + rate])
    path.write_bytes(ogg_with_serial(path.read_bytes(), 1))


def ogg_with_serial(data: bytes, serial: int) -> bytes:
    """The Ogg stream with this serial number (RFC 3533, section 6): libsndfile draws one from the clock."""
    pages, at = [], 0
    while at < len(data):
        table = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(table) + sum(table)
        page = (
            data[at : at + 14] + serial.to_bytes(4, "little") + data[at + 18 : at + 22] + bytes(4) + data[at + 26 : end]
        )
        pages.append(page[:22] + ogg_checksum(page).to_bytes(4, "little") + page[26:])
        at = end
    return b"".join(pages)


MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32 is zlib's with the bits of every byte mirrored and without its two inversions."""
    return int(f"{zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)


def write_table(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "fold", "group"))
        writer.writerows(rows)
