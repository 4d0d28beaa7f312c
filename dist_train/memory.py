"""Fewer page faults on the CPU: each costs up to microseconds on a virtual machine, as much as what is written there.

empty    large arrays that live on: NumPy asks the kernel for huge pages from 4 MB on, torch does not
keep     the allocator keeps what a step frees for the next one
lack     an error that says there is no more -> a line for the user
"""

import ctypes
import math
import os
import re

import numpy as np
import torch
from torch import Tensor

_KINDS = {torch.float32: np.float32, torch.float64: np.float64, torch.uint8: np.uint8}

_LACKING = re.compile(r"can't allocate memory|not enough memory|bad_alloc")  # torch's allocator on a CPU; C++
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


def lack(error: BaseException) -> str | None:
    """One line where an error, of Python, torch or CUDA, means that memory is used up; None for another error."""
    said = str(error).strip().partition("\n")[0][:160]
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and _LACKING.search(said) is None:
        return None
    reason = f" ({said})" if said else ""
    advice = "lower data.micro_batch, evaluation.batch_size or data.ahead"
    return f"out of memory{reason}: {advice}; the same command goes on from the newest checkpoint"
