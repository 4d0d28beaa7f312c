"""A run's folder, as one writer sees it. In: configuration, records, result; out: files that others may read any time.

runs/NAME/  .lock .owner  config.yaml  environment.json  metrics.jsonl  result.json  scores.npz  STOP
            (checkpoints/ tensorboard/)
"""

import errno
import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dist_train import disk, environment
from dist_train.hosts.owner import FileMark, Owner, patiently, token_of

_LOCKLESS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # of file systems without locks


class RunFolder:
    """One run's folder, locked from `open` to `close` (or the process's death).

    open -> (read checkpoints, refuse what does not fit) -> begin -> append ... -> write_result -> close
    """

    def __init__(self, path: Path, job: str = "") -> None:
        """`job`: the launcher's name of this job, for one that may start its ranks anew on other hosts."""
        self.path, self.job = path, job
        # an advisory lock dies with its process, so nothing is ever left to clean up; the owner's mark, which another
        # host finds standing still, is for disks on which a lock holds on one host only, or not at all
        self._lock = FileLock(path / ".lock", timeout=0, thread_local=False, fallback_to_soft=False)
        self.token = secrets.token_hex(8)  # this job's
        self.before = ""  # token of the job before, where that one is dead and did not let go
        self._owner = Owner(FileMark(path / ".owner"), self.token, job)
        self._metrics: BinaryIO | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def open(self, patience: float = 0) -> None:
        """Make and lock the folder. Errors: `ValueError` where another job has it (named) or it cannot be written.

        `patience`: seconds for ranks of this same job, of before it was started anew, to let go.
        """
        patiently(self._open, self.job, patience)

    def _open(self) -> None:
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            locked = self._locked()
            self.before = token_of(self._owner.mark)
            host = socket.gethostname()
            try:
                self._owner.claim(lambda found: locked and found.get("host") == host)
            except BaseException:
                self._lock.release()
                raise

    def check(self) -> None:
        """Errors: `ValueError` where another job has taken the folder over."""
        self._owner.check()

    def begin(self, config_yaml: str, facts: Mapping[str, Any] | None = None) -> None:
        """Write config.yaml and environment.json (with `facts`: device, ranks, ...); remove STOP and result.json."""
        with self._writing():
            disk.replace(self.path / "config.yaml", lambda file: file.write(config_yaml.encode()))
            disk.replace_json(self.path / "environment.json", environment.describe(facts))
            for name in ("result.json", "scores.npz"):  # they exist only where a run is finished
                (self.path / name).unlink(missing_ok=True)
        self.clear_stop()

    def stop_requested(self) -> bool:
        """Somebody put a file `STOP` into the folder."""
        return (self.path / "STOP").exists()

    def clear_stop(self) -> None:
        """Remove `STOP`: it is obeyed, or it was meant for the run before."""
        with self._writing():
            (self.path / "STOP").unlink(missing_ok=True)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl; it is the system's when this returns, so a kill does not lose it.

        Floats keep every digit (repr), so that runs compare exactly; NaN and infinities become null.
        """
        left = memoryview(json.dumps(disk.finite(dict(record)), ensure_ascii=False).encode() + b"\n")
        with self._writing():
            if self._metrics is None:
                # unbuffered: on a full disk, closing would try again, and hide this error behind its own
                self._metrics = cast(BinaryIO, (self.path / "metrics.jsonl").open("ab", buffering=0))
            while left:
                left = left[self._metrics.write(left) :]

    def cut_metrics(self, step: int, keep_evaluation: bool = True) -> None:
        """Keep the lines up to `step` (none: -1), in one piece; a line that is no JSON object goes too.

        keep_evaluation: whether lines at exactly `step` that are not `train` stay; False where they will be repeated.
        """
        path = self.path / "metrics.jsonl"
        self._close_metrics()
        if not path.exists():
            return
        with self._writing():
            lines = [line for line in path.read_bytes().splitlines() if _kept(line, step, keep_evaluation)]
            disk.replace(path, lambda file: file.writelines(line + b"\n" for line in lines))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json in one piece: from now on the run counts as finished."""
        with self._writing():
            disk.replace_json(self.path / "result.json", dict(result))

    def write_scores(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write scores.npz in one piece: arrays by name, none of objects."""
        with self._writing():
            disk.replace(self.path / "scores.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))

    def close(self) -> None:
        """Give the folder free."""
        self._close_metrics()
        self._owner.release()
        self._lock.release()

    def _close_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _locked(self) -> bool:
        """Take the lock. False where the disk has none. Errors: `ValueError` where another process has it."""
        try:
            self._lock.acquire()
        except Timeout:
            raise self._owner.refuse(self._owner.mark.read()) from None
        except NotImplementedError:
            return False
        except OSError as error:
            if error.errno not in _LOCKLESS:
                raise
            return False
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """The disk's errors as one line for the user."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(
                f"{self.path}: the run's folder cannot be written ({reason}); mend that or give another run.dir"
            ) from None


def _kept(line: bytes, step: int, keep_evaluation: bool) -> bool:
    try:
        record = json.loads(line)
        at = int(record["step"])
    except (ValueError, KeyError, TypeError):
        return False
    return at < step or (at == step and (keep_evaluation or record.get("kind") == "train"))
