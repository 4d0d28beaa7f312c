#!/usr/bin/env python3
"""A run as one HTML page that needs no network: figures, curves, confusion matrix, mistakes to hear, how to repeat it.

RUN is the folder of a run, finished or not, or of a cross-validation. Where its shards were moved, say where they are:
data.shards=[FOLDER].

Example:
  python tools/report.py runs/demo --out demo.html
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 bad input."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command

    return command.run("report", partial(report, options))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the run's")
    top.add_argument("--out", type=Path, metavar="FILE.html", help="the page to write (default: RUN/report.html)")
    top.add_argument("--mistakes", type=int, default=20, metavar="N", help="worst mistakes shown (default: 20)")
    top.add_argument("--no-audio", action="store_true", help="no sounds in the page; their pictures stay")
    return top


def report(options: argparse.Namespace) -> None:
    """Gather, render, write."""
    if not 0 <= options.mistakes <= 200:
        raise ValueError(f"--mistakes {options.mistakes}: give 0 to 200")
    out = options.out or options.run / "report.html"
    if out.is_dir():
        raise ValueError(f"--out {out}: is a folder; name a file")
    if not options.run.is_dir():
        raise ValueError(f"{options.run}: no run there; name a folder that training made, e.g. runs/demo")
    from dist_train import disk
    from dist_train.console import bar
    from dist_train.report import content, page

    disk.writable(out.parent)
    chosen = content.Options(options.mistakes, not options.no_audio, options.overrides)
    text = page.render(content.gather(options.run, chosen, bar)).encode()
    disk.replace(out, lambda file: file.write(text))
    print(f"{out}: {len(text) / 2**20:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
