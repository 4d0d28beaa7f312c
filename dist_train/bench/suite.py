"""Chosen names -> jobs, each a child process -> rows, in the order of the catalogue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dist_train import environment
from dist_train.bench import catalogue, length, peer
from dist_train.bench.child import TUNED, ask, pinned
from dist_train.bench.row import Row, Work

Malloc = Literal["untuned", "tuned"]


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    names: tuple[str, ...]
    malloc: Malloc = "untuned"


def jobs(names: Sequence[str], work: Work) -> list[Job]:
    """A process a measurement, so that none inherits another's heap; with `quick` as few as can be: each start takes
    seconds. The chain is measured with both allocator settings (with `quick` its first row only); the two sizes of
    `linear` take turns.
    """
    if work.quick:
        return _few(names)
    found: list[Job] = []
    for group in dict.fromkeys(map(catalogue.group, names)):
        mine = [name for name in names if catalogue.group(name) == group]
        if group == "linear":
            found += [Job((name,)) for _ in range(max(1, work.times // 3)) for name in mine]
        else:
            mallocs: tuple[Malloc, ...] = ("untuned", "tuned") if group == catalogue.TWICE else ("untuned",)
            found += [Job((name,), malloc) for name in mine for malloc in mallocs]
    return found


def _few(names: Sequence[str]) -> list[Job]:
    """The chain, both sizes of `linear`, what may use all cores, and everything else."""
    rooms: dict[str, list[str]] = {}
    for name in names:
        group = catalogue.group(name)
        kept = name if group == "linear" else group if group == catalogue.TWICE else str(pinned({group}))
        rooms.setdefault(kept, []).append(name)
    tuned = [Job((name,), "tuned") for name in names if name == catalogue.TWICE_QUICK]
    return [*(Job(tuple(room)) for room in rooms.values()), *tuned]


def run(names: Sequence[str], work: Work, progress: Callable[[str, int, int], None]) -> tuple[list[Row], list[str]]:
    """Rows, and a line for each process that did not end well."""
    listed = jobs(names, work)
    rows: list[Row] = []
    sizes: dict[str, list[Row]] = {}
    problems: list[str] = []
    for number, job in enumerate(listed):
        progress(f"{', '.join(job.names)} ({job.malloc} malloc)", number, len(listed))
        found, problem = ask(list(job.names), replace(work, malloc=job.malloc))
        if problem:
            problems.append(problem)
        if catalogue.group(job.names[0]) == "linear":
            sizes.setdefault(job.names[0], []).extend(row for row in found if row.ours is not None)
            problems += [f"{row.group}, {row.name}: {row.note}" for row in found if row.ours is None]
        else:
            rows += found
    if sizes:
        rows += length.combine(sizes.get("linear/1", []), sizes.get(f"linear/{length.TIMES}", []))
    problems += [f"{row.group}, {row.name}: {row.note}" for row in rows if row.note.startswith("failed: ")]
    order = list(dict.fromkeys(map(catalogue.group, catalogue.MEASUREMENTS)))
    return sorted(rows, key=lambda row: order.index(row.group)), problems


def machine() -> dict[str, Any]:
    """What the figures were measured on and by which command."""
    found = environment.describe()
    found["processor"] = processor()
    found["peers"] = peer.versions()
    found["tuned malloc"] = TUNED
    return found


def processor(path: str = "/proc/cpuinfo") -> str:
    """The CPU's name."""
    import platform

    try:
        with open(path, encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
