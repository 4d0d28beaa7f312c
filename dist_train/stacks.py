"""What a process is busy with, for a person who looks at a run that stands still: `kill -USR2 PID` shows its stacks."""

import faulthandler
import io
import signal
from contextlib import suppress


def listen() -> None:
    """From now on SIGUSR2 writes every thread's stack to stderr, and a crash in native code does too."""
    with suppress(io.UnsupportedOperation):  # stderr is no file
        faulthandler.enable()
        if hasattr(signal, "SIGUSR2"):
            faulthandler.register(signal.SIGUSR2, all_threads=True)
