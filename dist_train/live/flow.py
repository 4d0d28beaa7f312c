"""Between who hears and who understands: blocks of samples in order, from one thread to another, bounded.

A device's callback must never wait: it offers, and what finds no room is counted as lost. A pipe can wait: it gives,
and stands still until there is room.
"""

import queue
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]


@dataclass(frozen=True)
class Heard:
    """samples (frames, channels), and how many frames were lost just before them."""

    block: Block
    lost: int = 0


class Flow:
    """Blocks on their way; at most about `limit` frames of them. One thread puts in, another takes out."""

    def __init__(self, limit: int) -> None:
        self.limit, self.overruns = limit, 0
        self._blocks: queue.SimpleQueue[Heard | Exception | None] = queue.SimpleQueue()  # its put never blocks
        # each counter has one writer, so none needs a lock
        self._given = self._taken = self._lost = 0
        self._room = threading.Event()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Frames that wait to be taken."""
        return self._given - self._taken

    def offer(self, block: Block) -> None:
        """From a callback: never waits. The block is kept: hand over a copy."""
        if self.waiting + len(block) > self.limit:
            self._lost += len(block)
            self.overruns += 1
            return
        self._put(block)

    def give(self, block: Block) -> bool:
        """From a thread that may wait for room. False: nobody takes any more."""
        while not self._closed:
            self._room.clear()
            if self.waiting < self.limit:
                self._put(block)
                return True
            self._room.wait(1.0)
        return False

    def end(self, error: Exception | None = None) -> None:
        """No more comes; `error`: why, where that is no ordinary end."""
        self._blocks.put(error)

    def take(self, seconds: float) -> Heard:
        """The next block. EOFError: the end; the error of an end that had one; TimeoutError: none in `seconds`."""
        try:
            found = self._blocks.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if found is None:
            raise EOFError
        if isinstance(found, Exception):
            raise found
        self._taken += len(found.block)
        self._room.set()
        return found

    def close(self) -> None:
        """Nobody takes any more."""
        self._closed = True
        self._room.set()

    def _put(self, block: Block) -> None:
        self._given += len(block)
        lost, self._lost = self._lost, 0
        self._blocks.put(Heard(block, lost))
