"""What a script of tools/ was asked to do -> its exit code, and one line on stderr where it was not done."""

import errno
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}


def run(name: str, work: Callable[[], int | None], stopped: str = "stopped") -> int:
    """The code that `work` gives, 0 for None; 2 for bad input; 130 where it was stopped, with what is then told.

    A reader of stdout may have enough before the end (`| head`): that is 0.
    """
    legible()
    try:
        code = work() or 0
        sys.stdout.flush()  # while an error can still be told
        return code
    except KeyboardInterrupt:
        return _told(name, stopped, 130)
    except (ValueError, OSError) as error:
        return 0 if left(error) else _told(name, reason(error), 2)
    finally:
        settle()


def left(error: BaseException) -> bool:
    """Whether the error is that nobody reads stdout any more; a broken connection is the same exception."""
    if not isinstance(error, BrokenPipeError) or not hasattr(select, "poll"):
        return False
    with suppress(OSError, ValueError):  # a stdout that is no file
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def settle() -> None:
    """What cannot be written to stdout any more is dropped: else the end of Python tries once more, and complains."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reason(error: BaseException) -> str:
    """One line of an error; of one that the system raised: where, what, and how to mend a full disk."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    what = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return f"{what}; free space there, or name another place" if error.errno in _FULL else what


def legible() -> None:
    """From now on a class name that the terminal cannot show is shown in another way, and does not end the script.

    Nor does a stream that was closed before it began (`<&-`, some daemons): it is empty, or leads nowhere.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _told(name: str, line: str, code: int) -> int:
    print(f"{name}: {line}", file=sys.stderr)
    return code
