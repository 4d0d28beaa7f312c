#!/usr/bin/env python
"""Pack recordings into WebDataset shards, index shards that anyone made, check them, audit them, say what they hold.

Example:
  python tools/make_shards.py pack recordings/ shards/mine
  python tools/make_shards.py index shards/theirs
  python tools/make_shards.py check shards/mine
  python tools/make_shards.py audit shards/mine
  python tools/make_shards.py stats shards/mine

SOURCE and DEST may be addresses of an object store: s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH.
"""

# Packing starts processes, and each of them reads the top of this file: what is heavy is imported where it is needed.
import argparse
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dist_train.packing import Report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PACK = """\
layouts of SOURCE (auto recognises them and says which):
  folder          one folder a class, searched to any depth; train/ valid/ test/ or fold1/ fold2/ ... may lie above
  csv             header path,label[,fold][,group][,split][,start][,end]; several labels joined with ;
                  paths relative to the CSV; start and end, in seconds, cut the file
  list            lines of path<TAB>label; class numbers are named by a label_list.txt beside it;
                  a folder with train_list.txt, test_list.txt, ... gives the splits too
  esc             ESC-10, ESC-50          urbansound8k    UrbanSound8K
  speechcommands  Speech Commands         fsdkaggle2018   FSDKaggle2018        fsd50k        FSD50K
  voxceleb        VoxCeleb1, VoxCeleb2    voxlingua107    VoxLingua107
  kaldi           wav.scp with utt2lang or utt2spk, perhaps segments; or train/ dev/ test/ that are such

--trim silence cuts what lies before the first and after the last 20 ms that are within --trim-limit dB (default: 40) of
the clip's loudest; --trim vad keeps what Silero VAD takes for speech with --trim-limit (default: .5), stretch after
stretch. A clip in which nothing is found is kept whole and named at the end.

a --classes file has one class a line, in the order of class numbers; what it does not name is dropped:
  dog bark
  sea <- sea waves, rain          takes two classes together (with one old name: renames it)
  new name<TAB>old 1<TAB>old 2    the same for names that hold commas
  # a line that starts so is a comment

example:
  python tools/make_shards.py pack ESC-50/ shards/esc50
packs ESC-50 as it was unpacked, resampled to 16 kHz, and indexes it; train with data.shards=[shards/esc50].
  python tools/make_shards.py pack ESC-50/ shards/esc50-fbank --features configs/esc50.yaml
packs the features of that configuration, for features.name=packed.
  python tools/make_shards.py pack s3://sounds/raw/table.csv s3://sounds/shards
packs from a store and to one; the CSV's paths lie below it. Scratch files lie in TMPDIR.
  python tools/make_shards.py pack /data/esc50 /shared/esc50 --part 2/3
packs the second third of the shards, on the second of three machines; when all three are done:
  python tools/make_shards.py index /shared/esc50
Stopped in mid-way? The same command goes on. Exit codes: 0 done, 1 more than 1 % of the recordings were unreadable
(the rest is packed but not indexed), 2 bad input, or a store that is down.
"""
INDEX = """\
example:
  python tools/make_shards.py index shards/theirs
indexes tars made by anyone: audio (.wav .flac .ogg .opus .mp3 .m4a ...) or features (.npy) beside .json, .cls or
.txt. A classes.txt there, one class a line, fixes the order of classes. Parts of a packing are taken together; one that
is missing is named. Exit codes: 0 done, 2 damage or bad input (nothing is written).
"""
CHECK = """\
example:
  python tools/make_shards.py check shards/mine
holds every tar against its index and checksum and names each damage. Exit codes: 0 sound, 1 damage, 2 bad input.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command's exit code."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # in the background of a shell SIGINT itself is ignored
    from dist_train import command
    from dist_train.inspection import inquiry

    commands = {"pack": pack, "index": index, "check": check, "audit": inquiry.audit, "stats": inquiry.stats}
    stopped = "stopped; run the same command again to go on"
    return command.run("make_shards", partial(commands[options.command], options), stopped)


def parser() -> argparse.ArgumentParser:
    """Every option of the commands."""
    from dist_train.inspection import inquiry

    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, about: str, epilog: str) -> argparse.ArgumentParser:
        form = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=about, description=about, epilog=epilog, formatter_class=form)

    packing = command("pack", "recordings -> shards with an index", PACK)
    packing.add_argument("source", type=place, metavar="SOURCE", help="folder, CSV or list of recordings, or address")
    packing.add_argument("dest", type=place, metavar="DEST", help="folder or address for the shards")
    packing.add_argument("--layout", default="auto", help="how SOURCE is laid out (default: auto)")
    packing.add_argument("--sample-rate", type=int, default=16000, metavar="HZ", help="(default: 16000)")
    packing.add_argument(
        "--channels", type=int, default=1, metavar="N", help="1: mean of all; N: first N, mono repeated (default: 1)"
    )
    packing.add_argument("--codec", default="pcm16", help="pcm16, mulaw, flac, or original: bytes as they are")
    packing.add_argument("--shard-mb", type=float, default=256, metavar="MB", help="size of a shard (default: 256)")
    packing.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    packing.add_argument("--folds", type=int, metavar="K", help="make K folds (default: 5 if SOURCE has none); 0: none")
    packing.add_argument("--group", metavar="COLUMN", help="the CSV's column to take as group (speaker, recording)")
    packing.add_argument("--group-regex", metavar="RE", help="the group, found in each path: (...) or the whole match")
    packing.add_argument(
        "--where", metavar="COLUMN=VALUE", action="append", default=[], help="only such rows of a table"
    )
    packing.add_argument("--classes", type=Path, metavar="FILE", help="order, choice and names of classes (see below)")
    packing.add_argument("--features", type=Path, metavar="CONFIG", help="pack the features of CONFIG, no audio")
    packing.add_argument("--feature-type", default="float32", help="float32 or float16 (default: float32)")
    packing.add_argument("--min-seconds", type=float, default=0, metavar="S", help="leave out shorter clips")
    packing.add_argument("--trim", metavar="KIND", help="cut silence at both ends, or vad: all but speech (see below)")
    packing.add_argument("--trim-limit", type=float, metavar="N", help="silence: dB; vad: probability of speech")
    packing.add_argument("--part", metavar="I/N", default="1/1", help="pack part I of N, one a machine (see below)")
    indexing = command("index", "index WebDataset tars made by anyone", INDEX)
    checking = command("check", "hold every tar against its index and checksum", CHECK)
    for form in (indexing, checking):
        form.add_argument("dest", type=place, metavar="DEST", help="folder or address of shards")
        form.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    for form in (packing, indexing, checking):
        form.add_argument(
            "--patience", type=float, default=120, metavar="S", help="seconds that a store may be down (default: 120)"
        )
    inquiry.forms(command)
    return top


def place(text: str) -> Path | str:
    """A path, or an address as it is."""
    return text if "://" in text else Path(text)


def pack(options: argparse.Namespace) -> int:
    """Pack, then say what is there."""
    from dist_train import packing, screen
    from dist_train.assembly.options import Options
    from dist_train.stores import part
    from dist_train.stores.indexing import LEFT_OUT

    options.part = part.parse(options.part)
    chosen = {name: value for name, value in vars(options).items() if name not in ("command", "source", "dest")}
    with screen.bar() as progress:
        report = packing.pack(options.source, options.dest, Options(**chosen), progress, screen.say)
    print("\n".join(summary(report)))
    if report.sound:
        return 0
    total = report.clips + len(report.unreadable) + len(report.short)
    share = f"{len(report.unreadable)} of {total} clips are unreadable, more than 1 %"
    listed = "what `index` will list" if not report.part.whole else f"what {report.dest}/{LEFT_OUT} lists"
    remedy = f"mend or remove {listed} and pack anew, or accept it"
    accept = f"python tools/make_shards.py index {report.dest}"
    print(f"make_shards: {share}: the others are packed, but not indexed; {remedy}: {accept}", file=sys.stderr)
    return 1


def summary(report: "Report") -> Iterator[str]:
    """What a person wants to know of a packing, line by line."""
    for label, left_out in (("unreadable", report.unreadable), ("too short", report.short)):
        for name, reason in sorted(left_out)[:10]:
            yield f"left out: {name}: {reason}"
        if len(left_out) > 10:
            yield f"left out: {len(left_out)} clips are {label}; all are listed in {report.dest}/left_out.tsv"
    if report.trimmed or report.untrimmed:
        named = f"; nothing was found in {len(report.untrimmed)} clips, kept whole" if report.untrimmed else ""
        first = f": {', '.join(sorted(report.untrimmed)[:10])}" if report.untrimmed else ""
        yield f"trimmed: {report.trimmed:.1f} s{named}{first}"
    yield "classes: " + ", ".join(f"{name} {count}" for name, count in report.classes.items())
    for title, counts in (("folds", report.folds), ("splits", report.splits)):
        if counts:
            yield f"{title}: " + ", ".join(f"{name}: {count}" for name, count in counts.items())
    kept = f" ({report.kept} were there before)" if report.kept else ""
    content = f"{report.clips} clips, {report.seconds / 3600:.2f} hours, {len(report.classes)} classes"
    shards = f"{report.shards} shards" if report.part.whole else f"{report.part}, {report.shards} of {report.of} shards"
    yield f"{report.dest}: {content}, {shards}{kept}, {report.bytes / 1e6:.1f} MB, {report.elapsed:.1f} s"
    if not report.part.whole:
        yield f"when all {report.part.of} parts are done: python tools/make_shards.py index {report.dest}"


def index(options: argparse.Namespace) -> int:
    """Index a folder of tars."""
    from dist_train import screen
    from dist_train.stores import indexing

    with screen.bar() as progress:
        count = partial(progress, "index")
        found = indexing.build(options.dest, options.workers, count, options.patience)
    shards = f"{len(found['shards'])} shards indexed"
    print(f"{options.dest}: {found['totals']['samples']} clips, {len(found['classes'])} classes, {shards}")
    return 0


def check(options: argparse.Namespace) -> int:
    """Name each damage."""
    from dist_train import check as checking
    from dist_train import screen

    with screen.bar() as progress:
        damage = checking.check(options.dest, partial(progress, "check"), options.workers, options.patience)
    for line in damage:
        print(line, file=sys.stderr)
    print(f"{options.dest}: {len(damage)} damages" if damage else f"{options.dest}: sound")
    return 1 if damage else 0


if __name__ == "__main__":
    sys.exit(main())
