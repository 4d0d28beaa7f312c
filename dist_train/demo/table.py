"""What the demos write: sound files of reproducible bytes, and the table of their labels, folds and groups."""

from __future__ import annotations

import csv
import shutil
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from dist_train.disk import writable

from .sound import Wave

FOLDS = 5
Row = tuple[str, str, int, str]
"""path, label, fold, group"""


def fill(
    dest: Path,
    make: Callable[[int], list[Row]],
    count: int,
    classes: int,
    recordings: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write `make(0)` ... `make(count - 1)` and their table to `dest`, which must be new or empty, or nothing of it.

    progress: called with recordings done and to do. Raises ValueError for a full folder, or for a number of recordings
    that does not divide by classes and folds.
    """
    if recordings < 1 or recordings % (FOLDS * classes):
        raise ValueError(f"recordings={recordings}: not a multiple of {FOLDS * classes} (classes x folds); try 400")
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ValueError(f"{dest} is there and not an empty folder; name another one or delete it")
    writable(dest)
    (dest / "audio").mkdir(exist_ok=True)
    rows: list[Row] = []
    try:
        with ThreadPoolExecutor() as threads:  # numpy and soundfile let go of the interpreter's lock
            for done, clips in enumerate(threads.map(make, range(count)), 1):
                rows += clips
                progress(done * recordings // count, recordings)
        write_table(dest / "table.csv", rows)
    except BaseException:  # a full disk, Ctrl-C: the folder must be empty for the next try
        shutil.rmtree(dest / "audio", ignore_errors=True)
        raise


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
