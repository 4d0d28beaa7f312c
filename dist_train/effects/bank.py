"""Folders of noise and of room impulse responses -> banks that stay on the device.

    folders --listed, sorted--> clips --evenly spaced over the list, up to a budget--> Bank, Rooms

In: folders or addresses of tar shards (with their index.json), folders of recordings in any depth; of shards with a
class `noise` or `rir` that class alone. Out: all noise as one int16 tensor, all impulse responses as one float tensor.
What is taken depends on the folders and the settings alone, so every rank holds the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import to_device
from dist_train.settings import Audio, Noise, Reverb
from dist_train.sounds import Sound, opened

Ints = NDArray[np.int64]

PIECE = 30.0  # seconds of a clip, at most, where not all noise fits: many short pieces vary more than a few long ones
LONGEST = 30.0  # seconds of an impulse response's recording that are looked at
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
    sources = [opened(path, mono, key, "noise") for path in settings.shards]
    rate = audio.sample_rate
    lengths = [source.lengths() for source in sources]
    taken = take(np.concatenate(lengths), round(settings.minutes * 60 * rate), round(PIECE * rate), rate)
    clips, bad = [], list[str]()
    for source, wanted in zip(sources, np.split(taken, np.cumsum([len(part) for part in lengths])[:-1]), strict=True):
        numbers = np.flatnonzero(wanted)
        found, unread = source.read(numbers, wanted[numbers])
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
    sources = [opened(path, audio.model_copy(update={"channels": "first"}), key, "rir") for path in settings.shards]
    total = sum(counts := [source.count for source in sources])
    chosen = np.arange(min(settings.rooms, total)) * max(total, 1) // max(1, min(settings.rooms, total))
    rooms, bad, first = [], list[str](), 0
    for source, count in zip(sources, counts, strict=True):
        numbers = chosen[(chosen >= first) & (chosen < first + count)] - first
        found, unread = source.read(numbers, np.full(len(numbers), round(LONGEST * audio.sample_rate)))
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


def _int16(sound: Sound) -> NDArray[np.int16]:
    """Rounded to 16 bits; what is louder than full scale is brought down to it."""
    peak = max(1.0, float(np.abs(sound).max(initial=0)))
    return np.asarray(np.clip(np.rint(sound * (32768 / peak)), -32768, 32767), np.int16)


def _nothing(key: str, names: Sequence[str], bad: Sequence[str]) -> ValueError:
    reason = f"none of their clips can be read, such as {bad[0]}" if bad else "no clip of sound lies there"
    return ValueError(f"{', '.join(names)}: {reason}; name folders of shards or of recordings in {key}")
