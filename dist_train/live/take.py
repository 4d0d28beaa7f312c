"""A piece of sound -> a WAV file of 16 bits, in a folder of its class, under a name that nothing had before.

DEST/LABEL/0001.wav, 0002.wav, ...       with --group: DEST/LABEL/GROUP-0001.wav, and DEST/takes.csv
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import numpy as np
import soundfile

from dist_train import disk
from dist_train.live.ring import Wave
from dist_train.sources import tables
from dist_train.sources.layouts import IGNORED
from dist_train.sources.recordings import SUFFIXES
from dist_train.sources.samples import label, nfc, spelled

TABLE = "takes.csv"
FIELDS = ("path", "label", "group")
UNSAFE = '/\\:*?"<>|' if os.name == "nt" else "/"  # what the file system refuses in a name


def encoded(wave_TC: Wave, rate: int) -> bytes:
    """The bytes of a WAV of samples (T, C); 16 bits by rounding and clipping, as at packing."""
    file = io.BytesIO()
    whole_TC = np.clip(np.rint(wave_TC * np.float32(32768)), -32768, 32767).astype(np.int16)
    soundfile.write(file, whole_TC, rate, subtype="PCM_16", format="WAV")
    return file.getvalue()


def folder(name: str) -> str:
    """A class's name as the name of a folder; signs that the file system refuses are written as %XX."""
    safe = "".join(quote(letter, safe="") if letter in UNSAFE else letter for letter in nfc(name))
    return re.sub(r"^\.|\.$" if os.name == "nt" else r"^\.", "%2E", safe)


def checked(text: str, what: str) -> str:
    """A class or group that names a folder or file as it stands. ValueError: it cannot."""
    name = label(text, what)
    if folder(name) != name or name in IGNORED or len(name.encode()) > 200:
        signs = " ".join(UNSAFE)
        raise ValueError(f"{what} {text}: cannot name a folder; leave out {signs} and dots at its ends, make it short")
    return name


def write(place: Path, prefix: str, wave_TC: Wave, rate: int) -> Path:
    """Write the next file PREFIX0001.wav, PREFIX0002.wav, ... of a folder. OSError: what the disk says."""
    data = encoded(wave_TC, rate)
    place.mkdir(parents=True, exist_ok=True)
    named = re.compile(re.escape(prefix) + r"(\d+)", re.ASCII)
    taken = [named.fullmatch(nfc(path.stem)) for path in place.iterdir()]
    number = max((int(found[1]) for found in taken if found), default=0)
    while True:
        number += 1
        path = place / f"{prefix}{number:04d}.wav"
        try:
            with path.open("xb") as file:
                _whole(path, file, data)
            return path
        except FileExistsError:  # another recorder was quicker
            continue


def _whole(path: Path, file: BinaryIO, data: bytes) -> None:
    """All of it, or no file."""
    try:
        file.write(data)
        file.flush()
    except OSError:
        path.unlink()
        raise


@dataclass(frozen=True)
class Table:
    """DEST/takes.csv: path, label and group of every recording below DEST, for `make_shards.py pack DEST`."""

    root: Path

    @property
    def path(self) -> Path:
        return self.root / TABLE

    def fits(self, name: str) -> None:
        """ValueError: a table that is none of ours is in the way, or the class cannot stand in one."""
        if ";" in name:
            raise ValueError(f"LABEL {name}: {TABLE} parts labels at `;`; rename the class, or record without --group")
        self.groups()

    def add(self, paths: Iterable[Path], group: str) -> None:
        """Name the group of new takes; recordings that no row names yet are added with none, rows without a file go."""
        groups = self.groups() | {spelled(path.relative_to(self.root)): group for path in paths}
        rows = []
        for place in sorted(path for path in self.root.iterdir() if path.is_dir() and path.name[0] != "."):
            for found in sorted(place.rglob("*")):
                if found.suffix.lower() in SUFFIXES and found.name[0] != ".":
                    below = spelled(found.relative_to(self.root))
                    rows.append((below, nfc(place.name), groups.get(below, "")))
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(FIELDS)
        writer.writerows(rows)
        disk.replace(self.path, lambda file: file.write(text.getvalue().encode()))

    def groups(self) -> dict[str, str]:
        """Group by path below DEST. ValueError: a table that is none of ours is in the way."""
        if not self.path.exists():
            return {}
        if tuple(tables.columns(self.path)) != FIELDS:
            raise ValueError(f"{self.path}: its columns are not {','.join(FIELDS)}; move it away, or leave out --group")
        return {unicodedata.normalize("NFC", row["path"]): row["group"] for _, row in tables.rows(self.path)}
