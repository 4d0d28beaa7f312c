"""Blocks of a device or a pipe -> the model's channels at its rate, the same whatever the blocks' sizes.

soxr's VHQ, as at packing: a recording heard through here and its packed clip differ by the rounding to 16 bits.
"""

import numpy as np
import soxr
from numpy.typing import NDArray

Block = NDArray[np.float32]

LOUDEST = 64.0  # full scales: no device gives more, what is louder is not what it is taken for


class Converter:
    """A stream at `source` Hz becomes one at `target` Hz. mix: `mono` (the mean of all channels), `first`, or how many
    of the first ones, from the first on again where there are fewer."""

    def __init__(self, source: int, target: int, mix: str | int = "mono") -> None:
        self.source, self.target, self.mix = source, target, mix
        self.channels = mix if isinstance(mix, int) else 1
        self.broken = 0  # samples that were no sound; they are heard as silence
        self._stream = self._fresh()

    def hear(self, block: Block) -> Block:
        """(frames, any channels) -> (T, channels): what is ready; a filter's length stays inside."""
        block = self.clean(block)
        mixed = self._mixed(block)
        return mixed if self._stream is None else np.asarray(self._stream.resample_chunk(mixed), np.float32)

    def clean(self, block: Block) -> Block:
        """The block with silence for what is no sound: no number, or far over full scale. Both are counted."""
        if not block.size or float(np.abs(block).max()) <= LOUDEST:
            return block
        broken = ~(np.abs(block) <= LOUDEST)
        self.broken += int(broken.sum())
        return np.where(broken, np.float32(0), block)

    def finish(self) -> Block:
        """(T, channels): what stayed inside; after it a new stream begins."""
        rest = np.zeros((0, self.channels), np.float32)
        if self._stream is not None:
            rest = np.asarray(self._stream.resample_chunk(rest, last=True), np.float32)
        self._stream = self._fresh()
        return rest

    def _mixed(self, block: Block) -> Block:
        if self.mix == "mono":
            return np.asarray(block.mean(axis=1, keepdims=True), np.float32)
        return np.ascontiguousarray(block[:, [channel % block.shape[1] for channel in range(self.channels)]])

    def _fresh(self) -> soxr.ResampleStream | None:
        if self.source == self.target:
            return None
        return soxr.ResampleStream(self.source, self.target, self.channels, dtype="float32", quality="VHQ")
