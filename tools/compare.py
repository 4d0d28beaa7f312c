#!/usr/bin/env python3
"""Runs side by side: settings that differ, curves, scores with intervals, McNemar's test on clips that both scored.

Example:
  python tools/compare.py runs/demo runs/demo --png /tmp/curves.png --clips 5

Each further run is compared with the first. A RUN is a finished run, a cross-validation, or a scores.npz such as
tools/evaluate.py --npz writes. McNemar's test asks whether two models differ on the same clips.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs, or scores.npz files")
    top.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    top.add_argument("--png", type=Path, metavar="FILE", help="a picture of the curves")
    top.add_argument("--csv", type=Path, metavar="FILE", help="all clips where two runs differ")
    top.add_argument("--clips", type=int, default=20, metavar="N", help="such clips that are shown (default: 20)")
    top.add_argument("--draws", type=int, default=1000, metavar="N", help="bootstrap draws; 0: no intervals")
    top.add_argument("--level", type=float, default=0.95, metavar="P", help="of the intervals (default: 0.95)")
    return top


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 compared, 2 bad input."""
    options = parser().parse_args(argv)
    from dist_train import command

    return command.run("compare", partial(compare, options))


def compare(options: argparse.Namespace) -> None:
    """Read, compare, write, tell."""
    check(options)
    from dist_train import disk, screen
    from dist_train.scoring import compared, contrast, curves, history

    runs = history.read(options.runs)
    told = compared.of(runs, options.draws, options.level)
    if options.png is not None:
        image = curves.drawing([run.name for run in runs], contrast.panels(runs, told["metric"]))
        disk.replace(options.png, lambda file: file.write(image))
    if options.csv is not None:
        text = differences(told)
        disk.replace(options.csv, lambda file: file.write(text))
    if options.json:
        print(json.dumps(disk.finite(told), ensure_ascii=False, indent=1))
        return
    sheets = [*contrast.settings(told), *contrast.lines(runs, told["metric"]), contrast.scores(told)]
    screen.show([*sheets, *contrast.pairs(told, options.clips)])
    for line in contrast.sentences(told):
        print(line)


def check(options: argparse.Namespace) -> None:
    """What cannot be is refused before the work."""
    from dist_train import disk
    from dist_train.scoring import limits

    if len(options.runs) < 2:
        raise ValueError("a comparison takes two runs or more; name another")
    for run in options.runs:
        if not run.exists():
            raise ValueError(f"{run}: no run there; name a folder that training made, e.g. runs/demo")
    limits.check(options.draws, options.level)
    for path in (options.png, options.csv):
        if path is not None:
            disk.writable(path.parent)


def differences(told: dict[str, Any]) -> bytes:
    """CSV of the clips where two runs differ."""
    from dist_train.sheet import separated

    rows = [["run", "against", "key", "truth", "guess", "guess_against", "right", "right_against"]]
    for pair in told["pairs"]:
        for clip in pair.get("clips_that_differ", []):
            guesses = clip["second"], clip["first"]
            rights = str(clip["second_right"]).lower(), str(clip["first_right"]).lower()
            rows.append([pair["second"], pair["first"], clip["key"], clip["truth"], *guesses, *rights])
    return separated(rows).encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
