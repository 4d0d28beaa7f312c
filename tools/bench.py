#!/usr/bin/env python
"""Measure each stage beside the systems people would otherwise use, both sides in one run, and show the ratios."""

import argparse
import shlex
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_train.bench.row import Row

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ABOUT = """\
groups:
  read         raw shards beside webdataset; a batch handed over beside a DataLoader worker
  fbank        batched Fbank beside torchaudio's and kaldi-native-fbank's, and the error against float64
  chain        bytes to features beside macls: WAV, noise and reverb, 8 kHz, OGG, packed shards
  speechbrain  its Fbank and speed perturbation on the device in use
  step         a training step of each network beside macls' of the same network
  whole        training end to end beside the same step on a batch that stays on the device
  linear       ten times the samples: the same rate, the same memory
  roofline     each stage against what memory and arithmetic allow; what holds the others up
  scale        opening, choosing and ordering 1e8 samples in 1e5 shards for 1,000 ranks (docs/scaling.md)
  gpu          on a GPU only: front end, its share of a step, training beside macls with 16 workers

how: one core and one thread a side; ours, peer, ours, peer ... after a warm-up; the ratio is the median over the pairs
(over 1: ours is better), beside it the least and the most. The chain is measured twice, with glibc's malloc as it is
and tuned, the same for both sides (--quick: its first row only). Peers: pip install -e '.[bench]'; those that are
absent are shown as not installed.

example:
  python tools/bench.py --quick --json figures.json read chain
measures the reader and the chain in a few repeats, shows the table and writes it, with the machine's description, to
figures.json. Exit codes: 0 done, 1 a measurement failed (the others are shown), 2 bad arguments.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command's exit code."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    from dist_train import command

    return command.run("bench", partial(bench, options), "stopped; nothing was written")


def parser() -> argparse.ArgumentParser:
    """Every option."""
    form = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(description=__doc__, epilog=ABOUT, formatter_class=form)
    top.add_argument("patterns", nargs="*", metavar="ROW-PATTERN", help="groups, or parts of names (default: all)")
    top.add_argument("--quick", action="store_true", help="3 repeats, less work: within a minute, ratios are rough")
    top.add_argument("--full", action="store_true", help="compiled networks on a CPU too: takes minutes")
    top.add_argument("--json", type=Path, metavar="F", help="write rows and machine to F")
    top.add_argument("--data", type=Path, metavar="FOLDER", help="recordings to measure on, such as ESC-10's OGGs")
    top.add_argument("--times", type=int, metavar="N", help="pairs a row (default: 9; with --quick 3)")
    top.add_argument("--list", action="store_true", help="names of all measurements, and end")
    return top


def bench(options: argparse.Namespace) -> int:
    """Check, measure, show, write."""
    check(options)
    from dist_train import disk
    from dist_train.bench import catalogue, suite
    from dist_train.bench.row import Work

    names = catalogue.choose(options.patterns)
    if options.list:
        print("\n".join(names))
        return 0
    times = options.times or (3 if options.quick else 9)
    with tempfile.TemporaryDirectory(prefix="dist-train-bench-") as folder:
        work = Work(Path(folder), options.quick, options.full, times, options.data and options.data.resolve())
        rows, problems = suite.run(names, work, say)
    machine = suite.machine() | {"command": command(), "repeats": times}
    show(machine, rows)
    if options.json is not None:
        disk.replace_json(options.json, {"machine": machine, "rows": [row.plain() for row in rows]})
    for problem in problems:
        print(f"bench: {problem}", file=sys.stderr)
    return 1 if problems or not rows else 0


def check(options: argparse.Namespace) -> None:
    """ValueError before minutes are spent."""
    if options.times is not None and not 1 <= options.times <= 1000:
        raise ValueError(f"--times {options.times}: give 1 to 1000 pairs")
    if options.data is not None and not options.data.is_dir():
        raise ValueError(f"--data {options.data}: no such folder: name one that holds recordings")
    if options.json is not None and (options.json.is_dir() or not options.json.resolve().parent.is_dir()):
        raise ValueError(f"--json {options.json}: name a file in a folder that exists")


def command() -> str:
    """The line that repeats this run."""
    return shlex.join(["python", "tools/bench.py", *sys.argv[1:]])


def say(what: str, done: int, total: int) -> None:
    """Progress, beside the result and not in it."""
    print(f"bench: {done + 1} of {total}: {what}", file=sys.stderr, flush=True)


def show(machine: dict[str, Any], rows: "list[Row]") -> None:
    """The table; as wide as the terminal, or 160 columns in a file."""
    from rich.console import Console
    from rich.table import Table

    out = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    packages = machine["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "torchaudio", "numpy") if name in packages)
    devices = ", ".join(machine["gpus"]) or "no GPU"
    out.print(f"{machine['processor']}, {machine['cores']} cores; {devices}; Python {machine['python']}, {versions}")
    out.print(f"{machine['command']}  ({machine['started']}, {machine['repeats']} pairs a row)")
    table = Table(show_lines=False, pad_edge=False)
    for title in ("group", "row", "ours", "peer", "unit", "ratio", "spread", "goal", "beside", "note"):
        right = title in ("ours", "peer", "ratio", "goal")
        table.add_column(title, justify="right" if right else "left", overflow="fold", no_wrap=title == "group")
    before = ""
    for row in rows:
        if before and row.group != before:
            table.add_section()
        table.add_row(row.group if row.group != before else "", *cells(row))
        before = row.group
    out.print(table)


def cells(row: "Row") -> list[str]:
    """A row's texts, but for its group."""
    spread = "" if row.low is None or row.high is None else f"{number(row.low)} ... {number(row.high)}"
    goal = "" if row.goal is None else f">= {number(row.goal)}"
    goal = goal if row.goal_most is None else f"<= {number(row.goal_most)}"
    mark = {True: " yes", False: " no", None: ""}[row.reached]
    peer = f"{row.peer} {row.version}".strip()
    values = (row.name, number(row.ours), number(row.peer_value), row.unit, number(row.ratio), spread)
    return [*values, goal + mark, peer, row.note]


def number(value: float | None) -> str:
    """Three figures that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
