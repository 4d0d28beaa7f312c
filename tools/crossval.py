#!/usr/bin/env python3
"""Hold out every fold of the data once: train on the others, test on it; the scores of all folds, and what they mean.

Example:
  python tools/crossval.py configs/esc10.yaml --seeds 0,1,2

Each run is an ordinary one in runs/NAME/seed-S/fold-F; runs/NAME holds crossval.json, the pooled scores.npz and the
pooled confusion.png. Kill it anywhere: the same command goes on. The score is the final model's; with --validate the
fold after the tested one chooses a best checkpoint, whose score is told too.

On a job array give each task a fold (--folds $TASK) and the same --name; then --collect pools what all have trained.
Exit codes: 0 all that was asked for is done, 1 a run failed or is missing, 2 bad input, 130 stopped.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_train.crossval.course import Course, Standing
    from dist_train.crossval.plan import Plan, Turn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

EVERY = 30.0  # seconds between two lines of a run where there is no terminal


def main(argv: list[str] | None = None) -> int:
    """Exit code."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command

    return command.run("crossval", partial(crossval, options))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("config", metavar="CONFIG", help="a configuration, such as configs/esc10.yaml")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    top.add_argument("--folds", type=numbers, metavar="1,2,..", help="hold out these only; the result is partial")
    top.add_argument("--seeds", type=numbers, metavar="0,1,..", help="all folds by each seed (default: run.seed)")
    top.add_argument("--jobs", type=positive, metavar="N", help="runs side by side (default: as the machine allows)")
    top.add_argument("--nproc", type=positive, default=1, metavar="M", help="processes a run, on as many GPUs")
    top.add_argument("--name", metavar="NAME", help="folder under run.dir (default: run.name, or CONFIG-folds)")
    top.add_argument("--validate", action="store_true", help="the next fold chooses a best checkpoint")
    top.add_argument("--collect", action="store_true", help="train nothing: pool the folds that are finished")
    top.add_argument("--json", action="store_true", help="print crossval.json instead of tables")
    return top


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from 0, joined by commas."""
    return tuple(int(part) if part.isascii() and part.strip().isdecimal() else _no(part) for part in text.split(","))


def positive(text: str) -> int:
    """A whole number from 1."""
    return int(text) if text.isascii() and text.isdecimal() and int(text) else _no(text)


def _no(text: str) -> int:
    raise argparse.ArgumentTypeError(f"`{text}` is no such number")


def crossval(options: argparse.Namespace) -> int:
    """Plan, train, pool, tell."""
    from dist_train.crossval import book, outcome, plan
    from dist_train.world import place

    if place().size > 1:
        raise ValueError("start it once, without a launcher; --nproc gives each run several processes")
    wish = plan.Wish(options.folds, options.seeds, options.validate, options.name)
    planned = plan.make(options.config, options.overrides, wish)
    if options.collect:
        if book.read(planned.root) is None:
            raise ValueError(f"{planned.root}: no cross-validation there; train first, by the same command")
        book.agree(planned)
        return tell(planned, outcome.save(planned), options.json)
    turns = planned.turns()
    book.agree(planned)
    course = train(planned, turns, options)
    if course.signal is not None:
        print("crossval: stopped; the same command goes on", file=sys.stderr)
        return 130
    failures(course.standings)
    if not any(one.state == "finished" for one in course.standings):
        return 1
    return tell(planned, outcome.save(planned), options.json)


def train(planned: "Plan", turns: Sequence["Turn"], options: argparse.Namespace) -> "Course":
    """All that is not finished yet."""
    from dist_train.crossval import book
    from dist_train.crossval.course import Course
    from dist_train.crossval.places import places

    waiting = [turn for turn in turns if not book.finished(turn)]
    with book.claimed(planned, waiting), showing() as show:
        course = Course(planned.file, turns, show)
        if any(one.state == "waiting" for one in course.standings):
            course.run(places(len(turns), options.jobs, options.nproc))
    return course


@contextmanager
def showing() -> Iterator[Callable[[Sequence["Standing"]], None]]:
    """Shows standings on stderr: a table that changes in place on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from dist_train.crossval import sheets

    with Live(console=Console(stderr=True), refresh_per_second=2) as live:

        def show(standings: Sequence["Standing"]) -> None:
            table = Table.grid(padding=(0, 2))
            for standing in standings:
                table.add_row(*map(Text, sheets.row(standing)))
            left = sheets.left(standings)
            table.add_row(Text(done(standings)), Text(f"{sheets.clock(left)} left" if left is not None else ""))
            live.update(table)

        yield show


class Lines:
    """Standings as lines of a log: one where a run changes its state, and one of each running one every `EVERY` s."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[str, float]] = {}

    def __call__(self, standings: Sequence["Standing"]) -> None:
        """Show what is new."""
        from dist_train.crossval import sheets

        now, left = time.monotonic(), sheets.left(standings)
        for standing in standings:
            state, said = self.states.get(standing.turn.name, ("waiting", now))
            if standing.state == state and (state != "running" or now - said < EVERY):
                continue
            self.states[standing.turn.name] = standing.state, now
            whole = f"; {done(standings)}" + (f", {sheets.clock(left)} left" if left is not None else "")
            print(f"{sheets.line(standing)}{whole}", file=sys.stderr, flush=True)


def done(standings: Sequence["Standing"]) -> str:
    """So many of all are finished."""
    return f"{sum(one.state == 'finished' for one in standings)} of {len(standings)} done"


def failures(standings: Sequence["Standing"]) -> None:
    """The last lines of each run that failed."""
    for standing in standings:
        if standing.state == "failed":
            log = standing.turn.beside(".log")
            print(f"crossval: {standing.turn.name} failed with exit code {standing.code}; {log} ends:", file=sys.stderr)
            for line in standing.said:
                print(f"    {line}", file=sys.stderr)


def tell(planned: "Plan", results: dict[str, Any], as_json: bool) -> int:
    """The results on stdout. 0: all folds of the seeds that were asked for are there; 1: some are not."""
    from dist_train import screen
    from dist_train.crossval import sheets

    if as_json:
        print((planned.root / "crossval.json").read_text(encoding="utf-8"), end="")
    else:
        screen.show([sheets.table(results), *([sheets.table(results, best=True)] if results["best"] else [])])
        for line in sheets.words(results):
            screen.say(line)
        picture = "confusion.png" if results["confusion"] is not None else "precision.png"
        screen.say(f"{planned.root}: crossval.json, scores.npz, {picture}, and a folder for each seed")
    wanted = {(seed, fold) for seed in planned.seeds for fold in planned.wanted}
    return int(any((seed, fold) in wanted for seed, fold in results["missing"]))


if __name__ == "__main__":
    sys.exit(main())
