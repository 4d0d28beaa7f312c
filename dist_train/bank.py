"""Folders of noise and of room impulse responses -> banks that stay on the device.

    folders --listed, sorted--> clips --evenly spaced over the list, up to a budget--> Bank, Rooms

In: folders or addresses of tar shards (with their index.json), folders of recordings in any depth; of shards with a
class `noise` or `rir` that class alone. Out: all noise as one int16 tensor, all impulse responses as one float tensor.
What is taken depends on the folders and the settings alone, so every rank holds the same.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.clouds import remote
from dist_train.decode import to_device
from dist_train.reader import Reader
from dist_train.recordings import SUFFIXES, Unreadable, header, open_cut
from dist_train.resample import Resamplers
from dist_train.row import INDEX
from dist_train.settings import Audio, Noise, Reverb
from dist_train.shards import open_set
from dist_train.source import of_view
from dist_train.storage import local
from dist_train.view import choose
from dist_train.waves import Waves
from dist_train.window import full_windows

Ints = NDArray[np.int64]
Sound = NDArray[np.float32]

PIECE = 30.0  # seconds of a clip, at most, where not all noise fits: many short pieces vary more than a few long ones
LONGEST = 30.0  # seconds of an impulse response's recording that are looked at
MARGIN = 0.1  # seconds read past the end, so that a resampler's filter sees what comes there
TABLE = 2**29  # bytes of spectra that are kept for a transform length: 2000 rooms of 1 s for windows of 3 s at 16 kHz


@dataclass(frozen=True, eq=False)
class Bank:
    """samples: (N,) int16 on the device, mono, at audio.sample_rate, clip after clip; offsets: (K + 1,) where each of
    the K clips begins, and N; bad: "NAME: REASON" of each clip that could not be read."""

    samples: Tensor
    offsets: Ints
    bad: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Rooms:
    """impulses_RL: impulse responses on the device, mono, the direct sound first, of unit energy, zeros at the end;
    bad: "NAME: REASON" of each that could not be read. Spectra are computed once for each transform length."""

    def __init__(self, impulses_RL: Tensor, bad: Sequence[str] = ()) -> None:
        self.impulses_RL, self.bad = impulses_RL, list(bad)
        self.tables: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.impulses_RL)

    def spectrum(self, room: int, taps: int, size: int) -> Tensor:
        """(size // 2 + 1,) complex: the real transform, `size` long, of the first `taps` samples of a room."""
        table = self._table(taps, size)
        return torch.fft.rfft(self.impulses_RL[room, :taps], size) if table is None else table[room]

    def spectra(self, rooms: Ints, taps: int, size: int) -> Tensor:
        """(n, size // 2 + 1): `spectrum` of n rooms."""
        numbers, table = to_device(rooms, self.impulses_RL.device), self._table(taps, size)
        if table is not None:
            return table.index_select(0, numbers)
        chosen: Tensor = torch.fft.rfft(self.impulses_RL.index_select(0, numbers)[:, :taps], size)
        return chosen

    def _table(self, taps: int, size: int) -> Tensor | None:
        """The spectra of all rooms, made at their first use; None where they would take too much memory."""
        if len(self) * (size // 2 + 1) * 2 * self.impulses_RL.element_size() > TABLE:
            return None
        if (taps, size) not in self.tables:
            self.tables[taps, size] = torch.fft.rfft(self.impulses_RL[:, :taps], size)
        return self.tables[taps, size]


def noise_bank(settings: Noise, audio: Audio, device: torch.device | str) -> Bank:
    """All noise of `settings.shards`, or settings.minutes of it in pieces of clips evenly spaced over the list.

    Several channels become their mean. Silent clips are left out. ValueError: a folder that is not there or holds
    nothing, or not one clip of sound.
    """
    key = "augment.noise.shards"
    mono = audio.model_copy(update={"channels": "mono"})
    sources = [_source(path, mono, key, "noise") for path in settings.shards]
    rate = audio.sample_rate
    lengths = [source.lengths() for source in sources]
    taken = take(np.concatenate(lengths), round(settings.minutes * 60 * rate), round(PIECE * rate), rate)
    clips, bad = [], list[str]()
    for source, wanted in zip(sources, np.split(taken, np.cumsum([len(part) for part in lengths])[:-1]), strict=True):
        numbers = np.flatnonzero(wanted)
        found, unread = _read(source, numbers, wanted[numbers])
        clips += [_int16(sound) for sound in found]
        bad += unread
    clips = [clip for clip in clips if clip.any()]
    if not clips:
        raise _nothing(key, settings.shards, bad)
    offsets = np.cumsum([0, *map(len, clips)], dtype=np.int64)
    return Bank(torch.from_numpy(np.concatenate(clips)).to(device), offsets, bad)


def rooms_bank(settings: Reverb, audio: Audio, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Rooms:
    """The impulse responses of `settings.shards`, at most settings.rooms, evenly spaced over the list.

    Of several channels the first is taken: the mean of microphones is a comb filter. What comes before the largest
    sample, the direct sound, is dropped, so reverberation does not delay; what comes after settings.seconds too.
    """
    key = "augment.reverb.shards"
    sources = [_source(path, audio.model_copy(update={"channels": "first"}), key, "rir") for path in settings.shards]
    total = sum(counts := [source.count for source in sources])
    chosen = np.arange(min(settings.rooms, total)) * max(total, 1) // max(1, min(settings.rooms, total))
    rooms, bad, first = [], list[str](), 0
    for source, count in zip(sources, counts, strict=True):
        numbers = chosen[(chosen >= first) & (chosen < first + count)] - first
        found, unread = _read(source, numbers, np.full(len(numbers), round(LONGEST * audio.sample_rate)))
        rooms += [room for room in found if room.any()]
        bad, first = bad + unread, first + count
    if not rooms:
        raise _nothing(key, settings.shards, bad)
    cut = [aligned(room, max(1, round(settings.seconds * audio.sample_rate))) for room in rooms]
    impulses = np.zeros((len(cut), max(map(len, cut))))
    for row, room in zip(impulses, cut, strict=True):
        row[: len(room)] = room
    return Rooms(torch.from_numpy(impulses).to(device, dtype), bad)


def aligned(room: Sound, samples: int) -> NDArray[np.float64]:
    """An impulse response from its largest sample on, `samples` of it at most, of unit energy."""
    after = room[int(np.abs(room).argmax()) :][:samples].astype(np.float64)
    return np.asarray(after / np.sqrt((after**2).sum()))


def take(lengths: Ints, budget: int, piece: int, least: int) -> Ints:
    """How many samples of each clip make up `budget`: all where they fit, else the starts of evenly spaced clips.

    Then a clip gives `piece` samples at most, or more where the clips are few; a rest under `least` is left out.
    """
    if lengths.sum() <= budget:
        return lengths
    lengths = np.minimum(lengths, max(piece, budget // len(lengths)))
    order = evenly(len(lengths))
    length = lengths[order]
    before = np.cumsum(length) - length
    part = np.clip(budget - before, 0, length)
    part[(part < np.minimum(length, least)) & (before > 0)] = 0
    taken = np.zeros_like(lengths)
    taken[order] = part
    return taken


def evenly(count: int) -> Ints:
    """The numbers below `count`, so that the first few of them are about evenly spaced (van der Corput, 1935)."""
    order = np.zeros(1, np.int64)
    while len(order) < count:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order[order < count]


@dataclass(frozen=True)
class Source:
    """One folder of `count` clips. lengths: samples of each at audio.sample_rate; sounds: for the numbers of clips and
    how many samples of each at most, the sound from its start on, or why it cannot be read."""

    count: int
    name: Callable[[int], str]
    lengths: Callable[[], Ints]
    sounds: Callable[[Ints, Ints], Iterator[Sound | str]]


def _source(name: str, audio: Audio, key: str, label: str) -> Source:
    if remote(name):
        return _shards(name, audio, label)
    if not (root := local(name)).exists():
        raise ValueError(f"{root}: there is no such folder; name folders of shards or of recordings in {key}")
    if root.name == INDEX or (root / INDEX).is_file() or (root.is_dir() and any(root.glob("*.tar"))):
        return _shards(root, audio, label)
    return _recordings(root, audio)


def _read(source: Source, numbers: Ints, samples: Ints) -> tuple[list[Sound], list[str]]:
    """The sounds that can be read, and "NAME: REASON" of the others."""
    found, bad = [], []
    for number, sound in zip(numbers.tolist(), source.sounds(numbers, samples), strict=True):
        if isinstance(sound, str):
            bad.append(f"{source.name(number)}: {sound}")
        else:
            found.append(sound)
    return found, bad


def _shards(root: Path | str, audio: Audio, label: str) -> Source:
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

    return Source(len(ids), lambda number: f"{root}, {view.key(int(ids[number]))}", lengths, sounds)


def _recordings(root: Path, audio: Audio) -> Source:
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

    return Source(len(paths), lambda number: str(paths[number]), lengths, sounds)


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


def _int16(sound: Sound) -> NDArray[np.int16]:
    """Rounded to 16 bits; what is louder than full scale is brought down to it."""
    peak = max(1.0, float(np.abs(sound).max(initial=0)))
    return np.asarray(np.clip(np.rint(sound * (32768 / peak)), -32768, 32767), np.int16)


def _nothing(key: str, names: Sequence[str], bad: Sequence[str]) -> ValueError:
    reason = f"none of their clips can be read, such as {bad[0]}" if bad else "no clip of sound lies there"
    return ValueError(f"{', '.join(names)}: {reason}; name folders of shards or of recordings in {key}")
