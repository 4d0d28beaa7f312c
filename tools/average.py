#!/usr/bin/env python3
"""Average the weights of a run's checkpoints into a run of its own, which evaluate, predict, export, embed take.

Example:
  python tools/average.py runs/demo --last 2 --score

Training keeps checkpoint.keep of them: give e.g. checkpoint.keep=10 checkpoint.every_epochs=1. The mean is taken in
float64, of the moving average of the weights where there is one. BatchNorm's statistics are measured again on
training clips. Training does not go on from an average; a new run can start from it by model.pretrained.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_train.settings import Config
    from dist_train.world import World

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 bad input."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    top.add_argument("words", nargs="*", metavar="STEP | key=value", help="steps to take; settings over the run's")
    top.add_argument("--last", type=int, metavar="N", help="the N newest checkpoints (default: all that are there)")
    top.add_argument("--out", type=Path, metavar="FOLDER", help="the new run (default: RUN-average)")
    top.add_argument(
        "--statistics",
        choices=("measured", "mean"),
        default="measured",
        help="BatchNorm: measured on training clips, or the mean of the parts', which needs no data",
    )
    top.add_argument("--score", action="store_true", help="score it beside its parts, and write its result and scores")
    options = top.parse_intermixed_args(argv)
    from dist_train import command

    return command.run("average", partial(average, options))


def average(options: argparse.Namespace) -> None:
    """Read, average, measure, write, score."""
    from dist_train import folder

    steps, overrides = sorted_out(options)
    folder.trained(options.run)
    from dist_train import saved, screen, world
    from dist_train.scoring import averaged

    config = saved.read(options.run, overrides)
    paths = averaged.chosen(options.run, steps, options.last)
    out = options.out or options.run.with_name(f"{options.run.resolve().name}-average")
    if out.exists():
        raise ValueError(f"{out}: is there already; name another by --out, or remove it")
    if world.place().size > 1:
        raise ValueError("an average is made by one process; start it without torchrun")
    place = world.start(config.run.timeout, config.run.threads, config.run.deterministic)
    with screen.bar(sys.stderr) as show:
        payload = averaged.mean(paths, show)
        if options.statistics == "measured":
            payload = averaged.measured(payload, paths[-1], config, place, show)
    path = averaged.write(options.run, out, payload, paths, options.statistics)
    print(f"{path}: the mean of {len(paths)} checkpoints, {', '.join(one.name for one in paths)}")
    if options.score:
        score(config, [*paths, path], out, place)


def sorted_out(options: argparse.Namespace) -> tuple[list[int], list[str]]:
    """Steps and settings. ValueError: a word that is neither, or steps and --last."""
    overrides = [word for word in options.words if "=" in word]
    words = [word for word in options.words if "=" not in word]
    if wrong := [word for word in words if not word.isdecimal()]:
        raise ValueError(f"`{wrong[0]}` is no step and no setting; write a number, or section.key=value")
    if words and options.last is not None:
        raise ValueError("steps and --last exclude each other; give one")
    if options.last is not None and options.last < 2:
        raise ValueError(f"--last {options.last}: an average takes two checkpoints or more")
    return [int(word) for word in words], overrides


def score(config: "Config", paths: list[Path], out: Path, place: "World") -> None:
    """A table of the parts and the average; the average's result.json and scores.npz."""
    from dist_train import disk, scored, screen
    from dist_train.scoring import evaluated, figures, sheets
    from dist_train.sheet import Sheet

    with screen.bar(sys.stderr) as show:
        parts = evaluated.checkpoints(config, paths, place, show)
    found = [figures.of(part.scored, config.evaluation.k) for part in parts]
    names = list(found[0].values)
    titles = [path.name for path in paths[:-1]] + ["average"]
    rows = [
        (title, *(sheets.number(one.values[name]) for name in names)) for title, one in zip(titles, found, strict=True)
    ]
    screen.show([Sheet(f"{found[0].clips} clips ({parts[0].name})", ("checkpoint", *names), rows)])
    scored.write(out / "scores.npz", parts[-1].scored)
    disk.replace_json(out / "result.json", result(config, paths[-1], parts[-1], found[-1]))


def result(config: "Config", path: Path, part: Any, found: Any) -> dict[str, Any]:
    """What result.json of a run holds, but for what only training knows."""
    from dist_train import checkpoint, scores

    metric, progress = scores.metric(config), checkpoint.load(path)["progress"]
    told = {"metric": metric, "value": found.values[metric], **found.values, "set": evaluation(part.name)}
    told |= {"step": progress["step"], "epoch": progress["consumed"] / progress["samples"], "clips": found.clips}
    told |= {"checkpoint": path.name, "classes": list(part.scored.classes)}
    if found.confusion is not None:
        return told | {"confusion": found.confusion.tolist()}
    rows = zip(part.scored.classes, *found.classes.values(), strict=True)
    return told | {"per_class": {name: dict(zip(found.classes, figures, strict=True)) for name, *figures in rows}}


def evaluation(name: str) -> str:
    """The set's name as result.json has it."""
    return "eval" if name == "evaluation" else name


if __name__ == "__main__":
    sys.exit(main())
