"""A change of some rows of a batch: one at a time on the CPU, all at once elsewhere.

In: waveforms (B, C, T) and the numbers of the chosen rows. Out: the same waveforms, those rows changed in place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import to_device

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
RowChange = Callable[[Tensor, Ints], Tensor]  # (R, C, T) and the numbers of these rows -> (R, C, T)

ALIKE = 8  # rows of a batched change are a multiple of it: a GPU plans each new shape anew


def changed(wave_BCT: Tensor, rows: Ints, change: RowChange) -> Tensor:
    """`change` of the rows; a row's result must not depend on the others."""
    if not len(rows):
        return wave_BCT
    return (alone if wave_BCT.device.type == "cpu" else together)(wave_BCT, rows, change)


def alone(wave_BCT: Tensor, rows: Ints, change: RowChange) -> Tensor:
    """Row by row: each stays in cache and comes out the same bit for bit whatever its mates."""
    for row in rows.tolist():
        wave_BCT[row] = change(wave_BCT[row : row + 1], np.array([row]))[0]
    return wave_BCT


def together(wave_BCT: Tensor, rows: Ints, change: RowChange) -> Tensor:
    """All rows at once, some of them twice to fill up to a multiple of ALIKE."""
    padded = np.resize(rows, -(-len(rows) // ALIKE) * ALIKE)
    where = to_device(padded, wave_BCT.device)
    kept = slice(len(rows))
    return wave_BCT.index_copy_(0, where[kept], change(wave_BCT[where], padded)[kept])


def column(values: NDArray[Any], like: Tensor) -> Tensor:
    """(R,) -> (R, 1, 1) of `like`'s type, on its device. Not every accelerator holds float64."""
    return to_device(values.astype(np.float64 if like.element_size() == 8 else np.float32), like.device)[:, None, None]


def inside(filled: Ints, samples: int, like: Tensor) -> Tensor:
    """(R, 1, samples) bool: which samples of each row count."""
    return torch.arange(samples, device=like.device) < to_device(filled[:, None, None], like.device)
