#!/usr/bin/env python3
"""A trained run as one file for other programs: waveform in, probabilities out.

  onnx         for onnxruntime and other runtimes, without torch: front end, network and averaging, any length and batch
  torch        the same as a program of torch (.pt2), which runs without dist_train
  safetensors  the weights alone, to start other runs from (model.pretrained=FILE)

Example:
  python tools/export.py runs/demo --to onnx --out /tmp/demo.onnx

An ONNX file or a program is compared with the run on random clips and on real ones before it is written: those of
--check, else up to --clips of the run's evaluation set. Waveforms go in at the run's rate, as float32 of full scale
1; docs/export.md says more. --int8 and --half make an ONNX file smaller; the loss is measured on the evaluation set
and printed.
"""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_train.export.beside import Answer, Wave
    from dist_train.inference import Model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
CLIPS, LIMIT = 100, 1e-4
FRAMES = 200  # training clips that --int8 static finds its ranges with


class Apart(Exception):
    """A file whose answers are not the run's."""


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 1 the file's answers differ from the run's (none is left), 2 bad input."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command

    return command.run("export", partial(quietly, options), "stopped; no file was written")


def quietly(options: argparse.Namespace) -> int:
    """Exit code, without the warnings of what torch and onnxruntime do inside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export(options)
    except Apart as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the run's")
    top.add_argument("--to", choices=tuple(SUFFIXES), required=True, help="what to write")
    top.add_argument("--out", type=Path, metavar="FILE", help="where (default: RUN/model with the format's ending)")
    small = top.add_mutually_exclusive_group()
    small.add_argument("--int8", choices=("static", "dynamic"), help="onnx: 8 bits; static also for activations")
    small.add_argument("--half", action="store_true", help="onnx: 16 bits")
    top.add_argument("--check", type=Path, nargs="+", metavar="CLIPS", help="recordings to compare on, or folders")
    top.add_argument("--clips", type=int, metavar="N", help="evaluation clips to compare on (default: 100)")
    top.add_argument("--limit", type=float, metavar="P", help="largest difference allowed (default: 1e-4)")
    return top


def checked(options: argparse.Namespace) -> None:
    """ValueError for options that do not go together; fills in what was not given."""
    small = options.int8 or options.half
    if small and options.to != "onnx":
        raise ValueError(
            f"--{'int8' if options.int8 else 'half'} is for --to onnx, not --to {options.to}; leave it out"
        )
    if options.to == "safetensors" and any(one is not None for one in (options.check, options.clips, options.limit)):
        raise ValueError("--check, --clips and --limit: weights are written as the run has them; leave these out")
    options.clips = CLIPS if options.clips is None else options.clips
    options.limit = LIMIT if options.limit is None else options.limit
    if options.clips < 0 or not options.limit > 0:
        raise ValueError("--clips is a number from 0 on, --limit one over 0")


def export(options: argparse.Namespace) -> None:
    """Load, make, compare, write."""
    from dist_train import folder

    checked(options)
    out = options.out or options.run / f"model{SUFFIXES[options.to]}"
    if out.suffix != SUFFIXES[options.to]:
        raise ValueError(f"--out {out}: a file of --to {options.to} ends in {SUFFIXES[options.to]}")
    folder.trained(options.run)
    from dist_train import disk, load
    from dist_train.export import facts, interchange, tensors

    if options.to == "onnx":
        interchange.available()
    model = load(options.run, device="cpu", overrides=options.overrides, exact=False)
    disk.writable(out.parent)
    about = facts.facts(model, options.run.resolve().name)
    weights = options.to == "safetensors"
    data = tensors.written(model.origin, about) if weights else graph(options, model, about)
    disk.replace(out, lambda file: file.write(data))
    print(f"{out}: {len(data) / 1e6:.2f} MB, {len(model.classes)} classes, waveforms of {model.sample_rate} Hz")


def graph(options: argparse.Namespace, model: "Model", about: dict[str, str]) -> bytes:
    """The bytes of an ONNX file or a program, compared with the run."""
    from dist_train.export import interchange, program
    from dist_train.export.graph import Graph

    for name in ("torch.onnx", None):  # torch tells of torchvision, onnxruntime of a step that is done already
        logging.getLogger(name).setLevel(logging.ERROR)
    made = Graph(model.origin)
    print(f"following {type(made.network).__name__} ...", file=sys.stderr)
    followed = program.program(made)
    print(f"writing --to {options.to} ...", file=sys.stderr)
    if options.to == "torch":
        data = program.written(followed, about)
        compare(options, model, program.answer(data))
        return data
    proto = interchange.model(followed, made, about)
    data = bytes(proto.SerializeToString())
    compare(options, model, interchange.answer(data))
    return shrunk(options, model, proto, data) if options.int8 or options.half else data


def compare(options: argparse.Namespace, model: "Model", answer: "Answer") -> None:
    """Print the differences. Apart: one is over the limit."""
    from dist_train import screen
    from dist_train.export import beside

    sets: list[tuple[str, int, Callable[[], Iterator[Wave]]]] = [
        ("random clips", len(list(beside.noises(model))), lambda: beside.noises(model))
    ]
    if (real := known(options, model)) is not None:
        sets.append(real)
    elif options.clips:
        print("real clips: none; the run's evaluation set is not here, give --check CLIPS")
    for name, total, waves in sets:
        with screen.bar(sys.stderr) as progress:
            found = beside.difference(model, answer, counted(name, waves(), total, progress))
        print(f"{name}: {found}")
        if not found.largest <= options.limit or found.others:
            raise Apart(
                f"{name}: a probability differs by {found.largest:.1e}, over --limit {options.limit:g}; no file"
            )


def known(options: argparse.Namespace, model: "Model") -> Any:
    """What real clips there are to compare on, how many, and they; None: there are none."""
    from dist_train.export import clips

    if options.check:
        total = len(clips.listed(options.check))
        return "real clips", total, lambda: clips.waves(clips.recordings(options.check, model))
    view = clips.scored(model) if options.clips else None
    if view is None:
        return None
    total = min(len(view), options.clips)
    return "evaluation clips", total, lambda: clips.waves(clips.packed(view, model, options.clips))


def counted(name: str, things: Iterable[Any], total: int, progress: Callable[[str, int, int], None]) -> Iterator[Any]:
    """The things, as they are taken."""
    for number, thing in enumerate(things):
        yield thing
        progress(name, number + 1, total)


def shrunk(options: argparse.Namespace, model: "Model", proto: Any, large: bytes) -> bytes:
    """The bytes in 8 or 16 bits, with what they lost."""
    from dist_train import screen
    from dist_train.export import clips, interchange, small

    if options.half:
        made = small.half(proto)
    else:
        heard = clips.waves(clips.packed(clips.trained(model), model, FRAMES)) if options.int8 == "static" else ()
        made = small.quantised(proto, options.int8, heard)
    data = bytes(made.SerializeToString())
    kind = f"int8 {options.int8}" if options.int8 else "half"
    print(f"{kind}: {len(large) / 1e6:.2f} MB before, {len(data) / 1e6:.2f} MB after")
    if (view := clips.scored(model)) is None:
        print(f"{kind}: what it loses is not known: the run's evaluation set is not here")
        return data
    with screen.bar(sys.stderr) as progress:
        every = counted(kind, clips.packed(view, model, len(view)), len(view), progress)
        loss = small.loss(model, interchange.answer(large), interchange.answer(data), every)
    print(f"{kind}: {loss}")
    return data


if __name__ == "__main__":
    sys.exit(main())
