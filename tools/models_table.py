#!/usr/bin/env python
"""Writes the table of docs/models.md: what is counted of every network; the other columns stay as they are there."""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs/models.md"
FIRST, LAST = "<!-- table -->\n", "<!-- /table -->\n"
CLASSES = 10
SHAPES = {"m5": (32_000, 1)}  # frames, bins; samples of 4 s at 8 kHz
SHAPE = (298, 80)
COUNTED = ("`model.name`", "parameters", "MACs", "embedding", "least frames", "`model.pooling`")
KEPT = ("clips/s", "ESC-10", "paper")
ROWS, REPEATS = 2, 2
ABOUT = """\
example:
  python tools/models_table.py --measure
counts parameters and multiplications, times a forward and a backward of every network in fp32 (seconds of one core, the
best of 2), and writes the table into docs/models.md. Exit codes: 0 done, 2 bad arguments.
"""


class Row(NamedTuple):
    """One architecture at full size, 10 classes, 3 s of 80 bins."""

    parameters: int
    multiplications: int
    embedding: int
    least: int
    poolings: tuple[str, ...]


def count(name: str) -> Row:
    """Counted on shapes alone: nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dist_train import models

    frames, bins = SHAPES.get(name, SHAPE)
    with torch.device("meta"):
        model = models.build(name, bins, CLASSES).eval()
        feat_BTF = torch.empty(1, frames, bins)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(feat_BTF)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    operations = counter.get_total_flops()
    return Row(parameters, operations // 2, model.head.in_features, model.least, models.POOLINGS.get(name, ()))


def speed(name: str) -> str:
    """Clips a second of one core's time: forward, loss, backward."""
    import torch
    from torch.nn import functional

    from dist_train import models

    frames, bins = SHAPES.get(name, SHAPE)
    torch.set_num_threads(1)
    model = models.build(name, bins, CLASSES).train()
    feat_BTF, label_B = torch.randn(ROWS, frames, bins), torch.arange(ROWS)
    best = float("inf")
    for _ in range(1 + REPEATS):
        begin = time.process_time()
        functional.cross_entropy(model(feat_BTF), label_B).backward()  # type: ignore[no-untyped-call]
        best = min(best, time.process_time() - begin)
    return f"{ROWS / best:.2g}" if ROWS / best < 100 else f"{ROWS / best:.0f}"


def kept(page: str) -> dict[str, list[str]]:
    """The columns of a page's table that are not counted, by architecture."""
    found: dict[str, list[str]] = {}
    for line in page.partition(FIRST)[2].partition(LAST)[0].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[cells[0].strip("`")] = cells[len(COUNTED) :]
    return found


def table(others: dict[str, list[str]]) -> str:
    """The whole table in Markdown; `others`: the columns that are not counted."""
    from dist_train import models

    lines = [_line((*COUNTED, *KEPT)), _line(("---", *["---:"] * 4, "---", "---:", "---", "---"))]
    for name in models.ARCHITECTURES:
        row = count(name)
        size = row.multiplications
        macs = f"{size / 1e9:.3f} G" if size >= 1e9 else f"{size / 1e6:.1f} M"
        poolings = ", ".join(row.poolings) or "-"
        counted = (f"`{name}`", f"{row.parameters:,}", macs, str(row.embedding), str(row.least), poolings)
        lines.append(_line((*counted, *others.get(name, ["-"] * len(KEPT)))))
    return "".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"


def main(arguments: list[str] | None = None) -> int:
    """The command's exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=ABOUT, formatter_class=form)
    parser.add_argument("--measure", action="store_true", help="fill the column of clips a second, on one core")
    options = parser.parse_args(arguments)
    from dist_train import models

    page = PAGE.read_text(encoding="utf-8")
    others = kept(page)
    for name in models.ARCHITECTURES if options.measure else ():
        row = others.setdefault(name, ["-"] * len(KEPT))
        row[0] = speed(name)
        print(f"{name}: {row[0]} clips/s", flush=True)
    head, tail = page.partition(FIRST)[0], page.partition(LAST)[2]
    PAGE.write_text(head + FIRST + table(others) + LAST + tail, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
