"""A folder or an address with sounds in it -> how many there are, how long, and the sounds themselves.

In: tar shards (with their index.json), or recordings in any depth below a folder. Out: mono waves at audio.sample_rate.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from dist_train.archive.row import INDEX
from dist_train.clouds import remote
from dist_train.reader import Reader
from dist_train.resample import Resamplers
from dist_train.settings import Audio
from dist_train.shards import open_set
from dist_train.sources.recordings import SUFFIXES, Unreadable, header, open_cut
from dist_train.storage import local
from dist_train.supply.source import of_view
from dist_train.view import choose
from dist_train.waves import Waves
from dist_train.window import full_windows

Ints = NDArray[np.int64]
Sound = NDArray[np.float32]

MARGIN = 0.1  # seconds read past the end, so that a resampler's filter sees what comes there


@dataclass(frozen=True)
class Sounds:
    """One folder of `count` clips. lengths: samples of each at audio.sample_rate; sounds: for the numbers of clips and
    how many samples of each at most, the sound from its start on, or why it cannot be read."""

    count: int
    name: Callable[[int], str]
    lengths: Callable[[], Ints]
    sounds: Callable[[Ints, Ints], Iterator[Sound | str]]

    def read(self, numbers: Ints, samples: Ints) -> tuple[list[Sound], list[str]]:
        """The sounds that can be read, and "NAME: REASON" of the others."""
        found, bad = [], []
        for number, sound in zip(numbers.tolist(), self.sounds(numbers, samples), strict=True):
            if isinstance(sound, str):
                bad.append(f"{self.name(number)}: {sound}")
            else:
                found.append(sound)
        return found, bad


def opened(name: str, audio: Audio, key: str, label: str) -> Sounds:
    """The sounds below a folder or address; of shards with a class `label` those of it alone. ValueError: none there;
    `key` is the setting that named it."""
    if remote(name):
        return _shards(name, audio, label)
    if not (root := local(name)).exists():
        raise ValueError(f"{root}: there is no such folder; name folders of shards or of recordings in {key}")
    if root.name == INDEX or (root / INDEX).is_file() or (root.is_dir() and any(root.glob("*.tar"))):
        return _shards(root, audio, label)
    return _recordings(root, audio)


def _shards(root: Path | str, audio: Audio, label: str) -> Sounds:
    """The clips of a set of shards, converted by `Waves`; where one of its classes is `label`, those of it alone."""
    view = choose([one := open_set(root)])
    if "features" in one.info:
        raise ValueError(f"{root}: holds packed features, not sound; name shards of audio")
    ids = np.arange(len(view))
    if label in view.classes:
        ids = np.flatnonzero(view.rows(ids)["label"] == view.classes.index(label))

    def lengths() -> Ints:
        rows = view.rows(ids)
        frames, rate = rows["frames"].astype(np.int64), rows["rate"].astype(np.int64)
        return np.asarray(-(-frames * audio.sample_rate // rate))

    def sounds(numbers: Ints, samples: Ints) -> Iterator[Sound | str]:
        waves = Waves(audio, [], Resamplers(torch.device("cpu")))
        seconds = samples / audio.sample_rate
        # One clip a request, since lengths differ.
        requests = (
            full_windows(view.rows(number), number, audio, longest)
            for number, longest in zip(ids[numbers][:, None], seconds.tolist(), strict=True)
        )
        with Reader(of_view(view), requests, depth=8) as reader:
            for raw in reader:
                if raw.bad:
                    yield raw.bad[0][1]
                else:
                    wave_RCT = waves(raw.data, raw.plan, int(raw.plan["length"][0]), None, np.zeros(1))
                    yield wave_RCT[0, 0].numpy().copy()

    return Sounds(len(ids), lambda number: f"{root}, {view.key(int(ids[number]))}", lengths, sounds)


def _recordings(root: Path, audio: Audio) -> Sounds:
    """The recordings below a folder, converted by soxr."""
    paths = [root] if root.is_file() else list(_below(root))

    def lengths() -> Ints:
        return np.array([_length(path, audio.sample_rate) for path in paths], np.int64)

    def sounds(numbers: Ints, samples: Ints) -> Iterator[Sound | str]:
        for number, longest in zip(numbers.tolist(), samples.tolist(), strict=True):
            try:
                yield _sound(paths[number], audio, longest)
            except Unreadable as error:
                yield str(error)

    return Sounds(len(paths), lambda number: str(paths[number]), lengths, sounds)


def _below(root: Path) -> Iterator[Path]:
    """All recordings below a folder, in order of name; links are followed, but into no folder twice."""
    seen = set[str]()
    for place, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        inner[:] = [] if real in seen else sorted(name for name in inner if not name.startswith("."))
        names = [] if real in seen else sorted(name for name in files if not name.startswith("."))
        seen.add(real)
        yield from (Path(place, name) for name in names if Path(name).suffix.lower() in SUFFIXES)


def _length(path: Path, rate: int) -> int:
    """Samples of a recording by its header, at least one: what cannot be read must be met, to be named."""
    try:
        head = header(path)
    except Unreadable:
        return 1
    return max(1, math.ceil((head.seconds if head.exact else max(head.seconds, 1.0)) * rate))


def _sound(path: Path, audio: Audio, samples: int) -> Sound:
    """The first `samples` of a recording at audio.sample_rate, one channel."""
    rate, blocks = open_cut(path, None, None)
    wanted, parts, count = math.ceil((samples / audio.sample_rate + MARGIN) * rate), [], 0
    for block in blocks:
        parts.append(block.mean(1) if audio.channels == "mono" else block[:, 0])
        count += len(block)
        if count >= wanted:
            break
    sound = np.concatenate(parts)[:wanted]
    if not np.isfinite(sound).all():
        raise Unreadable("it holds samples that are not finite")
    if rate != audio.sample_rate:
        sound = soxr.resample(sound, rate, audio.sample_rate, quality="VHQ")
    return np.asarray(sound[:samples], np.float32)
