"""Clips in memory -> the sums of their windows' values, planned, read and computed as evaluation does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.evaluate import Sums, Values, window_batches
from dist_train.frontend import FrontEnd
from dist_train.level import FULL_SCALE, measure
from dist_train.payload import Buffer, Payload, RawBatch
from dist_train.row import CODECS
from dist_train.settings import Evaluation
from dist_train.view import VIEW_ROW


@dataclass(frozen=True, eq=False)
class Clip:
    """frames_TC: (T, C) int16, or float32 of full scale 1, at audio.sample_rate, T >= 1; seconds: of the sound."""

    name: str
    frames_TC: NDArray[Any]
    seconds: float

    @property
    def codec(self) -> CODECS:
        """How its samples are coded."""
        return CODECS.S16 if self.frames_TC.dtype == np.int16 else CODECS.F32

    def rms(self) -> float:
        """As an index has it: of the mean of the channels, full scale 1."""
        wide_T = self.frames_TC.astype(np.float64).mean(1)
        return measure(lambda: iter([wide_T]), len(wide_T))[1] / FULL_SCALE[self.codec]


@dataclass(frozen=True, eq=False)
class Held:
    """Clips as the files of a source: number k is the k-th clip's bytes."""

    clips: Sequence[Clip]
    far: bool = False

    def read_rows(
        self, files: Sequence[int], offsets: Sequence[int], buffers: Sequence[memoryview]
    ) -> dict[int, OSError]:
        """As every source does; memory does not fail."""
        for file, offset, buffer in zip(files, offsets, buffers, strict=True):
            frames_TC = self.clips[file].frames_TC
            flat = frames_TC.reshape(-1).view(np.uint8)
            buffer[:] = flat[offset : offset + len(buffer)].data
        return {}

    def traffic(self) -> None:
        """None came over a network."""

    def close(self) -> None:
        """Nothing to close."""


def rows(clips: Sequence[Clip], rate: int, levels: bool) -> NDArray[np.void]:
    """(n,) of VIEW_ROW. `levels`: with each clip's RMS, where something depends on it."""
    table = np.zeros(len(clips), VIEW_ROW)
    table["file"], table["rate"] = np.arange(len(clips)), rate
    for number, clip in enumerate(clips):
        row = table[number : number + 1]
        row["frames"], row["channels"] = clip.frames_TC.shape
        row["size"], row["codec"] = clip.frames_TC.nbytes, clip.codec
        if levels:
            row["rms"] = clip.rms()
    return table


def summed(
    clips: Sequence[Clip], front: FrontEnd, settings: Evaluation, values: Values, width: int, exact: bool
) -> Sums:
    """Sums over each clip's windows of what `values` makes of them, `width` numbers each.

    `exact`: batches are padded to one size, so that other clips beside a clip change no bit of its sums. ValueError
    where a clip's samples are not finite.
    """
    table = rows(clips, front.audio.sample_rate, front.audio.target_db is not None)
    held, buffer, found = Held(clips), Buffer(pin=False), Sums(len(clips), 0, width)
    for plan in window_batches(lambda ids: table[ids], np.arange(len(clips)), front.audio, settings):
        payload = Payload(plan, buffer, held)
        payload.read(0, len(payload.order))
        data, bad = payload.mend()
        if bad:
            raise ValueError(f"{clips[bad[0][0]].name}: {bad[0][1]}")
        raw = RawBatch(payload.plan, data)
        found.add(raw, front(raw, training=False), values, settings.batch_size if exact else 0)
    return found
