"""Poolings of images (B, C, F, T) in forms of our own, because torch's backward of most is not deterministic on CUDA.

Maxima share the gradient where they tie. `frames_B`: valid frames of each row (None: all are valid), at least 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dist_train.models.blocks import padding
from dist_train.models.pooling import time_mean


def max_2x2(x_BCFT: Tensor) -> Tensor:
    """Maximum of each 2x2, (B, C, F, T) -> (B, C, F // 2, T // 2)."""
    return _pairs(_pairs(x_BCFT).mT).mT


def max_3x3(x_BCFT: Tensor) -> Tensor:
    """Maximum of 3x3 around every second pixel, of an image without negative values -> (B, C, ceil(F/2), ceil(T/2))."""
    return _triples(_triples(x_BCFT).mT).mT


def adaptive_mean(x_BCFT: Tensor, high: int, wide: int, frames_B: Tensor | None = None) -> Tensor:
    """Mean of each of high x wide windows, which overlap where the image does not divide: (B, C, high, wide)."""
    return _windows(_windows(x_BCFT.mT, high, None, _mean).mT, wide, frames_B, _mean)


def adaptive_max(x_BCFT: Tensor, high: int, wide: int, frames_B: Tensor | None = None) -> Tensor:
    """Maximum of each of the same windows: (B, C, high, wide)."""
    return _windows(_windows(x_BCFT.mT, high, None, _max).mT, wide, frames_B, _max)


def _pairs(x: Tensor) -> Tensor:
    # Halves of an axis cut in two: slices of step 2 have no size that torch.export can follow.
    pair = x[..., : x.shape[-1] // 2 * 2].unflatten(-1, (-1, 2))  # type: ignore[no-untyped-call]
    return torch.maximum(pair[..., 0], pair[..., 1])


def _triples(x: Tensor) -> Tensor:
    count = (x.shape[-1] + 1) // 2
    x = functional.pad(x, (1, 2))
    first = x[..., : 2 * count].unflatten(-1, (-1, 2))  # type: ignore[no-untyped-call]
    last = x[..., 2 : 2 * count + 2].unflatten(-1, (-1, 2))  # type: ignore[no-untyped-call]
    return torch.maximum(torch.maximum(first[..., 0], first[..., 1]), last[..., 0])


def _mean(x: Tensor, pad: Tensor | None) -> Tensor:
    return time_mean(x, pad).squeeze(-1)


def _max(x: Tensor, pad: Tensor | None) -> Tensor:
    return (x if pad is None else x.masked_fill(pad, -torch.inf)).amax(-1)


def _windows(
    x: Tensor, count: int, frames_B: Tensor | None, reduce: Callable[[Tensor, Tensor | None], Tensor]
) -> Tensor:
    """Window i of n frames holds floor(i n / count) ... ceil((i + 1) n / count) - 1: (..., T) -> (..., count)."""
    frames = x.shape[-1]
    reduced = []
    for i in range(count):
        if frames_B is None:
            reduced.append(reduce(x[..., i * frames // count : -(-(i + 1) * frames // count)], None))
            continue
        over, begun = padding(-(-(i + 1) * frames_B // count), x), padding(i * frames_B // count, x)
        assert over is not None and begun is not None
        reduced.append(reduce(x, over | ~begun))
    return torch.stack(reduced, -1)
