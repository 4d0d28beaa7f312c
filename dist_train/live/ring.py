"""The newest samples of a stream: append costs what is appended, a view of them costs nothing.

Every sample is written twice, one capacity apart, so that any part that is still held lies in one piece:

    memory   |--- capacity ---|--- capacity ---|     sample i lies at i mod capacity, and again behind
"""

import numpy as np
from numpy.typing import NDArray

Wave = NDArray[np.float32]


class Ring:
    """Holds samples [first, end) of a stream, counted from its start; at most `capacity` of them."""

    def __init__(self, capacity: int, channels: int = 1) -> None:
        assert capacity > 0
        self.capacity, self.first, self.end = capacity, 0, 0
        self._memory = np.zeros((2 * capacity, channels), np.float32)

    def append(self, wave_TC: Wave) -> None:
        """Add samples (T, C); the oldest give way."""
        kept = wave_TC[-self.capacity :]
        at = (self.end + len(wave_TC) - len(kept)) % self.capacity
        before = min(len(kept), self.capacity - at)
        for place in (at, at + self.capacity):
            self._memory[place : place + before] = kept[:before]
        for place in (0, self.capacity):
            self._memory[place : place + len(kept) - before] = kept[before:]
        self.end += len(wave_TC)
        self.first = max(self.first, self.end - self.capacity)

    def gap(self, samples: int) -> None:
        """Samples that nobody heard: what was before them is forgotten, for no window may reach over the gap."""
        self.end += samples
        self.first = self.end

    def view(self, first: int, end: int) -> Wave:
        """Samples [first, end), all of them held: (T, C). Overwritten by later appends: copy what has to stay."""
        assert self.first <= first <= end <= self.end, f"{first} to {end} of {self.first} to {self.end}"
        at = first % self.capacity
        return self._memory[at : at + end - first]
