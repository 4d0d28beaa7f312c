"""What a script of tools/ was asked to do -> its exit code, and one line on stderr where it was not done."""

import errno
import os
import sys
from collections.abc import Callable

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


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
        return _told(name, reason(error), 2)


def reason(error: BaseException) -> str:
    """One line of an error; of one that the system raised: where, what, and how to mend a full disk."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    what = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return f"{what}; free space there, or name another place" if error.errno in _FULL else what


def legible() -> None:
    """From now on a class name that the terminal cannot show is shown in another way, and does not end the script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _told(name: str, line: str, code: int) -> int:
    print(f"{name}: {line}", file=sys.stderr)
    return code
