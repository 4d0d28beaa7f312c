"""What a person sees. In: lines, records, a layer table; out: a progress bar on a terminal, plain lines elsewhere.

epoch 3/30 ━━━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━━━━━━━━ 11% step 120  0:12:40 left
loss 1.2345  accuracy 0.5625  lr 1.0e-03  812 clips/s  2436 audio-s/s  waiting for data 3 %
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from dist_train.layers import Layer
from dist_train.speed import LEAST

_SHOWN = (
    ("loss", "loss {:.4f}"),
    ("accuracy", "accuracy {:.4f}"),
    ("lr", "lr {:.1e}"),
    ("clips_per_second", "{:.0f} clips/s"),
    ("audio_per_second", "{:.0f} audio-s/s"),
    ("data_wait", "waiting for data {:.0%}"),
    ("tflops", "{:.3g} TFLOP/s"),
    ("peak_share", "{:.0%} of peak"),
    ("peak_memory", "memory {:.1f} GB"),
)
_COUNTED = (
    ("bad_samples", "bad samples {}"),
    ("skipped", "skipped steps {}"),
    ("store_retries", "requests repeated {}"),
)
_SLOW = 0.2  # a rank slower by more than this share is named
_QUIET = {"kind", "step", "consumed", "epoch", "clips", "stream"} | {name for name, _ in (*_SHOWN, *_COUNTED)}


class Console:
    """Lines to stdout, warnings and errors to stderr; on a terminal also a live bar from `begin` to `close`."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self.terminal = terminal or Terminal(highlight=False)
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("step {task.fields[step]}  {task.fields[left]} left"),
            expand=True,
        )
        self._task: Any = None
        self._figures = Text("")
        self._samples = self._total = self._first = 0
        self._since = 0.0

    def message(self, text: str) -> None:
        """One line."""
        self._print(text, sys.stdout)

    def warn(self, text: str) -> None:
        """One line that wants attention."""
        self._print(f"warning: {text}", sys.stderr, "yellow")

    def error(self, text: str) -> None:
        """One line that says why there is no more."""
        self._print(f"error: {text}", sys.stderr, "red")

    def table(self, rows: Sequence[Layer]) -> None:
        """The layer table; the last row is the sum."""
        cells = [("layer", "type", "output", "parameters")]
        for row in rows:
            indent = "  " * row.name.count(".")
            shape = " x ".join(str(size) for size in row.shape)
            cells.append((indent + row.name, row.kind, shape, f"{row.parameters:,}"))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        left, right = widths[:-1], widths[-1]
        lines = ["  ".join([*map(str.ljust, line[:-1], left), line[-1].rjust(right)]) for line in cells]
        rule = "-" * len(lines[0])
        self.message("\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]]))

    def begin(self, consumed: int, total: int, samples: int) -> None:
        """Positions done, positions of the whole run, samples an epoch: the bar appears."""
        self._first, self._total, self._samples, self._since = consumed, total, samples, time.monotonic()
        if self.terminal.is_terminal:
            self._task = self._bar.add_task("", total=total, completed=consumed, step="-", left="-:--:--", epoch="")
            self._live = Live(Group(self._bar, self._figures), console=self.terminal, refresh_per_second=4)
            self._live.start()
            self.tick(consumed)

    def tick(self, consumed: int) -> None:
        """Move the bar. Cheap: for each step."""
        if self._live is not None:
            self._bar.update(self._task, completed=consumed, epoch=self._epoch(consumed), left=self._left(consumed))

    def train(self, record: dict[str, Any]) -> None:
        """The figures under the bar, or one line."""
        figures, consumed = _figures(record), record.get("consumed", 0)
        if self._live is not None:
            self._figures.plain = figures
            self._bar.update(self._task, step=record["step"])
            self.tick(consumed)
            return
        left = f"  {self._left(consumed)} left" if self._total else ""
        self._print(f"step {record['step']}  epoch {self._epoch(consumed)}  {figures}{left}", sys.stdout)

    def eval(self, record: dict[str, Any]) -> None:
        """One line of scores."""
        scores = "  ".join(
            f"{name} {value:.4f}"
            for name, value in record.items()
            if isinstance(value, float) and (name not in _QUIET or name in ("loss", "accuracy"))
        )
        clips = f"  {record['clips']} clips" if "clips" in record else ""
        bad = f"  bad {record['bad_samples']}" if record.get("bad_samples") else ""
        self._print(f"{record.get('kind', 'eval')} at step {record['step']}:  {scores}{clips}{bad}", sys.stdout)

    def close(self) -> None:
        """The bar stays as it stands; the cursor comes back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _epoch(self, consumed: int) -> str:
        if not self._samples:
            return "-"
        epochs = -(-self._total // self._samples)
        return f"{min(consumed // self._samples + 1, epochs)}/{epochs}"

    def _left(self, consumed: int) -> str:
        """Time left at the mean rate since `begin`, evaluations and all."""
        done, seconds = consumed - self._first, time.monotonic() - self._since
        if done <= 0:
            return "-:--:--"
        left = round(seconds / done * max(0, self._total - consumed))
        return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"

    def _print(self, text: str, stream: TextIO, style: str = "") -> None:
        # a class name that the terminal cannot show must not end a run
        coding = getattr(stream, "encoding", None) or "utf-8"
        text = text.encode(coding, "backslashreplace").decode(coding)
        if self.terminal.is_terminal and (self._live is not None or stream is sys.stdout):
            self.terminal.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
        elif stream is sys.stdout:
            print(text, file=self.terminal.file, flush=True)
        else:
            print(text, file=stream, flush=True)


@contextmanager
def bar(name: str, seconds: float = 10.0) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that shows how far a long work is, on stderr.

    A bar with count and time left on a terminal, elsewhere a line every `seconds` and at the end.
    """
    terminal = Terminal(stderr=True)
    if not terminal.is_terminal:
        yield _lines(name, seconds)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _lines(name: str, seconds: float) -> Callable[[int, int], None]:
    start = said = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < seconds and done < total:
            return
        said = now
        rate = done / max(now - start, 1e-9)
        left = f", {max(0, total - done) / rate:.0f} s left" if done else ""
        print(f"{name}: {done}/{total}, {rate:.1f} a second{left}", file=sys.stderr, flush=True)

    return show


def _worth(name: str, value: Any) -> bool:
    return value is not None and (name != "tflops" or value >= LEAST)


def _figures(record: dict[str, Any]) -> str:
    shown = [text.format(record[name]) for name, text in _SHOWN if _worth(name, record.get(name))]
    counted = [text.format(record[name]) for name, text in _COUNTED if record.get(name)]
    if record.get("slowest_by", 0) > _SLOW:
        shown.append(f"rank {record['slowest_rank']} is {record['slowest_by']:.0%} slower")
    return "  ".join(shown + counted)
