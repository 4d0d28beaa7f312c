"""A run's state in files. In: step and payload; out: `checkpoints/step-00001200.pt`, whole or absent, and back.

save: caller's thread copies tensors to the CPU | writer thread: temporary file, fsync, rename, rotate

A payload holds plain tensors, numbers, strings, lists and dicts only: nothing is ever unpickled. torch reads a file
with flipped bits without a word, so the checksums that the zip format has anyway are verified before it does.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dist_train import disk

Payload = dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. Reading changes nothing on disk; `save`, `mark_best` and `cut` are for one writer.

    folder: made at the first save. keep: newest files that stay, >= 1, beside the best one.
    warn: takes one line for each broken file that is skipped. written: called by the writer after each file.
    """

    def __init__(
        self, folder: Path, keep: int, warn: Callable[[str], None], written: Callable[[], None] = lambda: None
    ) -> None:
        assert keep >= 1
        self.folder, self.keep, self.warn, self.written = folder, keep, warn, written
        self._held: int | None = None
        self._last: int | None = None
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._jobs: list[Future[None]] = []

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies, or will."""
        return self.folder / f"step-{step:08d}.pt"

    def save(self, step: int, payload: Payload, hold: bool = False) -> Path:
        """Copy the payload and write it in the background; waits for the save before. Returns the file to be.

        hold: rotation spares the file until `mark_best` names one or another is held.
        The caller may change its tensors at once. Errors: `ValueError` where an earlier write failed.
        """
        self.wait()
        copies, ready = _copy(payload)
        if hold:
            self._held = step
        path = self.path(step)
        self._jobs.append(self._writer.submit(self._write, path, copies, ready))
        return path

    def mark_best(self, step: int, value: float) -> None:
        """Name the best checkpoint, in the background after its save: rotation spares it from now on."""
        self._jobs.append(self._writer.submit(self._mark, step, value))

    def wait(self) -> None:
        """Until all is on disk. Errors: `ValueError` (once) where a write failed; older checkpoints are untouched."""
        jobs, self._jobs = self._jobs, []
        for error in [job.exception() for job in jobs]:
            reason = _disk_error(error)
            if reason is not None:
                where = f"{self.folder}: checkpoint not written ({reason.strerror or reason})"
                raise ValueError(f"{where}; free space there or give another run.dir") from None
            if error is not None:
                raise error

    def newest(self) -> tuple[Path, Payload] | None:
        """The checkpoint of the highest step that is sound, and its payload; `warn` names the broken ones."""
        for path in sorted(self.folder.glob("step-*.pt"), key=_step, reverse=True):
            try:
                return path, load(path)
            except ValueError as error:
                self.warn(f"{error}; skipped")
        return None

    def best(self) -> tuple[Path, float] | None:
        """The file that `best.json` names, and its value; None without one."""
        record = self._best()
        path = self.path(record.get("step", -1))
        return (path, float(record["value"])) if path.is_file() else None

    def cut(self, step: int) -> None:
        """Leave a line of training that is given up: checkpoints after `step` (all: -1) go to `old/`, replacing it.

        Without it, a run that goes on from an earlier checkpoint would resume from the abandoned later one.
        """
        later = [path for path in self.folder.glob("step-*.pt") if _step(path) > step]
        if not later:
            return
        old = self.folder / "old"
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir()
        if self._best().get("step", -1) > step:
            later.append(self.folder / "best.json")
        for path in later:
            path.replace(old / path.name)
        disk.sync(self.folder)

    def _write(self, path: Path, payload: Payload, ready: Callable[[], None]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob(".*.tmp"):  # of a process that was killed in its save
            stale.unlink()
        ready()
        disk.replace(path, lambda file: torch.save(payload, file))
        self._last = _step(path)
        self._rotate()
        self.written()

    def _mark(self, step: int, value: float) -> None:
        path = self.path(step)
        if path.is_file():  # else its write has failed, and the best before it remains
            disk.replace_json(self.folder / "best.json", {"step": step, "value": value, "file": path.name})
            self._held = None
            self._rotate()
            self.written()

    def _rotate(self) -> None:
        paths = sorted(self.folder.glob("step-*.pt"), key=_step)
        # the last written too: a broken file of a higher step, that a run did not resume from, must not push it out
        spared = {self._best().get("step"), self._held, self._last}
        for path in paths[: -self.keep]:
            if _step(path) not in spared:
                with suppress(OSError):  # open in another program on Windows: the next rotation removes it
                    path.unlink()

    def _best(self) -> dict[str, Any]:
        return _record(self.folder / "best.json")


def newest_step(folder: Path) -> int:
    """The highest step of which there is a sound checkpoint; -1 without one."""
    for path in sorted(folder.glob("step-*.pt"), key=_step, reverse=True):
        with suppress(ValueError):
            load(path)
            return _step(path)
    return -1


def best_name(folder: Path) -> str:
    """The file that `best.json` names, there or not; "" without one."""
    return Path(str(_record(folder / "best.json").get("file", ""))).name


def load(path: Path) -> Payload:
    """A checkpoint's payload, on the CPU. Errors: `ValueError` where it is missing or any bit of it is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: checkpoint cannot be read ({error.strerror}); give an existing step-*.pt") from None
    return decode(data, str(path))


def encode(payload: Payload) -> bytes:
    """A payload as the bytes of a checkpoint, for ranks that read none themselves."""
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def decode(data: bytes, where: str) -> Payload:
    """The payload in a checkpoint's bytes. Errors: `ValueError` where they are cut, changed or no checkpoint."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            wrong = archive.testzip()
        if wrong is None:
            payload: Payload = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return payload
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise a dozen kinds; pickle's own would need an import of pickle
        wrong = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    raise ValueError(f"{where}: broken checkpoint ({wrong})")


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _step(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1


def _disk_error(error: BaseException | None) -> OSError | None:
    """The disk's error behind an error: torch's zip writer raises a RuntimeError of its own on top of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _plain(value: Any) -> Any:
    # by type, not isinstance: NumPy's float64 is a float, and torch.load(weights_only=True) refuses it
    assert type(value) in (type(None), bool, int, float, str), f"a {type(value)} may not go into a checkpoint"
    return value


def _copy(payload: Payload) -> tuple[Payload, Callable[[], None]]:
    """CPU copies of all tensors, and what to call before they are read.

    GPU tensors are copied to pinned memory in stream order: later kernels of the caller cannot overtake the copy, so
    it is the writer who waits for it.
    """
    events: dict[torch.device, torch.cuda.Event] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, dict):
            return {_plain(key): copied(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [copied(inner) for inner in value]
        if not isinstance(value, torch.Tensor):
            return _plain(value)
        if not value.is_cuda:
            return value.detach().to("cpu", copy=True)
        events.setdefault(value.device, torch.cuda.Event())  # type: ignore[no-untyped-call]
        pinned = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
        return pinned.copy_(value.detach(), non_blocking=True)

    copies = copied(payload)
    for device, event in events.items():
        event.record(torch.cuda.current_stream(device))

    def ready() -> None:
        for event in events.values():
            event.synchronize()

    return copies, ready
