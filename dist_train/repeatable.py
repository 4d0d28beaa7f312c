"""Whether computation is repeatable bit for bit -> the switches of torch, cuDNN and cuBLAS."""

import os
import warnings

import torch


def switch(on: bool) -> None:
    """Before the first operation on a device."""
    torch.backends.cudnn.benchmark = not on
    if not on:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Filling fresh memory guards against reads of uninitialised values and costs several per cent of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    warnings.filterwarnings("ignore", message=".*deterministic.*", category=UserWarning)
