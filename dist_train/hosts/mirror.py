"""A run's folder -> the same files under an address of an object store, and back on a fresh machine.

    save -> metrics.jsonl, new checkpoints, best.json, ..., result.json -> what rotation removed goes there too

One thread of its own copies: a slow store delays neither the training nor the next local save. A store that is down
costs one warning; the next save tries again. `flush` is the last word: all is there, or the run has failed.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from dist_train import checkpoint, disk
from dist_train.hosts.owner import ObjectMark, Owner, patiently
from dist_train.stores.bucket import Bucket, remote

_LAST = ("best.json", "result.json")  # they speak of files that must be there before
_ENDS = ("result.json", "scores.npz")  # they exist only where a run is finished, there too
Stamp = tuple[int, int]


class Mirror:
    """The copy of one run. `warn` takes a line where it cannot be made; `patience`: seconds a store may be down."""

    def __init__(self, folder: Path, address: str, warn: Callable[[str], None], patience: float) -> None:
        """Errors: `ValueError` where `address` cannot be written."""
        if not remote(address) or address.lower().startswith("http"):
            raise ValueError(
                f"checkpoint.store={address}: no store that can be written; give s3://, gs:// or az://BUCKET/PATH"
            )
        self.folder, self.warn = folder, warn
        self.bucket = Bucket(address, patience)
        self._mark = Bucket(address, min(2.0, patience))
        self._owner: Owner | None = None
        self._sent: dict[str, Stamp] = {}
        self._there: set[str] = set()
        self._failed = ""
        self._writer = ThreadPoolExecutor(1, "mirror")
        self._job: Future[None] | None = None

    def claim(self, token: str, before: str, job: str = "", patience: float = 0) -> None:
        """Take the address. `before`: token of the job that had the local folder and is dead; others: see `RunFolder`.

        Errors: `ValueError` where another job has it, or it cannot be used.
        """
        owner = Owner(ObjectMark(self._mark, self.bucket), token, job)
        patiently(lambda: owner.claim(lambda found: bool(before) and found.get("token") == before), job, patience)
        self._owner = owner

    def check(self) -> None:
        """Errors: `ValueError` where another job has taken the address over."""
        if self._owner is not None:
            self._owner.check()

    def fetch(self, adopt: bool = True) -> bool:
        """Bring the run here where its newest sound checkpoint is newer than any sound one of the local folder.

        Whether it was. `adopt`: False to look only at what is there.
        """
        self._there = set(self.bucket.sizes())
        if not adopt:
            return False
        ours = checkpoint.newest_step(self.folder / "checkpoints")
        for step, name in sorted(((_step(name), name) for name in self._there), reverse=True):
            if step <= ours:
                return False
            if self._checkpoint(name):
                break
        else:
            return False
        for name in sorted(self._there, key=_order):
            if _step(name) < 0 and _plain(name):
                self._file(name)
        self._best()
        return True

    def drop(self, step: int) -> None:
        """A line of training is given up: checkpoints after `step` move to `checkpoints/old`, as they do locally."""
        for name in [name for name in self._there if _step(name) > step]:
            self.bucket.move(name, f"checkpoints/old/{PurePosixPath(name).name}")
            self._there.discard(name)

    def sync(self) -> None:
        """Copy what is new, in the background; any thread may ask."""
        if self._job is None or self._job.running() or self._job.done():
            self._job = self._writer.submit(self._pass)

    def flush(self) -> None:
        """Copy what is new, now. Errors: `ValueError` where something is not there."""
        self._writer.submit(self._pass).result()
        if self._failed:
            raise ValueError(
                f"{self.bucket.address}: the run's folder is not copied there whole ({self._failed}); it lies in "
                f"{self.folder}, and the same command copies it once the store can be written"
            )

    def close(self) -> None:
        """Finish the copy at work, unless the store is down; give the address free."""
        self.bucket.give_up()
        self._writer.shutdown(wait=True, cancel_futures=True)
        if self._owner is not None:
            self._owner.release()

    def _pass(self) -> None:
        """All that is new, in an order in which a reader finds whole runs; then what is gone."""
        try:
            self.check()
            files = _files(self.folder)
            for name in sorted(files, key=_order):
                if self._sent.get(name) != files[name] and self._put(name):
                    self._sent[name] = files[name]
            here = _files(self.folder)
            for name in sorted(self._there - set(here)):
                if _step(name) >= 0 or name in _ENDS:
                    self.bucket.delete(name)
                    self._there.discard(name)
            self._failed = ""
        except (OSError, ValueError) as error:
            if not self._failed:
                self.warn(f"not copied to checkpoint.store ({error}); the next save tries again")
            self._failed = str(error)

    def _put(self, name: str) -> bool:
        path = self.folder / name
        try:
            data = path if path.suffix == ".pt" else path.read_bytes()  # others may grow while they are sent
        except FileNotFoundError:
            return False
        try:
            self.bucket.put(name, data)
        except FileNotFoundError:
            if path.exists():
                raise
            return False  # rotated away meanwhile
        self._there.add(name)
        return True

    def _file(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.tmp")
        self.bucket.download(name, part)
        part.replace(path)
        disk.sync(path.parent)
        self._sent[name] = _stamp(path)

    def _checkpoint(self, name: str) -> bool:
        """A checkpoint comes under its name only if it is sound."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.tmp")
        self.bucket.download(name, part)
        try:
            checkpoint.load(part)
        except ValueError:
            part.unlink()
            self.warn(f"{self.bucket.address}/{name}: broken checkpoint; skipped")
            return False
        part.replace(path)
        disk.sync(path.parent)
        self._sent[name] = _stamp(path)
        return True

    def _best(self) -> None:
        """The checkpoint that the fetched best.json names."""
        named = checkpoint.best_name(self.folder / "checkpoints")
        name = f"checkpoints/{named}"
        if named and name in self._there and not (self.folder / name).exists():
            self._checkpoint(name)


def _files(folder: Path) -> dict[str, Stamp]:
    """The run's files by name: none that are hidden, asked for or given up."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if _plain(name) and name != "STOP":
            try:
                if path.is_file():
                    found[name] = _stamp(path)
            except FileNotFoundError:
                continue
    return found


def _stamp(path: Path) -> Stamp:
    """Differs where a file has changed; times are only compared for equality."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _plain(name: str) -> bool:
    """An object's name that may be a file's of a run."""
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") for part in parts) or name.startswith("/") or "\\" in name
    return not hidden and name != "owner.json" and parts[:2] != ("checkpoints", "old")


def _step(name: str) -> int:
    """The step of a checkpoint's name; -1 for others."""
    path = PurePosixPath(name)
    whole = path.parent == PurePosixPath("checkpoints") and path.suffix == ".pt" and path.stem.startswith("step-")
    digits = path.stem.removeprefix("step-")
    return int(digits) if whole and digits.isdecimal() else -1


def _order(name: str) -> tuple[int, int, str]:
    """metrics.jsonl before the checkpoint whose steps it must hold; last what speaks of others."""
    step = _step(name)
    rank = 0 if name == "metrics.jsonl" else 1 if step >= 0 else 3 if PurePosixPath(name).name in _LAST else 2
    return rank, -step, name
