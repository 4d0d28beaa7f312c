#!/usr/bin/env python3
"""Write the demo's recordings: ten kinds of urban sound, about 1000 clips, 30 MB of WAV, FLAC and OGG.

With --mixtures the demo of several labels: 800 clips of 3 s, one to three of these sounds in each, 50 MB of FLAC.

Example:
  python tools/make_demo.py /tmp/urban
  python tools/make_shards.py pack /tmp/urban/table.csv shards/urban
  python tools/make_demo.py /tmp/mixtures --mixtures
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dist_train import demo


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder to write, new or empty")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other recordings (default: 0)")
    parser.add_argument("--recordings", type=int, default=400, help="how many, a multiple of 50 (default: 400)")
    parser.add_argument("--mixtures", action="store_true", help="clips of several labels")
    options = parser.parse_args(argv)
    from dist_train import command

    return command.run("make_demo", partial(make, options), "stopped; nothing is left behind")


def make(options: argparse.Namespace) -> None:
    """Write the recordings and their table."""
    generate = demo.mixtures.generate if options.mixtures else demo.generate
    generate(options.dest, options.seed, options.recordings, progress())
    clips = [path.stat().st_size for path in (options.dest / "audio").iterdir()]
    print(f"{len(clips)} clips, {sum(clips) / 1e6:.0f} MB in {options.dest}; the labels are in table.csv")


def progress() -> Callable[[int, int], None]:
    """A line with the rate and the time left: rewritten on a terminal, four plain lines elsewhere."""
    begun, terminal = time.monotonic(), sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if not terminal and done * 4 // total == (done - 1) * 4 // total:
            return
        rate = done / max(1e-3, time.monotonic() - begun)
        line = f"{done}/{total} recordings, {rate:.0f}/s, {(total - done) / rate:.0f} s left"
        print(f"\r{line:<60}" if terminal else line, end="\n" if done == total or not terminal else "", file=sys.stderr)

    return show


if __name__ == "__main__":
    sys.exit(main())
