"""A sound -> what its samples tell beyond the index: the peak, and whether it was driven over full scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.inspection.hearing import Sound

FULL = 0.999  # of full scale: converters and codecs stop a little before it
RUN = 3  # samples in a row at full scale: a peak may touch it, a plateau does not come by itself


@dataclass(frozen=True)
class Peak:
    """peak: of full scale; clipped: samples in plateaus at full scale, over all channels."""

    peak: float
    clipped: int


def measure(sound: Sound) -> Peak:
    """The peak and the plateaus of a sound, channel by channel."""
    level = np.abs(sound.frames)
    clipped = sum(_plateaus(np.flatnonzero(channel >= FULL)) for channel in level.T)
    return Peak(float(level.max(initial=0.0)), clipped)


def _plateaus(places: NDArray[np.intp]) -> int:
    """How many of the places are in runs of RUN and more."""
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return sum(len(run) for run in runs if len(run) >= RUN)
