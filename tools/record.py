#!/usr/bin/env python3
"""Records takes as 16 kHz mono WAV files into class folders: DEST/LABEL/0001.wav, 0002.wav, ... Overwrites nothing.

Example:
  python tools/record.py recordings dog - --split --group rex < dog.wav

From a microphone, or from a pipe (`-`: WAV, or raw samples by --format). A take begins when Enter is pressed, after
--countdown, or with --trigger by itself when it gets loud. DEST is a source for tools/make_shards.py pack; --group
writes DEST/takes.csv, so that the folds of pack --folds keep a speaker's or a room's takes together.
"""

import argparse
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 recorded; 1 nothing was; 2 bad input; 130 stopped."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command

    return command.run("record", partial(record, options))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("dest", type=Path, metavar="DEST", help="folder of class folders")
    top.add_argument("label", metavar="LABEL", help="the class; any name that a folder can have")
    top.add_argument("pipe", nargs="?", choices=["-"], help="record what comes on stdin")
    source = top.add_argument_group("where the sound comes from")
    source.add_argument("--device", metavar="NAME|N", help="microphone, as listen.py --list-devices has them")
    source.add_argument("--format", metavar="F", help="raw samples on stdin: s16le, f32le, ... (default: a WAV)")
    source.add_argument("--rate", type=int, metavar="HZ", help="of raw samples; of the microphone (default: its own)")
    source.add_argument("--channels", type=int, metavar="N", help="of raw samples, of the microphone (default: 1)")
    takes = top.add_argument_group("the takes")
    takes.add_argument("--takes", type=int, metavar="N", help="how many (default: 1; of a pipe: all it holds)")
    takes.add_argument("--seconds", type=float, metavar="S", help="of each (default: 3; with --split: 60)")
    takes.add_argument("--countdown", type=int, metavar="S", help="seconds before each, in place of Enter")
    takes.add_argument("--trigger", type=float, metavar="DB", help="begin when it is so loud, e.g. -30 (dBFS)")
    takes.add_argument("--before", type=float, default=0.2, metavar="S", help="kept from before that (default: 0.2)")
    takes.add_argument("--split", action="store_true", help="cut a take at its pauses, a file a sound")
    takes.add_argument("--pause", type=float, default=0.3, metavar="S", help="what a pause lasts (default: 0.3)")
    takes.add_argument("--quiet", type=float, default=-30.0, metavar="DB", help="warn under this peak (default: -30)")
    takes.add_argument(
        "--retry", type=int, default=0, metavar="N", help="throw quiet and clipped takes away, N at most"
    )
    files = top.add_argument_group("the files")
    files.add_argument("--group", metavar="NAME", help="speaker, room, device: what must not be in two folds")
    files.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="of the files (default: 16000)")
    return top


def record(options: argparse.Namespace) -> int:
    """Check, open, take, write."""
    from dist_train import disk
    from dist_train.live import asked, microphone, pipe, take
    from dist_train.live.recording import Recorder

    asked.check_recording(options)
    label = take.checked(options.label, "LABEL")
    prefix = "" if options.group is None else take.checked(options.group, "--group") + "-"
    table = take.Table(options.dest)
    tabled = options.group is not None or table.path.exists()
    if tabled:
        table.fits(label)  # a table that is in the way shows before the work
    source: Any
    if options.pipe:
        source = pipe.Pipe(sys.stdin.fileno(), options.format, options.rate, options.channels)
    else:
        source = microphone.Microphone(options.device, options.rate, options.channels)
    paths: list[Path] = []
    try:
        disk.writable(options.dest)
        source.start()
        recorder = Recorder(source, options.sample_rate)
        for wave_TC in parts(recorder, options):
            paths.append(take.write(options.dest / label, prefix, wave_TC, options.sample_rate))
            print(paths[-1], flush=True)
    finally:
        source.close()
        if paths and tabled:
            table.add(paths, options.group or "")
    if recorder.converter.broken:
        say(f"{recorder.converter.broken} samples were no sound; they were heard as silence. Is --format right?")
    if not paths:
        say("no take was kept")
    return 0 if paths else 1


