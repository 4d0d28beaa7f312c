"""What is drawn by the bootstrap: clips, or groups of clips, and how often each is in a draw."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dist_train.scores import Floats

CHUNK = 1 << 22  # weights at once, 32 MB

Ids = NDArray[np.int64]


def units(groups: NDArray[np.unsignedinteger] | None) -> Ids | None:
    """(N,) what is drawn together, from 0 on, a clip without a group (0) alone; None where each clip is alone."""
    if groups is None or not (groups > 0).any():
        return None
    unit_N = np.empty(len(groups), np.int64)
    names, unit_N[groups > 0] = np.unique(groups[groups > 0], return_inverse=True)
    unit_N[groups == 0] = len(names) + np.arange((groups == 0).sum())
    return unit_N if count(unit_N, 0) < len(groups) else None


def count(unit_N: Ids | None, clips: int) -> int:
    """How many are drawn: units, or clips."""
    return clips if unit_N is None else int(unit_N.max()) + 1


def weights(clips: int, draws: int, seed: int, unit_N: Ids | None, entries: int = 1) -> Iterator[Floats]:
    """How often each clip is in a draw, some (d, clips) at a time; the same whatever they are wanted for.

    `entries`: of a clip in what is made of them.
    """
    random, number = np.random.default_rng(seed), count(unit_N, clips)
    rows = max(1, CHUNK // (clips * entries))
    for start in range(0, draws, rows):
        some = min(rows, draws - start)
        taken = random.integers(0, number, (some, number)) + np.arange(some)[:, None] * number
        weight_DU = np.bincount(taken.ravel(), minlength=some * number).reshape(some, number).astype(np.float64)
        yield weight_DU if unit_N is None else weight_DU[:, unit_N]
