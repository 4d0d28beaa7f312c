"""Gaussian noise as a function of seed, position and place alone.

In: (B,) keys drawn on the host. Out: (B, channels, samples) float32 of deviation 1.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.order import GOLDEN, LAST_SHIFT, MIX, uniform


def noise_keys(position: NDArray[Any], seed: int, use: str = "noise") -> NDArray[np.int64]:
    """(B,) where each position's count begins: 48 random bits, divided by splitmix64's step mod 2^64. `use`: what for.

    `place * step` would overflow in an index, which C++ compilers take for impossible: inductor's kernels then read
    out of bounds (torch 2.11). `(start + place) * step` is arithmetic on data.
    """
    halves = [(uniform(seed, position, name) * 2**24).astype(np.uint64) for name in (f"{use} high", f"{use} low")]
    keys = halves[0] << np.uint64(32) | halves[1] << np.uint64(8)
    return np.asarray((keys * np.uint64(pow(GOLDEN, -1, 2**64))).view(np.int64))


def gaussian(keys_B: Tensor, channels: int, samples: int) -> Tensor:
    """splitmix64 counts on from each row's key; two uniforms of 24 bits make one normal (Box and Muller, 1958)."""
    place = torch.arange(channels * samples, device=keys_B.device) + 1
    z = (keys_B[:, None] + place) * _signed(GOLDEN)
    for bits, factor in MIX:
        z = (z ^ (z >> bits & (1 << 64 - bits) - 1)) * _signed(factor)
    z = z ^ (z >> LAST_SHIFT & (1 << 64 - LAST_SHIFT) - 1)
    radius = (((z >> 40 & 0xFFFFFF) + 1).float() * 2.0**-24).log().mul(-2).sqrt()
    angle = (z & 0xFFFFFF).float() * (2 * math.pi * 2.0**-24)
    return (radius * angle.cos()).view(-1, channels, samples)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
