"""When a take begins and ends by itself: a stream -> the part from a sound on; a long take -> its sounds one by one.

level     ....____####__####______####....        `split`: sounds, with pauses of at least so long between them
parts          |-- 1 ----|      |- 2 -|           a margin of silence is kept around each
"""

from dataclasses import dataclass

import numpy as np

from dist_train.live.level import frames
from dist_train.live.ring import Ring, Wave

FRAME = 0.02  # seconds: two periods of the lowest voice
QUIETER = 30.0  # dB under the loudest frame of a take: from there on it is silence
MARGIN = 0.1  # seconds kept around a part: what begins softly has begun before


class Trigger:
    """Waits for a frame of `decibels` dBFS (RMS); what it lets through begins `before` seconds earlier.

    armed: whether a sound that is on already counts; else there must be a quiet frame first, so that the rest of one
    sound does not begin a take of its own.
    """

    def __init__(self, rate: int, decibels: float, before: float, armed: bool = True) -> None:
        self.limit, self._armed = 10 ** (decibels / 20), armed
        self._size = max(1, round(FRAME * rate))
        self._ring = Ring(round(before * rate) + 2 * self._size)
        self._before = round(before * rate)
        self._heard = 0  # samples whose frames were looked at

    def hear(self, wave_TC: Wave) -> Wave | None:
        """More of the stream; from the take's first sample to the newest once it was loud, None before."""
        for start in range(0, len(wave_TC), self._size):
            self._ring.append(wave_TC[start : start + self._size])
            if self._ring.end - self._heard < self._size:
                continue
            frame_T = self._ring.view(self._heard, self._heard + self._size)
            loud = bool(np.sqrt(np.mean(np.square(frame_T, dtype=np.float64))) >= self.limit)
            if loud and self._armed:
                first = max(self._ring.first, self._heard - self._before)
                begun_TC = self._ring.view(first, self._ring.end).copy()
                return np.concatenate([begun_TC, wave_TC[start + self._size :]])
            self._armed |= not loud
            self._heard += self._size
        return None


@dataclass(frozen=True)
class Pauses:
    """What parts sounds. pause: seconds of silence at least; least: seconds of sound that a part has at least."""

    pause: float = 0.3
    least: float = 0.1
    quieter: float = QUIETER


def split(wave_TC: Wave, rate: int, rule: Pauses) -> list[tuple[int, int]]:
    """The parts of a take, (first, end) in samples; none where all is digital silence."""
    size = max(1, round(FRAME * rate))
    level_N = frames(wave_TC, rate, FRAME)
    loud_N = (level_N >= level_N.max(initial=0.0) * 10 ** (-rule.quieter / 20)) & (level_N > 0)
    places = np.flatnonzero(loud_N)
    if not len(places):
        return []
    apart = np.flatnonzero(np.diff(places) - 1 >= rule.pause * rate / size)
    first = places[np.concatenate([[0], apart + 1])] * size
    end = np.minimum((places[np.concatenate([apart, [len(places) - 1]])] + 1) * size, len(wave_TC))
    margin = min(round(MARGIN * rate), int(rule.pause * rate / 2))  # neighbours never share a sample
    return [
        (max(0, int(low) - margin), min(len(wave_TC), int(high) + margin))
        for low, high in zip(first, end, strict=True)
        if high - low >= rule.least * rate
    ]
