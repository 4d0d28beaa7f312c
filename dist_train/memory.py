"""Fewer page faults on the CPU: each costs up to microseconds on a virtual machine, as much as what is written there.

empty    large arrays that live on: NumPy asks the kernel for huge pages from 4 MB on, torch does not
keep     the allocator keeps what a step frees for the next one
"""

import ctypes
import math
import os

import numpy as np
import torch
from torch import Tensor

_KINDS = {torch.float32: np.float32, torch.float64: np.float64, torch.uint8: np.uint8}

_MALLOC = ((-1, 2**30), (-2, 2**26), (-3, 2**25))  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU, its values undefined."""
    return torch.from_numpy(np.empty(math.prod(shape), _KINDS[dtype])).view(shape)


def keep() -> bool:
    """Let glibc keep what is freed instead of giving it back and faulting it in again, step after step.

    Blocks up to 32 MB (its upper limit) come from the heap, of which 1 GB may lie idle. True where that was done: not
    with another C library, nor where the environment has MALLOC_ settings of its own.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return False
    return all(mallopt(option, value) == 1 for option, value in _MALLOC)
