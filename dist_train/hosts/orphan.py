"""A rank whose launcher dies, dies with it: living on, it would hold the run's folder and its GPU.

Linux tells the kernel so (prctl), which works whatever the process is busy with; elsewhere nothing is done.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h


def die_with_parent() -> None:
    """From now on this process is killed when the Python process that started it ends.

    Errors: `ValueError` where that one is gone already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if _adopted():  # it died before the kernel knew
        raise ValueError("the launcher that started this rank is gone; start it again")


def _adopted() -> bool:
    """The parent is a system's first process and no Python: in a container a launcher may be process 1 itself."""
    command = b""
    with suppress(OSError):
        command = Path("/proc/1/cmdline").read_bytes()
    return os.getppid() == 1 and b"python" not in command
