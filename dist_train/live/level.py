"""How loud: samples -> peak and RMS in dBFS, and a meter with the ballistics that the eye can follow.

0 dBFS is full scale for both, so a full sine has a peak of 0 and an RMS of -3.01 dBFS.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR = -120.0  # dBFS of digital silence: a logarithm has none
FULL = 0.999  # of full scale: converters and codecs stop a little before it
PLATEAU = 3  # samples in a row at full scale: one may touch it, a plateau does not come by itself
FALL = 20.0  # dB a second that the shown peak falls
SLUGGISH = 0.3  # seconds that the shown RMS averages over, as a VU meter does
FRAME = 0.1  # seconds over which the loudest part of a window is sought


@dataclass(frozen=True)
class Level:
    """peak, rms: dBFS; clipped: samples in plateaus at full scale."""

    peak: float
    rms: float
    clipped: int = 0


def decibels(value: float) -> float:
    """dBFS of an amplitude, FLOOR at least."""
    return max(FLOOR, 20 * math.log10(value)) if value > 0 else FLOOR


def measure(block: NDArray[np.float32]) -> Level:
    """Level of samples (T, C): the peak of all channels, the RMS over all of them."""
    if not block.size:
        return Level(FLOOR, FLOOR)
    magnitude = np.abs(block)
    peak = float(magnitude.max())
    power = float(np.mean(np.square(magnitude, dtype=np.float64)))
    clipped = sum(_plateaus(channel >= FULL) for channel in magnitude.T) if peak >= FULL else 0
    return Level(decibels(peak), decibels(math.sqrt(power)), clipped)


def _plateaus(full_T: NDArray[np.bool_]) -> int:
    """How many samples stand in runs of PLATEAU and more."""
    edges = np.flatnonzero(np.diff(full_T.astype(np.int8), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= PLATEAU].sum())


def frames(wave_TC: NDArray[np.float32], rate: int, seconds: float) -> NDArray[np.float64]:
    """RMS (amplitude) of each frame of so many seconds, over all channels; the last may be shorter."""
    size = max(1, round(seconds * rate))
    starts = np.arange(0, len(wave_TC), size)
    if not len(starts):
        return np.zeros(0)
    sums = np.add.reduceat(np.square(wave_TC, dtype=np.float64).mean(axis=1), starts)
    return np.asarray(np.sqrt(sums / np.minimum(size, len(wave_TC) - starts)))


def loudest(wave_TC: NDArray[np.float32], rate: int) -> float:
    """dBFS of the loudest tenth of a second: a short sound in a long quiet window counts as much as alone."""
    return decibels(float(frames(wave_TC, rate, FRAME).max(initial=0.0)))


class Meter:
    """What a level meter shows: peaks jump up and fall slowly, the RMS follows with a short average."""

    def __init__(self) -> None:
        self.peak, self.rms, self.clipped = FLOOR, FLOOR, 0
        self._power = 0.0

    def hear(self, block: NDArray[np.float32], rate: int) -> None:
        """Move on by a block of samples."""
        seconds, level = len(block) / rate, measure(block)
        self.peak = max(level.peak, self.peak - FALL * seconds, FLOOR)
        weight = 1 - math.exp(-seconds / SLUGGISH)
        self._power += weight * (10 ** (level.rms / 10) - self._power)
        self.rms = decibels(math.sqrt(self._power))
        self.clipped += level.clipped
