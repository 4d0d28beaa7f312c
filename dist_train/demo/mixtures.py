"""The demo of several labels: mixtures of one to three urban sounds, each at its own time and level.

`generate(dest)` writes `audio/*.flac` and `table.csv` (path,label,fold,group; labels joined with `;`), the same bytes
for a seed. A scene is ten recordings, one of each kind of sound, in one room before one microphone and one background;
all mixtures of a scene lie in one fold, so folds measure new sources.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from .scene import BACKGROUNDS, microphone, room
from .sound import Wave, rms, shaped
from .sources import SOURCES
from .table import FOLDS, Row, fill, write_audio

RATE = 16000
SECONDS = 3.0
MIXTURES = 20
"""Of a scene."""
MOST = 3
"""Labels of a clip."""


def generate(
    dest: Path, seed: int = 0, recordings: int = 400, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write the mixtures to `dest`, which must be new or empty.

    recordings: how many sources, a multiple of 50 (ten classes, five folds); twice as many clips of 3 s come of them.
    progress: called with recordings done and to do. Raises ValueError for a full folder or a bad number.
    """
    fill(dest, lambda index: scene(dest, index, seed), recordings // len(SOURCES), len(SOURCES), recordings, progress)


def scene(dest: Path, index: int, seed: int) -> list[Row]:
    """Make the ten recordings of a scene and write its mixtures; random numbers depend on seed and index only."""
    rng = Generator(PCG64(SeedSequence((seed, 1, index))))
    voices = [source(rng) for source in SOURCES.values()]
    hear, response = room(rng), microphone(rng)
    background, ground_db = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng), rng.uniform(-35, -20)
    rows: list[Row] = []
    for take in range(MIXTURES):
        count = int(SECONDS * RATE)
        chosen = sorted(rng.choice(len(voices), rng.integers(1, MOST + 1), replace=False))
        dry = sum((event(voices[number](count, RATE, rng), rng) for number in chosen), np.zeros(count))
        ground = background(count, RATE, rng)
        ground *= 10 ** (ground_db / 20) / rms(ground)
        wave = shaped(hear(dry, RATE, 0) + ground, RATE, response)
        gain = 10 ** (rng.uniform(-32, -12) / 20) / rms(wave)
        path = f"audio/{index:04d}-{take:02d}.flac"
        write_audio(dest / path, wave[:, None] * min(gain, 0.95 / float(np.abs(wave).max())), RATE)
        names = ";".join(list(SOURCES)[number] for number in chosen)
        rows.append((path, names, 1 + index % FOLDS, f"scene-{index:04d}"))
    return rows


def event(wave: Wave, rng: Generator) -> Wave:
    """A sound cut to half of the clip at least, somewhere in it, at a level from -8 to 0 dB."""
    length = int(len(wave) * rng.uniform(0.5, 1))
    start = int(rng.integers(0, len(wave) - length + 1))
    out = np.zeros(len(wave))
    out[start : start + length] = wave[:length] / rms(wave[:length]) * 10 ** (rng.uniform(-8, 0) / 20)
    return out
