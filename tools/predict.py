#!/usr/bin/env python3
"""Label recordings by a trained run: what each is, or with --timeline what is heard when.

AUDIO is a file of any format, a folder, a quoted glob, an address (s3://BUCKET/KEY, or a folder ending in /), or - for
standard input: the bytes of a file, or with --raw PCM as it comes. What cannot be read is named on stderr, the others
go on, and the exit code is 2.

Example:
  python tools/predict.py runs/demo dog.ogg recordings --top 3
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from dist_train.inference import Model
    from dist_train.inference.inputs import Input

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
TOP = 5  # guesses
PAGE = 1000  # rows of a table that are shown at once
SMOOTH = ("median", "exponential", "none")
TIMES = ("hop", "smooth", "span", "hysteresis", "min_duration")  # options of timelines; None: as the model has them


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 all predicted, 2 bad input."""
    options = parser().parse_args(argv)
    from dist_train import command

    return command.run("predict", partial(predict, options))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = top.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo, or a .safetensors of export")
    add("audio", nargs="+", metavar="AUDIO", help="files, folders, globs, addresses, or -")
    add("--json", action="store_true", help="the same as --format json")
    add(
        "--format", choices=("table", "json", "csv", "labels"), default="table", help="JSON lines, CSV, Audacity labels"
    )
    add("--top", type=int, metavar="K", help="best guesses to tell (default: 5; of a table that is piped 1)")
    add("--threshold", type=float, metavar="P", help="under this probability: unknown (default: RUN/unknown.json's)")
    add("--timeline", action="store_true", help="what is heard when; long recordings are read by the block")
    add("--hop", type=float, metavar="S", help="seconds between windows (default: a quarter of one)")
    add("--smooth", metavar="KIND[:S]", help=f"{', '.join(SMOOTH)}; over S seconds (default: median, 3 hops)")
    add("--hysteresis", type=float, metavar="P", help="lead that another label needs (default: 0.1)")
    add("--min-duration", type=float, metavar="S", help="shorter segments are joined with a neighbour")
    add("--embeddings", type=Path, metavar="FILE.npz", help="write embeddings (keys, embeddings), and no labels")
    add("--out", type=Path, metavar="DIR", help="--format labels: a .txt for each recording in this folder")
    add("--raw", metavar="RATE[:CHANNELS[:KIND]]", help="standard input is raw PCM; KIND: s16 (default), s32 or f32")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there is one)")
    add("--threads", type=int, metavar="N", help="threads that decode (default: one a core, at most 8)")
    add("--set", action="append", default=[], metavar="key=value", help="a setting in the place of the run's")
    return top


def predict(options: argparse.Namespace) -> int:
    """Find, load, predict, show."""
    checked(options)
    from dist_train import folder

    if options.run.suffix != ".safetensors":
        folder.trained(options.run)
    from dist_train import load, screen
    from dist_train.inference import inputs, output

    found = inputs.found(options.audio, lambda: standard(options.raw))
    places = labelled(found, options) if options.format == "labels" else {}
    model = load(options.run, options.device, options.set)
    refused = list[str]()

    def bad(one: Any) -> None:
        refused.append(str(one))
        print(f"predict: {one}", file=sys.stderr, flush=True)

    out = sys.stdout  # the bar puts another in its place
    mixed = out.isatty() and options.format != "table"  # lines on the terminal, where the bar would be
    with nullcontext(lambda *_: None) if mixed else screen.bar(sys.stderr) as progress:
        results = work(model, counted(found, progress), options, bad)
        if options.embeddings is not None:
            embeddings(results, options.embeddings)
        else:
            kept = written(results, options, len(model.classes), places, out)
    if options.embeddings is None and kept:
        screen.show([output.sheet(kept[start : start + PAGE]) for start in range(0, len(kept), PAGE)])
    return 2 if refused else 0


