"""A rank of the soak: the project's own main, with steps that take time and causes that come when a file appears.

PAUSE seconds are slept in each step. HOME/raise-R, HOME/thread-R, HOME/memory-R: rank R raises in its step, in a reader
thread, or runs out of memory in a reader thread; the file is removed first, so that it happens once.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

from causes import at_step, eat, fail, in_reader

HOME, PAUSE = Path(os.environ["SOAK_HOME"]), float(os.environ["SOAK_PAUSE"])
RANK = int(os.environ["RANK"])


def when(name: str, cause) -> None:  # type: ignore[no-untyped-def]
    """Do it where the file is there."""
    path = HOME / f"{name}-{RANK}"
    if path.exists():
        path.unlink()
        cause()


if __name__ == "__main__":
    from dist_train.__main__ import main

    at_step(RANK, None, partial(time.sleep, PAUSE), RANK)
    at_step(RANK, None, partial(when, "raise", fail), RANK)
    in_reader(RANK, None, partial(when, "thread", fail), RANK)
    in_reader(RANK, None, partial(when, "memory", eat), RANK)
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
