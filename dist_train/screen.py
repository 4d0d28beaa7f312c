"""What the scripts of tools/ show: a bar while they work, tables and lines at the end."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TextIO

from dist_train.sheet import Sheet

QUIET = 5.0  # seconds between plain lines
WIDE = 240  # columns of a table where there is no terminal
SHORT = 12  # columns of a figure, or of what may be folded


def say(line: str) -> None:
    """A line, above the bar if there is one."""
    print(line, flush=True)


def show(sheets: Sequence[Sheet]) -> None:
    """Tables, as wide as the terminal; as wide as they are where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)

    def out(what: Table | Text) -> None:
        with console.capture() as text:  # rich ends the program by itself where a reader has left
            console.print(what)
        sys.stdout.write(text.get())

    for sheet in sheets:
        if sheet.title or not any(sheet.head):
            out(Text(sheet.title))
        if not sheet.rows and not any(sheet.head):
            continue
        widths = natural(sheet)
        for columns in split(widths, console.width):
            table = Table(show_header=any(sheet.head))
            for number in columns:
                side: Literal["left", "right"] = "right" if number and any(sheet.head) else "left"
                whole = widths[number] <= SHORT
                table.add_column(Text(sheet.head[number]), justify=side, overflow="fold", no_wrap=whole)
            for row in sheet.rows:
                table.add_row(*(Text(row[number]) for number in columns))
            out(table)


def natural(sheet: Sheet) -> list[int]:
    """The width of each column that folds nothing, in columns of a terminal."""
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(sheet.head, *sheet.rows, strict=True)]


def split(widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each of the tables that stand below one another where one is too wide, the first in all of them.

    A column of SHORT or less is shown whole; others may be folded down to SHORT.
    """
    parts = [[0]]
    for number in range(1, len(widths)):
        needed = 1 + sum(min(widths[one], SHORT) + 3 for one in (*parts[-1], number))  # a line and two blanks each
        if needed > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(number)
    return parts


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