def checked(options: argparse.Namespace) -> None:
    """ValueError: options that do not fit together; `json` and `labels` say more than their names."""
    if options.json:
        options.format = "json"
    options.timeline = options.timeline or options.format == "labels"
    if options.embeddings is not None and options.embeddings.suffix != ".npz":
        raise ValueError(f"--embeddings {options.embeddings}: embeddings are written as .npz; end the name so")
    if options.embeddings is not None and options.timeline:
        raise ValueError("--embeddings and --timeline: give one of them")
    if options.embeddings is not None and (options.format != "table" or options.threshold is not None):
        raise ValueError("--embeddings writes no labels: leave out --format, --json and --threshold")
    if options.out is not None and options.format != "labels":
        raise ValueError("--out is for --format labels; send other formats to a file with >")
    if (options.top is not None and options.top < 1) or (options.threads is not None and options.threads < 1):
        raise ValueError("--top and --threads: give whole numbers from 1 up")
    kind, _, span = (options.smooth or SMOOTH[0]).partition(":")
    if kind not in SMOOTH or (span and not span.replace(".", "", 1).isdecimal()):
        raise ValueError(f"--smooth {options.smooth}: give {', '.join(SMOOTH)}, with seconds as in median:3")
    options.span = float(span) if span else None
    given = [name for name in TIMES if getattr(options, name) is not None]
    if given and not options.timeline:
        raise ValueError(f"--{given[0].replace('_', '-')}: is for --timeline and --format labels; add one of them")
    if options.top is not None and (options.timeline or options.embeddings is not None):
        raise ValueError("--top: is for the labels of whole recordings; leave it out")
    if options.threads is not None and options.timeline:
        raise ValueError("--threads: a timeline is read by one; leave it out")
    options.smooth = kind
    if options.raw is not None and "-" not in options.audio:
        raise ValueError("--raw says what standard input holds: name - as AUDIO")


def standard(text: str | None) -> Any:
    """Standard input: a whole file, or PCM that is read as it comes."""
    from dist_train.inference import Pcm, inputs

    if text is None:
        return sys.stdin.buffer.read()
    rate, channels, kind = inputs.raw(text)
    return Pcm(sys.stdin.buffer, rate, channels, kind)


def labelled(found: list["Input"], options: argparse.Namespace) -> dict[str, Path]:
    """Each input's file of labels; none for standard output. ValueError where two would have the same."""
    from dist_train import disk
    from dist_train.inference.sound import named

    if options.out is None:
        if len(found) > 1:
            raise ValueError(f"--format labels of {len(found)} recordings: give --out DIR for a file each")
        return {}
    places, taken = dict[str, Path](), set[Path]()
    for one in found:
        path = options.out / one.place.with_suffix(".txt")
        if path in taken:
            raise ValueError(f"{path}: two recordings would have it; name them in two commands, or their folder")
        taken.add(path)
        places[named(one.sound)] = path
    disk.writable(options.out)
    return places


def counted(found: list["Input"], progress: Callable[[str, int, int], None]) -> Iterator[Any]:
    """The sounds, as they are taken."""
    for number, one in enumerate(found):
        yield one.sound
        progress("predicting", number + 1, len(found))


def work(
    model: "Model", sounds: Iterator[Any], options: argparse.Namespace, bad: Callable[[Any], None]
) -> Iterator[Any]:
    """Predictions, timelines or (name, embedding), in order."""
    if options.embeddings is not None:
        return model.embeddings(sounds, bad=bad, threads=options.threads)
    if not options.timeline:
        limits = {"top": options.top or TOP, "threshold": options.threshold, "threads": options.threads}
        return model.stream(sounds, bad=bad, **limits)
    given = {name: getattr(options, name) for name in (*TIMES, "threshold")}
    return model.timelines(sounds, bad=bad, **{name: value for name, value in given.items() if value is not None})


def written(
    results: Iterator[Any], options: argparse.Namespace, classes: int, places: dict[str, Path], out: TextIO
) -> list[Any]:
    """Write each result as it comes; those that make a table on a terminal are given back."""
    from dist_train import disk
    from dist_train.inference import output

    table = partial(output.plain, top=options.top or 1)
    text = {"json": output.json_line, "csv": output.csv_rows, "labels": output.labels, "table": table}
    if options.format == "table" and out.isatty():
        return list(results)
    if hasattr(out, "reconfigure"):  # names of files are any bytes, and data is UTF-8 wherever it is read
        out.reconfigure(encoding="utf-8", errors="surrogateescape")
    if options.format == "csv":
        out.write(output.csv_head(options.timeline, min(options.top or TOP, classes)))
    for one in results:
        line = text[options.format](one)
        if one.source in places:
            places[one.source].parent.mkdir(parents=True, exist_ok=True)
            disk.replace(places[one.source], lambda file, line=line: file.write(line.encode()))
            out.write(f"{places[one.source]}\n")
        else:
            out.write(line)
        out.flush()
    return []


def embeddings(results: Iterator[Any], path: Path) -> None:
    """Write them as tools/embed.py does."""
    import numpy as np

    from dist_train import disk

    disk.writable(path.parent)
    pairs = list(results)
    if not pairs:
        raise ValueError("no recording could be read: no embeddings to write")
    keys, vectors_NE = np.array([name for name, _ in pairs]), np.stack([vector_E for _, vector_E in pairs])
    disk.replace(path, lambda file: np.savez(file, allow_pickle=False, keys=keys, embeddings=vectors_NE))
    print(f"{len(keys)} embeddings of {vectors_NE.shape[1]} numbers in {path}")


if __name__ == "__main__":
    sys.exit(main())
