"""Full float32 precision for a while, whatever the model uses."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.amp.autocast_mode import is_autocast_available


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """No autocast, no TF32, no bf16 products: they put errors of up to 6.6 in a log mel bin.

    The precision is a switch of the process; enter this on the thread that runs the model too.
    """
    switches = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        name = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
    except RuntimeError:  # torch 2.11 refuses its older switch where the newer ones were used
        name = None
        for switch in switches:
            switch.fp32_precision = "ieee"
    try:
        known = is_autocast_available(device.type)
        with torch.autocast(device.type, enabled=False) if known else nullcontext():
            yield
    finally:
        if name is not None:
            torch.set_float32_matmul_precision(name)
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
