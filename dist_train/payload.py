"""A plan (which frames of which clips) -> their bytes in the rows of one buffer; a row that cannot be read is mended.

    plan row    first < 0            0 ........ frames            first + count
    data row    |-- left as it was --|-- the clip's bytes --|-- left as it was --| to a multiple of 64 bytes

A bad row (unreadable, cut, not decodable, not finite) becomes a copy of a good one with weight 0, so every step goes on
with full batches and no other row's place changes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train import memory
from dist_train.archive.row import BYTES, CODECS
from dist_train.compressed import decode
from dist_train.storage import Source

ALIGN = 64
OWN = ("position", "id", "label", "weight")  # what a mended row keeps of its own
FLOATS = {int(CODECS.F16): "<f2", int(CODECS.F32): "<f4", int(CODECS.F64): "<f8"}
WIDTHS = {int(codec): count for codec, count in BYTES.items()} | {int(CODECS.FILE): 2, int(CODECS.AV): 2}
WIDTH = np.array([WIDTHS.get(code, 0) for code in range(256)])  # bytes of a sample in the buffer; compressed: int16


class Waitable(Protocol):
    """Such as torch.cuda.Event."""

    def synchronize(self) -> None:
        """Return when it has happened."""


@dataclass(eq=False)
class RawBatch:
    """The bytes of one request and what they mean.

    plan: (B,) PLAN; FILE and AV rows have become S16, bad ones copies of a good row with weight 0
    data: (B, row_bytes) uint8, row_bytes a multiple of 64, pinned if asked for. Row r holds the frames
          [max(first, 0), min(first + count, frames)) from byte max(0, -first) * bytes a frame on; the rest is undefined
    bad:  (id, reason) of each bad row
    read_seconds: that threads spent on it, added up
    """

    plan: NDArray[np.void]
    data: torch.Tensor
    bad: list[tuple[int, str]] = field(default_factory=list)
    read_seconds: float = 0.0
    on_release: Callable[["RawBatch", Waitable | None], None] | None = field(default=None, repr=False)

    def release(self, after: Waitable | None = None) -> None:
        """Give the buffer back before its time; it is written to again once `after` has happened.

        Where the copy to a GPU was asynchronous, `after` is an event recorded behind it.
        """
        if self.on_release is not None:
            self.on_release(self, after)


class Buffer:
    """Memory that is used again and again, grown to the largest batch so far. `after`: who must be done with it."""

    def __init__(self, pin: bool) -> None:
        self.pin, self.after = pin, cast(Waitable | None, None)
        self.store = torch.empty(0, dtype=torch.uint8)
        self.bytes = self.store.numpy().data

    def reserve(self, count: int) -> memoryview:
        """At least `count` bytes of it, as earlier use left them."""
        if self.after is not None:
            self.after.synchronize()
            self.after = None
        if count > len(self.bytes):
            room = count + count // 8  # an eighth more: batches differ a little in size, and pinning memory takes long
            if self.pin:
                self.store = torch.empty(room, dtype=torch.uint8, pin_memory=True)
            else:
                self.store = memory.empty(room, dtype=torch.uint8)
            self.bytes = self.store.numpy().data
        return self.bytes

    def rows(self, count: int, row_bytes: int) -> torch.Tensor:
        """(count, row_bytes) uint8: its start."""
        return self.store[: count * row_bytes].view(count, row_bytes)


class Payload:
    """One request on its way to a RawBatch: `read` the rows of `order`, in any portions and threads, then `mend`."""

    def __init__(self, request: NDArray[Any], buffer: Buffer, files: Source) -> None:
        self.plan, self.buffer, self.files = request.copy(), buffer, files
        plan = self.plan
        first, count, codec = plan["first"], plan["count"], plan["codec"]
        frames, size = plan["frames"].astype(np.int64), plan["size"].astype(np.int64)
        width = WIDTH[codec] * plan["channels"]
        self.bad: dict[int, str] = {}
        self.pcm = codec < CODECS.FILE
        self.start = np.maximum(first, 0)
        self.stop = np.maximum(np.minimum(first + count, frames), self.start)
        self.row_bytes = -(-int((count * np.maximum(width, 1)).max(initial=1)) // ALIGN) * ALIGN
        self.bytes = buffer.reserve(len(plan) * self.row_bytes)
        self.low = np.arange(len(plan)) * self.row_bytes + (self.start - first) * width
        self.high = self.low + (self.stop - self.start) * width
        self.offset = plan["offset"].astype(np.int64) + np.where(self.pcm, self.start * width, 0)
        refused = (width == 0) | (self.pcm & (frames * width > size))
        if refused.any():
            self.bad = {row: _refusal(plan[row]) for row in refused.nonzero()[0].tolist()}
        # Rows of a file one after another, in the order they lie there: fewer files to open, kinder to disks.
        rows = np.lexsort((self.offset, plan["file"]))
        self.order = rows[((self.stop > self.start) & ~refused)[rows]]

    def read(self, begin: int, end: int) -> None:
        """Read the rows order[begin:end], all at once; decode the compressed ones."""
        rows = self.order[begin:end]
        numbers, pcm = rows.tolist(), self.pcm[rows].tolist()
        places = zip(self.low[rows].tolist(), self.high[rows].tolist(), self.plan["size"][rows].tolist(), strict=True)
        buffers = [
            self.bytes[low:high] if plain else memoryview(bytearray(size))
            for plain, (low, high, size) in zip(pcm, places, strict=True)
        ]
        failed = self.files.read_rows(self.plan["file"][rows].tolist(), self.offset[rows].tolist(), buffers)
        self.bad.update({numbers[index]: str(error) for index, error in failed.items()})
        codecs = self.plan["codec"][rows].tolist()
        for index, codec in enumerate(codecs if not FLOATS.keys().isdisjoint(codecs) else ()):
            if codec in FLOATS and not np.isfinite(np.frombuffer(buffers[index], FLOATS[codec])).all():
                self.bad.setdefault(numbers[index], "it holds samples that are not finite")
        for index in () if all(pcm) else (~self.pcm[rows]).nonzero()[0].tolist():
            if index not in failed:
                self._decode(numbers[index], buffers[index])

    def _decode(self, row: int, payload: memoryview) -> None:
        one, span = self.plan[row], (int(self.start[row]), int(self.stop[row]))
        try:
            frames = decode(payload, int(one["codec"]), *span, int(one["channels"]), int(one["rate"]))
        except (OSError, ValueError) as error:
            self.bad[row] = str(error)
            return
        self.bytes[self.low[row] : self.high[row]] = frames.reshape(-1).view(np.uint8).data

    def mend(self) -> tuple[torch.Tensor, list[tuple[int, str]]]:
        """Put good rows in the place of bad ones, silence if there is none: the data, (id, reason) of each bad row."""
        data = self.buffer.rows(len(self.plan), self.row_bytes)
        self.plan["codec"][~self.pcm] = CODECS.S16
        if not self.bad:
            return data, []
        good = np.setdiff1d(np.arange(len(self.plan)), list(self.bad))
        for row in sorted(self.bad):
            self.plan["weight"][row] = 0
            if not len(good):
                # One byte a frame fits into any row.
                self.plan["codec"][row], self.plan["channels"][row] = CODECS.U8, 1
                data[row] = 128
                continue
            # The next good row, round the end: the same one whatever the threads did.
            source = good[np.searchsorted(good, row) % len(good)]
            kept = {name: self.plan[name][row] for name in OWN}
            self.plan[row], data[row] = self.plan[source], data[source]
            for name, value in kept.items():
                self.plan[name][row] = value
        return data, [(int(self.plan["id"][row]), self.bad[row]) for row in sorted(self.bad)]


def _refusal(one: np.void) -> str:
    """Why a row cannot be as its plan says."""
    codec, channels = int(one["codec"]), int(one["channels"])
    if not WIDTH[codec] * channels:
        return f"codec {codec} with {channels} channels is not known"
    return f"its {one['size']} bytes hold fewer than the {one['frames']} frames that the index says"