def parts(recorder: Any, options: argparse.Namespace) -> Iterator[Any]:
    """What is to be written: takes, or their sounds; those amiss are told, and thrown away while --retry lasts."""
    from dist_train.live.recording import amiss, measured

    wanted = options.takes or (None if options.pipe else 1)
    done, retries = 0, options.retry
    while (wanted is None or done < wanted) and not recorder.ended:
        name = f"take {done + 1}" + (f" of {wanted}" if wanted else "")
        lost = recorder.source.flow.overruns
        whole_TC = taken(recorder, options, name)
        if recorder.source.flow.overruns > lost:
            say(f"{name}: the device lost sound in it; record it again")
        again = False
        for first, end in pieces(whole_TC, options, name):
            wrong = amiss(measured(whole_TC[first:end]), options.quiet)
            thrown = wrong is not None and retries > 0
            if wrong:
                say(f"{name}: {wrong}{'; thrown away' if thrown else ''}")
            if thrown:
                retries, again = retries - 1, not options.split
            else:
                yield whole_TC[first:end]
        done += not again


def length(options: argparse.Namespace) -> float:
    """Seconds of a take."""
    return float(options.seconds or (60 if options.split else 3))


def pieces(whole_TC: Any, options: argparse.Namespace, name: str) -> list[tuple[int, int]]:
    """What to write of a take, (first, end) in samples."""
    from dist_train.live.trigger import Pauses, split

    if not len(whole_TC) and not options.pipe:
        say(f"{name}: ended before any sound; nothing is written")
        return []
    if options.split:
        found = split(whole_TC, options.sample_rate, Pauses(options.pause))
        say(f"{name}: {len(found)} sounds")
        return found
    if options.pipe and len(whole_TC) < round(length(options) * options.sample_rate):
        if len(whole_TC):
            say(f"the last {len(whole_TC) / options.sample_rate:.2f} s are no whole take; they are left out")
        return []
    return [(0, len(whole_TC))]


def taken(recorder: Any, options: argparse.Namespace, name: str) -> Any:
    """One take, begun as the options say."""
    from dist_train.live.trigger import Trigger

    trigger = None
    if options.trigger is not None:
        trigger = Trigger(options.sample_rate, options.trigger, options.before, recorder.fresh)
    if not options.pipe and wait(options, name):
        while pressed():  # Enter while it counted down, or twice, ends no take
            pass
        recorder.forget()
    with shown(recorder, name, length(options)) as show:
        return recorder.take(length(options), trigger, (lambda: False) if options.pipe else pressed, show)


def wait(options: argparse.Namespace, name: str) -> bool:
    """Until Enter is pressed, or the countdown is over. False: at once, a sound begins it, or nobody sits there."""
    if options.countdown is not None:
        for left in range(options.countdown, 0, -1):
            say(f"{name}: in {left} ...")
            time.sleep(1)
        return True
    if options.trigger is not None or not sys.stdin.isatty():
        return False
    print(f"{name}: press Enter to begin, Ctrl-C to end ", end="", file=sys.stderr, flush=True)
    if not sys.stdin.readline():
        raise KeyboardInterrupt  # Ctrl-D
    return True


def pressed() -> bool:
    """Whether Enter was pressed while a take is on, which ends it. Never where a terminal cannot tell (Windows)."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        return False
    return bool(select.select([sys.stdin], [], [], 0)[0]) and bool(sys.stdin.readline())


@contextmanager
def shown(recorder: Any, name: str, seconds: float) -> Iterator[Any]:
    """A meter on a terminal while a take is on."""
    from dist_train.live import lines

    if not sys.stderr.isatty():
        yield lambda have: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), refresh_per_second=10, transient=True, redirect_stdout=False) as live:

        def show(have: float | None) -> None:
            said = "waiting for a sound" if have is None else f"{have:.1f} of {seconds:g} s"
            live.update(Text(f"{name}: {said}  {lines.bar(recorder.meter, 30)}", no_wrap=True, overflow="ellipsis"))

        yield show


def say(line: str) -> None:
    """Something for who records."""
    print(f"record: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
