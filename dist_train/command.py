"""What a script of tools/ was asked to do -> its exit code, and one line on stderr where it was not done."""

import os
import sys
from collections.abc import Callable


def run(name: str, work: Callable[[], int | None], stopped: str = "stopped", piped: bool = False) -> int:
    """The code that `work` gives, 0 for None; 2 for bad input; 130 where it was stopped, with what is then told.

    `piped`: the script is there to be read by another, which may have enough before the end (`| head`): that is 0. Not
    for scripts that talk to a network, whose broken connections are the same exception.
    """
    legible()
    try:
        return work() or 0
    except KeyboardInterrupt:
        return _told(name, stopped, 130)
    except (ValueError, OSError) as error:
        if piped and isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the end of Python writes there again
            return 0
        return _told(name, str(error), 2)


def legible() -> None:
    """From now on a class name that the terminal cannot show is shown in another way, and does not end the script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _told(name: str, line: str, code: int) -> int:
    print(f"{name}: {line}", file=sys.stderr)
    return code
