"""Our parsers under damaged input: each case is either read as an independent reader reads it, or refused in one line.

python tests/fuzz.py --cases 2000                     # of each of the five kinds, each kind in a process of its own
python tests/fuzz.py --cases 1 --kind tar --seed 17   # one case again

A case fails where a parser raises anything but ValueError and OSError, takes longer than 60 s, wants more than 2 GB,
ends its process, or gives an answer that the independent reader does not give.
"""

import argparse
import io
import json
import math
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import torch
import yaml
from mutations import mutated
from tars import chunk, pack, riff, samples, tone, wav

from dist_train import check, checkpoint, config, shards
from dist_train.archive import intact, level
from dist_train.archive.scan import scan, split_name
from dist_train.archive.tar import Member as TarMember
from dist_train.archive.tar import walk
from dist_train.view import choose

SECONDS, BYTES = 60, 2 << 30
READ, REFUSED = "read", "refused"
ROOT = Path(__file__).parents[1]


def refusal(error: BaseException) -> str:
    """REFUSED, where an error is one line for a person."""
    assert isinstance(error, ValueError | OSError) and not isinstance(error, UnicodeError), repr(error)
    assert str(error) and "\n" not in str(error), repr(error)
    return REFUSED


def tars(folder: Path, random: Random) -> str:
    """The strict walk beside tarfile; `check` names every change of a byte."""
    long = random.choice(("", "a/" * 60, "ü"))
    members = [(long + name, payload) for name, payload in samples(3, frames=60)]
    members += [(f"{long}f.flac", wav(tone(60), form="FLAC")), (f"{long}f.cls", b"dog")]
    form = random.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    path = folder / "x.tar"
    pack(path, members, form)
    sound = path.read_bytes()
    shards.build(folder, workers=1)
    raw = mutated(sound, random, None)
    path.write_bytes(raw)
    assert (raw == sound) == (check.check(folder, workers=1) == [])
    found = scan(path)
    assert all("\n" not in line for line in found.damage)
    if found.damage:
        return REFUSED
    with path.open("rb") as file:
        ours = [item for item in walk(file) if isinstance(item, TarMember)]
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as archive:
        theirs = {info.name: (info.offset_data, info.size) for info in archive if info.isreg()}
    assert {item.name: (item.offset, item.size) for item in ours} == theirs
    for key, row in zip(found.keys, found.rows, strict=True):
        (name,) = [one for one in theirs if split_name(one) in ((key, "wav"), (key, "flac"))]
        begin, size = theirs[name]
        said = soundfile.info(io.BytesIO(raw[begin : begin + size]))
        assert (said.frames, said.samplerate, said.channels) == (row["frames"], row["rate"], row["channels"]), name
    return READ


def _fields(one: Any) -> dict[str, Any]:
    """All that a reader may ask of a set, or an error of one line."""
    view = choose([one], folds=[1, 2], balance="class")
    everything = choose([one])
    ids = np.arange(len(view))
    return {
        "rows": [one.item()[:-1] for one in view.rows(ids)],  # all but what is reserved
        "all": [one.item()[:-1] for one in everything.rows(np.arange(len(everything)))],
        "targets": view.targets(ids).tobytes(),
        "counts": view.counts().tobytes(),
        "classes": view.classes,
        "several": view.several,
        "digest": view.digest,
    }


def indexes(folder: Path, random: Random) -> str:
    """Every file of the index: what is opened gives the rows and labels that were written, or an error. In half of the
    cases files count as large, so that none but labels is verified whole at opening."""
    intact.SMALL = random.choice((0, 1 << 24))
    labels = [random.choice(("dog", ["cat", "dog"], "cow;cat")) for _ in range(6)]
    pack(folder / "0.tar", samples(3, frames=60, fold=[1, 2, 3], label=labels))
    pack(folder / "1.tar", samples(3, 3, frames=60, fold=[1, 2, 3] * 2, label=labels))
    said = _fields(shards.build(folder, workers=1))
    path = random.choice(sorted(path for path in folder.iterdir() if path.suffix != ".tar"))
    sound = path.read_bytes()
    path.write_bytes(mutated(sound, random, 128))
    differs = path.read_bytes() != sound
    assert not differs or path.name == "index.json" or check.check(folder, workers=1)
    try:
        one = shards.open_set(folder)
        assert not differs or path.name == "index.json" or check.check(folder, workers=1)
        found = _fields(one)
        keys = [one.key(number) for number in range(len(one))]
    except (ValueError, OSError) as error:
        return refusal(error)
    if path.name.startswith("keys") and not intact.SMALL:  # names, for messages only
        keys, found["several"] = [f"k{number:03d}" for number in range(6)], said["several"]
    assert keys == [f"k{number:03d}" for number in range(6)]
    if path.name != "index.json":
        assert found == said
    elif found != said:  # names and checksums are its own to say, rows and labels are not; `check` reads the rest
        assert check.check(folder, workers=1)
        assert (found["all"], found["targets"]) == (said["all"], said["targets"])
    return READ


