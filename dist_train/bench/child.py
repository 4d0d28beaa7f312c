"""A process of its own for each measurement: one core, one compute thread, the allocator as asked for.

In: names of measurements and a Work. Out: rows. The rows come back in a file, so whatever a peer prints is harmless.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dist_train import disk
from dist_train.bench.pair import reason
from dist_train.bench.row import Row, Work

# glibc: a batch stays below 32 MB, the most that the first may be; then memory is kept instead of given back each time
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
ROOT = Path(__file__).resolve().parents[2]


def environment(malloc: str) -> dict[str, str]:
    """The child's environment: one thread everywhere, the same allocator settings for both sides."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    path = os.pathsep.join(part for part in (str(ROOT), kept.get("PYTHONPATH", "")) if part)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return kept | {"PYTHONPATH": path} | threads | (TUNED if malloc == "tuned" else {})


def ask(names: list[str], work: Work, timeout: float = 3600.0) -> tuple[list[Row], str]:
    """Run measurements in a child; their rows, and a line about what went wrong ("" where nothing did)."""
    job, answer = work.folder / "job.json", work.folder / "answer.json"
    answer.unlink(missing_ok=True)
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(work).items()}
    disk.replace_json(job, {"names": names, "work": plain})
    command = [sys.executable, "-m", "dist_train.bench", str(job), str(answer)]
    try:
        done = subprocess.run(
            command, env=environment(work.malloc), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"{', '.join(names)}: no end after {timeout:.0f} s"
    rows = read(answer) if answer.exists() else []
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return rows, f"{', '.join(names)}: {said}"
    return rows, ""


def read(path: Path) -> list[Row]:
    """Rows of a file."""
    listed = json.loads(path.read_text(encoding="utf-8"))
    return [Row(**{name: value for name, value in one.items() if name != "reached"}) for one in listed]


def answer(job: Path, path: Path) -> None:
    """The child's side: pin to one core, measure, write the rows; a measurement that fails is a row that says so."""
    from dist_train.bench import catalogue

    asked: dict[str, Any] = json.loads(job.read_text(encoding="utf-8"))
    plain = asked["work"]
    plain |= {name: Path(plain[name]) for name in ("folder", "data") if plain[name] is not None}
    if pinned({name.partition("/")[0] for name in asked["names"]}):
        pin()
    rows: list[Row] = []
    for name in asked["names"]:
        group, _, rest = name.partition("/")
        begun = time.perf_counter()
        try:
            found = catalogue.MEASUREMENTS[name](Work(**plain))
        except Exception as error:
            found = [Row(group, rest, "", note=f"failed: {reason(error)}")]
        took = {"measured by": name, "seconds": time.perf_counter() - begun}
        rows += [replace(row, more=row.more | took) for row in found]
        disk.replace_json(path, [row.plain() for row in rows])


def pinned(groups: set[str]) -> bool:
    """Whether these are measured on one core; not where a GPU works: the threads that feed it are part of it then."""
    import torch

    return not (torch.cuda.is_available() and groups & {"step", "whole", "gpu"})


def pin() -> None:
    """One core (the last: interrupts favour the first) and one compute thread, where the system allows it."""
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
