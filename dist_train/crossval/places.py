"""The machine -> places where a run may train: GPUs of its own, or threads of its own.

on GPUs   as many places as groups of `ranks` free GPUs, unless more or fewer are asked for
on a CPU  as many places as there are cores and memory for, each with its share of the threads
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dist_train.archive.index import cores

_BUSY = 0.1  # share of a GPU's memory in use from which it counts as somebody's
GROUP = Path("/sys/fs/cgroup")
_NEED = 2.0  # GB of memory that a run on a CPU may take


@dataclass(frozen=True)
class Place:
    """gpus: what CUDA_VISIBLE_DEVICES says there, () for a CPU; ranks: processes; threads: of each."""

    gpus: tuple[str, ...]
    ranks: int
    threads: int


def places(runs: int, jobs: int | None, ranks: int) -> tuple[Place, ...]:
    """Where `runs` runs of `ranks` processes train, `jobs` at a time. ValueError for what the machine has not."""
    gpus = visible()
    if gpus:
        if ranks > len(gpus):
            raise ValueError(f"--nproc {ranks}: {len(gpus)} GPUs are free ({', '.join(gpus)}); give fewer")
        groups = [gpus[begin : begin + ranks] for begin in range(0, len(gpus) - ranks + 1, ranks)]
        count = min(jobs or len(groups), runs)
        threads = max(1, granted() // (count * ranks))
        return tuple(Place(groups[number % len(groups)], ranks, threads) for number in range(count))
    count = max(1, min(jobs or usual(ranks), runs))
    return (Place((), ranks, max(1, granted() // (count * ranks))),) * count


def usual(ranks: int) -> int:
    """Runs side by side on a CPU: one a core does most, since runs share nothing and ranks wait for one another."""
    if sys.platform != "linux":
        return 1  # a Mac's runs share its GPU
    return max(1, min(physical() // ranks, int(memory() / _NEED)))


def granted() -> int:
    """Hardware threads that this process may use: of its cores, and of a container's quota."""
    quota = _file("cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal():
        return max(1, min(cores(), int(quota[0]) // int(quota[1])))
    return cores()


def physical() -> int:
    """Cores that this process may use, two threads of one core counted once."""
    siblings = set()
    for number in os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ():
        path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text())
        except OSError:
            return granted()
    return min(len(siblings) or granted(), granted())


def memory() -> float:
    """GB of memory that is free, in the container where there is one; plenty where the system does not tell."""
    free = 1e6
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) / 2**20
    limit, used = _file("memory.max"), _file("memory.current")
    if limit.isdecimal() and used.isdecimal():
        spare = re.search(r"^inactive_file (\d+)$", _file("memory.stat"), re.MULTILINE)  # given back when wanted
        free = min(free, (int(limit) - int(used) + int(spare[1] if spare else 0)) / 2**30)
    return free


def _file(name: str) -> str:
    """Of a file of this process's control group, as a container sees it; "" where there is none."""
    try:
        return (GROUP / name).read_text().strip()
    except OSError:
        return ""


def visible() -> tuple[str, ...]:
    """The GPUs to train on: those that CUDA_VISIBLE_DEVICES names, else those whose memory nobody uses.

    ValueError where there are some and all are in use.
    """
    import torch

    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(part.strip() for part in named.split(",") if part.strip())
    free = unused()
    if free is None:
        return tuple(str(number) for number in range(torch.cuda.device_count()))
    if not free:
        raise ValueError("every GPU is in use; wait, or name some by CUDA_VISIBLE_DEVICES to share them")
    return free


def unused() -> tuple[str, ...] | None:
    """Numbers of the GPUs with little memory in use, as nvidia-smi tells; None where it does not."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        rows = [line.split(",") for line in done.stdout.splitlines() if line.strip()]
        return tuple(row[0].strip() for row in rows if float(row[1]) < _BUSY * float(row[2]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