def _wave_file(random: Random) -> bytes:
    channels = random.choice((1, 2, 3))
    sound = np.stack([tone(40, seed) for seed in range(channels)], 1)
    subtype = random.choice(("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
    form = random.choice(("WAV", "WAVEX", "RF64"))
    raw = wav(sound, 8000, subtype, form)
    if form == "WAV" and random.random() < 0.3 and subtype == "PCM_16":
        parts = [chunk(b"LIST", b"odd"), chunk(b"fmt ", raw[20:36]), chunk(b"junk", b"12345")]
        raw = riff(*parts, chunk(b"data", sound.astype("<i2").tobytes()), chunk(b"id3 ", b"tag"))
    return raw


def waves(folder: Path, random: Random) -> str:
    """The header beside soundfile's and, where it knows the coding, the standard library's."""
    raw = mutated(_wave_file(random), random, 80)
    try:
        found = level.read(io.BytesIO(raw), 0, len(raw), "wav")
    except (ValueError, OSError) as error:
        return refusal(error)
    assert 0 <= found.offset <= found.offset + found.size <= len(raw) and found.rms >= 0
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as sound:
            said = sound.frames, sound.samplerate, sound.channels
            data = sound.read(dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, OSError):
        said = None
    except Exception as error:
        raise AssertionError(f"soundfile itself: {error!r}") from None
    mine = found.frames, found.rate, found.channels
    if said is not None:
        assert mine == said, (mine, said)
        body = level.pcm(raw[found.offset : found.offset + found.size], found.codec) if found.codec < 16 else None
        if body is not None:
            scaled = body.reshape(-1, found.channels) / level.FULL_SCALE[found.codec]
            assert np.array_equal(scaled[: len(data)], data, equal_nan=True)
        return READ
    try:
        with wave.open(io.BytesIO(raw)) as plain:
            assert mine[1:] == (plain.getframerate(), plain.getnchannels())
    except (wave.Error, EOFError):
        return "read alone"
    return READ


def _same_yaml(ours: Any, plain: Any) -> bool:
    """Whether a value is what the text of its scalars says; `plain` has every scalar as text."""
    if plain is None:  # no document at all
        return ours is None
    if isinstance(plain, dict):
        if not isinstance(ours, dict) or len(ours) != len(plain):
            return False
        pairs = zip(ours.items(), plain.items(), strict=True)
        return all(_same_yaml(key, text) and _same_yaml(value, said) for (key, value), (text, said) in pairs)
    if isinstance(plain, list):
        return isinstance(ours, list) and len(ours) == len(plain) and all(map(_same_yaml, ours, plain))
    if isinstance(ours, str):
        return bool(ours == plain)
    if ours is None or isinstance(ours, bool):
        return plain in {None: ("", "~", "null"), True: ("true",), False: ("false",)}[ours]
    number = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
    return math.isnan(ours) if math.isnan(number) else float(ours) == number


TRICKS = (
    *("[" * 3000, "{a: " * 2000, "- " * 3000, "9" * 5000, "1e999", "\0", "\ud800", "---\n---\n"),
    *("&a [*a, *a]", "&a {b: *a}", "a: *b", "<<: [1]", "? [a]\n: b\n", "? {a: 1}\n: b"),
    *("!!python/name:os.system x", "!!int x", "!!float abc", "!!timestamp 2001-99-99", "!!binary '%'", "!!bool maybe"),
    *("!!set {a, b}", "!!omap [a]", "!!pairs [a: b]", "!!int [1]", "!!str {a: b}"),
    "[&a [x,x], &b [*a,*a], &c [*b,*b], &d [*c,*c,*c,*c], &e [*d,*d,*d,*d], &f [*e,*e,*e,*e], &g [*f,*f,*f,*f], "
    "&h [*g,*g,*g,*g], &i [*h,*h,*h,*h], &j [*i,*i,*i,*i], &k [*j,*j,*j,*j], &l [*k,*k,*k,*k], [*l,*l,*l,*l]]",
)


def configurations(folder: Path, random: Random) -> str:
    """Texts beside PyYAML's plain loader; what is a mapping goes through the whole check."""
    recipes = sorted((ROOT / "configs").glob("*.yaml"))
    raw = mutated(random.choice(recipes).read_bytes(), random)
    if random.random() < 0.3:
        lines = raw.split(b"\n")
        lines.insert(random.randrange(len(lines)), random.choice(TRICKS).encode("utf-8", "surrogatepass"))
        raw = b"\n".join(lines)
    if random.random() < 0.2:
        raw = random.choice((b"data: ", b"run: {seed: ", b"", b"audio:\n  seconds: ")) + random.choice(TRICKS).encode(
            "utf-8", "surrogatepass"
        )
    path = folder / "x.yaml"
    path.write_bytes(raw)
    try:
        config.load(path)
        outcome = READ
    except (ValueError, OSError) as error:
        outcome = refusal(error)
    try:
        ours = config.parse(raw.decode(), "x")
    except (ValueError, OSError) as error:
        return refusal(error) if not isinstance(error, UnicodeError) else outcome
    if b"!!" not in raw and b"<<" not in raw:  # of which the plain loader makes nothing
        assert _same_yaml(ours, yaml.load(raw.decode(), yaml.BaseLoader))
    return outcome


def checkpoints(folder: Path, random: Random) -> str:
    """A payload that comes back is the one that was written."""
    weight = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    payload = {"step": {"model": {"w": weight, "b": weight[:, 0].bfloat16()}, "ema": None}, "bad": [1, 2], "name": "x"}
    raw = mutated(checkpoint.encode(payload), random, None)
    path = folder / "step-00000001.pt"
    path.write_bytes(raw)
    try:
        found = checkpoint.load(path)
    except ValueError as error:
        return refusal(error)
    model = found["step"]["model"]
    assert set(found) == set(payload) and set(model) == {"w", "b"} and (found["bad"], found["name"]) == ([1, 2], "x")
    assert torch.equal(model["w"], weight) and torch.equal(model["b"], weight[:, 0].bfloat16())
    return READ


KINDS: dict[str, Callable[[Path, Random], str]] = {
    "tar": tars,
    "index": indexes,
    "wav": waves,
    "configuration": configurations,
    "checkpoint": checkpoints,
}


@contextmanager
def bounded() -> Iterator[None]:
    """A case that takes longer than SECONDS ends with a TimeoutError."""

    def ring(number: int, frame: Any) -> None:
        raise RuntimeError(f"no end after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def case(kind: str, seed: int) -> str:
    """How one case came out; AssertionError and others where it failed."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, bounded():
        return KINDS[kind](Path(folder), Random(f"{kind} {seed}"))


def run(kind: str, first: int, cases: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of some cases, and a line for each that failed."""
    outcomes, failed = Counter[str](), list[str]()
    for seed in range(first, first + cases):
        print(seed, file=sys.stderr, flush=True)  # the last one names the case that ended the process
        try:
            outcomes[case(kind, seed)] += 1
        except Exception as error:
            outcomes["FAILED"] += 1
            failed.append(f"{kind} {seed}: {type(error).__name__}: {str(error)[:300]}")
    return outcomes, failed


def main() -> int:
    """The script's exit code: 1 where a case failed."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--cases", type=int, default=2000, help="of each kind")
    top.add_argument("--seed", type=int, default=0, help="of the first case")
    top.add_argument("--kind", choices=KINDS, help="this kind only, in this process")
    options = top.parse_args()
    if options.kind:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        outcomes, failed = run(options.kind, options.seed, options.cases)
        print(json.dumps({"kind": options.kind, "outcomes": outcomes, "failed": failed}))
        return 1 if failed else 0
    worst = 0
    for kind in KINDS:
        asked = ["--kind", kind, "--seed", str(options.seed), "--cases", str(options.cases)]
        command = [sys.executable, __file__, *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(
            done.stdout.strip() or f"{kind}: ended by {done.returncode} in case {done.stderr.split()[-1:]}", flush=True
        )
        worst = max(worst, 1 if done.returncode else 0)
    return worst


if __name__ == "__main__":
    sys.exit(main())
