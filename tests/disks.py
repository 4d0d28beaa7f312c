"""A small disk of its own (tmpfs) for the tests that fill it or make it read-only; root alone may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """`folder` as a disk of so many MB."""
    mount(folder, megabytes)
    try:
        yield folder
    finally:
        unmount(folder)


def mount(folder: Path, megabytes: int) -> None:
    """The test is skipped where that may not be done."""
    folder.mkdir(parents=True, exist_ok=True)
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    done = _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"no small disk here: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    """Also where a process still has a file open there."""
    _run("umount", "--lazy", str(folder))


def read_only(folder: Path, on: bool = True, must: bool = True) -> bool:
    """Nobody may write to a mounted disk any more, root neither; or all may again. Whether it could be done."""
    done = _run("mount", "-o", f"remount,{'ro' if on else 'rw'}", str(folder))
    assert done.returncode == 0 or not must, done.stderr
    return done.returncode == 0


def fill(folder: Path) -> Path:
    """A file that takes all that is free."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return path


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True)
