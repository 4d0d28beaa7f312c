#!/usr/bin/env python3
"""Score a run's final model: every metric with its interval, each class, confusion, calibration. Several runs: an
ensemble. The model is the best checkpoint where a validation set chose one, else the last.

Example:
  python tools/evaluate.py runs/demo --csv /tmp/scores.csv --picture /tmp/confusion.png

Without --shards, --folds or --split it is scored on its evaluation set. Under torchrun processes share the clips, and
the figures are the same. Nothing is written but the files that are asked for; --unknown-precision writes
RUN/unknown.json, by which predictions are called unknown.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_train.scoring.account import Account

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("words", nargs="+", metavar="RUN | key=value", help="folders of runs; settings over the runs' own")
    data = top.add_argument_group("clips")
    data.add_argument("--shards", nargs="+", default=[], metavar="FOLDER", help="these shards, joined by class name")
    data.add_argument("--folds", nargs="+", type=int, default=[], metavar="N", help="only these folds")
    data.add_argument("--split", choices=("train", "valid", "test"), help="only this split")
    out = top.add_argument_group("output")
    out.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    out.add_argument("--csv", type=Path, metavar="FILE", help="key, truth, guess, right, probability of each class")
    out.add_argument("--npz", type=Path, metavar="FILE", help="the same as arrays, as scores.npz of a run has them")
    out.add_argument("--picture", type=Path, metavar="FILE", help="PNG: confusion matrix; of several labels their AP")
    how = top.add_argument_group("figures")
    how.add_argument("--draws", type=int, default=1000, metavar="N", help="bootstrap draws; 0: no intervals")
    how.add_argument("--level", type=float, default=0.95, metavar="P", help="of the intervals (default: 0.95)")
    how.add_argument(
        "--average",
        choices=("probabilities", "logits"),
        default="probabilities",
        help="what an ensemble is the mean of",
    )
    how.add_argument(
        "--unknown-precision",
        type=float,
        metavar="P",
        help="find the probability under which a guess is unknown, so that a share P of the kept is right",
    )
    return top


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 another rank was lost, 130 stopped."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command, memory, world

    command.legible()
    try:
        evaluate(options)
        sys.stdout.flush()
    except (ValueError, OSError) as error:
        return 0 if command.left(error) else refused(command.reason(error), 2)
    except KeyboardInterrupt:
        return refused("stopped", 130)
    except (MemoryError, RuntimeError) as error:
        if memory.lack(error) is not None:
            return refused("out of memory: lower evaluation.batch_size", 2)
        if (why := world.loss(error)) is None:
            raise
        return refused(f"another rank was lost or cut off ({why}); start again", 3)
    finally:
        command.settle()
    return 0


def evaluate(options: argparse.Namespace) -> None:
    """Score, tell, write."""
    from dist_train import saved, screen, world
    from dist_train.scoring import account, evaluated

    runs, overrides = sorted_out(options)
    first = saved.read(runs[0], overrides)
    place = world.start(first.run.timeout, first.run.threads, first.run.deterministic)
    asked = evaluated.Asked(options.shards, options.folds, options.split)
    with screen.bar(sys.stderr) as show:
        found = [evaluated.evaluated(run, asked, overrides, place, show) for run in runs]
    place.lead(lambda: None)  # all leave together: the meeting place is rank 0's
    place.stop()
    if not place.first:
        return
    told = account.of([one for one in found if one is not None], options.average, options.draws, options.level)
    tell(told, options, runs)


def sorted_out(options: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """Runs and settings; what cannot be is refused before the work."""
    from dist_train import disk
    from dist_train.scoring import limits

    overrides = [word for word in options.words if "=" in word and not Path(word).exists()]
    runs = [Path(word) for word in options.words if word not in overrides]
    if not runs:
        raise ValueError("no run is named; name the folder of one, e.g. runs/demo")
    limits.check(options.draws, options.level)
    wanted = options.unknown_precision
    if wanted is not None and not 0 < wanted <= 1:
        raise ValueError(f"--unknown-precision {wanted:g}: lies between 0 and 1; give e.g. 0.95")
    if wanted is not None and len(runs) > 1:
        raise ValueError("--unknown-precision is written into a run's folder; name one run")
    for path in (options.csv, options.npz, options.picture):
        if path is not None:
            disk.writable(path.parent)
    return runs, overrides


def tell(found: "Account", options: argparse.Namespace, runs: list[Path]) -> None:
    """Files first, then what is read."""
    from dist_train import disk, scored, screen
    from dist_train.scoring import listing, sheets, unknown

    told, part = found.told, found.part
    threshold = None
    if options.unknown_precision is not None:
        held = found.valid or part
        chosen = unknown.choose(held.scored, options.unknown_precision, held.name, found.valid is None)
        path, threshold = unknown.write(runs[0], chosen), chosen.threshold
        told["unknown"] = vars(chosen) | {"file": str(path)}
    if options.csv is not None:
        listing.write(options.csv, part.scored, threshold)
    if options.npz is not None:
        scored.write(options.npz, part.scored)
    if options.picture is not None:
        image = drawing(told)
        disk.replace(options.picture, lambda file: file.write(image))
    if options.json:
        print(json.dumps(disk.finite(told), ensure_ascii=False, indent=1))
        return
    for line in sheets.origin(told):
        print(line)
    screen.show(sheets.of(told))
    for line in [*told["notes"], *sheets.unknown(told)]:
        print(line)


def drawing(told: dict[str, Any]) -> bytes:
    """PNG of the confusion matrix, or of the average precisions."""
    import torch

    from dist_train import picture

    names = [row["class"] for row in told["classes"]]
    if told["confusion"] is not None:
        return picture.png(picture.confusion(torch.tensor(told["confusion"]), names))
    columns = {name: [row[name] for row in told["classes"]] for name in ("average_precision", "positives")}
    return picture.png(picture.precisions(columns, names))


def refused(line: str, code: int) -> int:
    """One line; from another rank than the first only if the launcher lets it live."""
    from dist_train import world
    from dist_train.hosts import reason

    reason.report(line)
    rank = world.place_or_first().rank
    if rank:
        time.sleep(3)
    print(f"evaluate: {f'rank {rank}: ' if rank else ''}{line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    ended = main()
    sys.stderr.flush()
    os._exit(ended)  # a gloo thread may still hold a tensor, and would abort an interpreter that is being finalised
