"""A rank of the soak: the project's own main, with steps that take time and causes that come when a file appears.

Each step sleeps for the seconds in HOME/pause. HOME/raise-R, HOME/thread-R, HOME/memory-R: rank R raises in its step,
in a reader thread, or runs out of memory in a reader thread; the file is removed first, so that it happens once.
HOME/slow: each batch of an evaluation takes a second; HOME/evaluates appears as one begins.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

from causes import at_step, eat, fail, in_reader, slow_evaluation

HOME = Path(os.environ["SOAK_HOME"])
RANK = int(os.environ["RANK"])


def when(name: str, cause) -> None:  # type: ignore[no-untyped-def]
    """Do it where the file is there."""
    path = HOME / f"{name}-{RANK}"
    if path.exists():
        path.unlink()
        cause()


def pause() -> None:
    time.sleep(float((HOME / "pause").read_text() or 0))


def lag() -> float:
    """Seconds that a batch of an evaluation sleeps."""
    return float((HOME / "slow").exists())


if __name__ == "__main__":
    from dist_train.__main__ import main

    at_step(RANK, None, pause, RANK)
    at_step(RANK, None, partial(when, "raise", fail), RANK)
    in_reader(RANK, None, partial(when, "thread", fail), RANK)
    in_reader(RANK, None, partial(when, "memory", eat), RANK)
    slow_evaluation(HOME / "evaluates", lag, RANK)
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
