"""What the jobs of a host are reading out of a shared folder, so that none takes it from another.

claims/ID        names, one a line
claims/ID.lock   held while its job lives: the claims of a job that was killed count for nothing
"""

import os
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Claims:
    """One reader's claims in a folder, until `close` or the process's death."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{os.getpid()}-{uuid.uuid4().hex}"
        self.lock = FileLock(_lock(self.path), thread_local=False)
        self.lock.acquire()

    def hold(self, names: Collection[str]) -> None:
        """From now on these and no others; on a full disk nothing changes, and others may take what is read."""
        part = self.path.with_suffix(".part")
        with suppress(OSError):
            part.write_text("\n".join(names))
            part.replace(self.path)

    def close(self) -> None:
        """Claim nothing any more."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.with_suffix(".part").unlink(missing_ok=True)
            self.lock.release()
            Path(self.lock.lock_file).unlink(missing_ok=True)


def held(folder: Path) -> set[str]:
    """The names that living jobs claim; what dead ones left is removed."""
    found: set[str] = set()
    for lock in folder.glob("*.lock"):
        path = lock.with_suffix("")
        try:
            with FileLock(lock, timeout=0):
                for left in (path, path.with_suffix(".part"), lock):
                    left.unlink(missing_ok=True)
        except Timeout:
            with suppress(FileNotFoundError):  # it claims nothing yet
                found.update(path.read_text().split("\n"))
    return found


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
