"""What the scripts of tools/ show: a bar while they work, tables and lines at the end."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from dist_train.sheet import Sheet

QUIET = 5.0  # seconds between plain lines
WIDE = 240  # columns of a table where there is no terminal


def say(line: str) -> None:
    """A line, above the bar if there is one."""
    print(line, flush=True)


def show(sheets: Sequence[Sheet]) -> None:
    """Tables, as wide as the terminal; as wide as they are where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    for sheet in sheets:
        if not sheet.rows and not any(sheet.head):
            console.print(Text(sheet.title))
            continue
        table = Table(show_header=any(sheet.head))
        for number, name in enumerate(sheet.head):
            table.add_column(Text(name), justify="right" if number and any(sheet.head) else "left", overflow="fold")
        for row in sheet.rows:
            table.add_row(*map(Text, row))
        console.print(*([Text(sheet.title)] if sheet.title else []), table)


@contextmanager
def bar(file: TextIO | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on a terminal, a plain line every few seconds elsewhere; both tell rate and time left.

    On stdout, unless another file is named.
    """
    file = file or sys.stdout
    if not file.isatty():
        yield plain(file)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    texts = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
    with Progress(
        texts[0], BarColumn(), MofNCompleteColumn(), texts[1], TimeRemainingColumn(), console=Console(file=file)
    ) as view:
        stages: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = view.add_task(stage, total=total, rate="")
            speed = next(task.speed for task in view.tasks if task.description == stage) or 0
            view.update(stages[stage], completed=done, rate=f"{speed:.0f}/s")

        yield show


def plain(file: TextIO) -> Callable[[str, int, int], None]:
    """Lines for a log: the end of a stage is shown only if it took long."""
    begun: dict[str, tuple[float, int]] = {}
    last = time.monotonic()

    def show(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if stage not in begun or begun[stage][1] == 0:  # what comes before the first one (processes start) is no rate
            begun[stage] = now, done
        start, before = begun[stage]
        if now - last < QUIET or done == before:
            return
        last = now
        rate = (done - before) / max(now - start, 1e-9)
        speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        print(f"{stage}: {done} of {total}, {speed}/s, {(total - done) / rate:.0f} s left", file=file, flush=True)

    return show
