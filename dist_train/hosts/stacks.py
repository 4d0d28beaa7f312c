"""What ranks are busy with, for a person who looks at a run that stands still.

kill -USR2 PID      every thread's stack, to stderr
RUN/comm/rank_N     NCCL's last collectives, written where one takes longer than run.timeout; `torchfrtrace` reads them
"""

import faulthandler
import io
import os
import signal
from contextlib import suppress
from pathlib import Path

_COLLECTIVES = 20_000  # that NCCL's flight recorder remembers


def listen(folder: Path) -> None:
    """From now on SIGUSR2, or a crash in native code, shows the stacks; a hang of NCCL leaves a trace in `folder`/comm.

    What the environment says already stays. To be called before the process groups are made.
    """
    os.environ.setdefault("TORCH_FR_BUFFER_SIZE", str(_COLLECTIVES))
    os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    os.environ.setdefault("TORCH_FR_DUMP_TEMP_FILE", str(folder.absolute() / "comm/rank_"))
    with suppress(io.UnsupportedOperation):  # stderr is no file
        faulthandler.enable()
        if hasattr(signal, "SIGUSR2"):
            faulthandler.register(signal.SIGUSR2, all_threads=True)


def prepare(folder: Path) -> None:
    """A place for NCCL's traces, on each host's view of the run's folder; none where it cannot be."""
    with suppress(OSError):
        (folder / "comm").mkdir(parents=True, exist_ok=True)
