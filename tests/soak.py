"""A run of two ranks under torchrun, on shards in SeaweedFS, with a random fault every 45 to 90 s; then an undisturbed
one: their ends must be equal, bit for bit.

    python tests/soak.py --minutes 20 --seed 1 [--home DIR] [--faults NAME,NAME] [--every 45,90]

What ends is started again with the same command, as a supervisor would. The run's folder lies on a small disk of its
own, which root alone may mount. Prints a table of the faults; exit 0 only where the ends are equal.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from conftest import LAUNCHER_VARIABLES, ROOT
from disks import mount, unmount
from gate import Gate
from launcher import TORCHRUN, Launch
from launches import Run, arguments, make_shards
from same import same_end
from servers import BUCKET, Seaweed
from soak_faults import FAULTS

from dist_train.bucket import Bucket

PAUSE, STEP = 0.8, 0.1  # seconds slept in a step while faults come, and what else it takes at least
LIMIT = 3.0  # times the planned length after which the soak has failed


class Soak:
    """The disturbed run and what can be done to it."""

    timeout = 30.0  # run.timeout; a store may be down for half of it

    def __init__(self, home: Path, minutes: float) -> None:
        self.home, self.root, self.minutes = home, ROOT, minutes
        self.data = make_shards(home / "shards")
        self.store = Seaweed(home / "store")
        self.store.start()
        self.gate = Gate(self.store.ports[0])
        os.environ.update(self.store.environment)  # for `bucket`, which does not pass the gate
        self.bucket = Bucket(f"s3://{BUCKET}/soak")
        for path in sorted(self.data.iterdir()):
            self.bucket.put(path.name, path)
        mount(home / "disk", 24)
        self.run = Run(home / "disk/tiny")
        self.length = [
            *("run.epochs=1000000", f"run.max_steps={max(20, int(minutes * 60 / (PAUSE + STEP)))}"),
            *(f"run.timeout={self.timeout:g}", "evaluation.every_epochs=100", "checkpoint.every_minutes=0.05"),
            *("checkpoint.keep=3", "optim.ema=0.9", "augment.speed=[9/10, 1]"),
        ]
        given = arguments(home / "disk", Path("s3:") / BUCKET, *self.length)
        given[1] = f"data.shards=['s3://{BUCKET}/soak']"
        flags = ("--standalone", "--nproc_per_node=2", "--max-restarts=1")
        self.command = [TORCHRUN, *flags, str(ROOT / "tests/soaked.py"), *given]
        self.environment = self._environment()
        self.pause(PAUSE)
        self.starts = 0
        self.begin()

    def pause(self, seconds: float) -> None:
        """What each step sleeps from now on."""
        (self.home / "pause").write_text(str(seconds))

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        return kept | {
            **{name: value for name, value in self.store.environment.items() if name != "AWS_ENDPOINT_URL"},
            "AWS_ENDPOINT_URL": self.gate.address,
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "SOAK_HOME": str(self.home),
        }

    def begin(self) -> None:
        """The same command once more."""
        self.starts += 1
        self.launch = Launch(self.command, self.home / "disk", ROOT, self.environment, "../output.txt")
        self.launch.run = self.run

    def ranks(self) -> list[int]:
        return self.launch.ranks()

    def alive(self) -> bool:
        return self.launch.process.poll() is None

    def step(self) -> int:
        """Of the last whole line of the metrics."""
        try:
            lines = (self.run.folder / "metrics.jsonl").read_bytes()[-4000:].splitlines()
        except OSError:
            return 0
        for line in reversed(lines):
            try:
                return int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0

    def supervise(self, seconds: float, past: int | None = None) -> list[str]:
        """Start again what ended, for so long or until the run is past a step or finished. What was seen."""
        seen, end = list[str](), time.monotonic() + seconds
        while time.monotonic() < end and not self.run.finished and (past is None or self.step() <= past):
            code = self.launch.process.poll()
            if code is not None:
                seen.append(f"exit {code}")
                self.begin()
            time.sleep(0.2)
        return seen


def lines_since(path: Path, place: int) -> tuple[list[str], int]:
    """Errors and warnings of the ranks that came into a file since a byte; its new end."""
    data = path.read_bytes()
    text = data[place:].decode(errors="replace").splitlines()
    wanted = [line.strip() for line in text if line.startswith(("error: ", "warning: "))]
    wanted += [f"stopped: {line}" for line in text if "stopped and saved" in line]
    wanted += [line for line in text if line.endswith(("Error: a mistake in the code",))]
    return list(dict.fromkeys(wanted)), len(data)


def disturb(soak: Soak, dice: random.Random, names: list[str], every: tuple[float, float]) -> list[list[str]]:
    """Faults until the run's time is over; a row each: time, fault, detail, seen, seconds until it went on."""
    began, rows, at = time.monotonic(), list[list[str]](), 0.0
    known, left = {fault.__name__: fault for fault in FAULTS}, list[str]()
    soak.supervise(120, past=2)
    while not soak.run.finished and time.monotonic() - began < soak.minutes * 60:
        soak.supervise(at + dice.uniform(*every) - time.monotonic())
        if soak.run.finished:
            break
        if not left:  # each once before any comes again
            left = dice.sample(names, len(names))
        fault, at, step = known[left.pop()], time.monotonic(), soak.step()
        place = soak.launch.output.stat().st_size
        detail = fault(soak, dice)
        codes = soak.supervise(180, past=max(step, soak.step()) + 1)
        told, _ = lines_since(soak.launch.output, place)
        went_on = f"{time.monotonic() - at:.0f} s" if soak.step() > step or soak.run.finished else "DID NOT GO ON"
        clock = f"{int(at - began) // 60:02d}:{int(at - began) % 60:02d}"
        rows.append([clock, fault.__name__.replace("_", " "), detail, "; ".join([*codes, *told]), went_on])
        print(" | ".join(rows[-1]), flush=True)
    soak.pause(0)
    soak.supervise(soak.minutes * 60 * LIMIT)
    return rows


def undisturbed(soak: Soak) -> Launch:
    """The same run on local disk, with steps that do not wait; it runs beside the other."""
    home = soak.home / "undisturbed"
    given = arguments(home, soak.data, *soak.length)
    command = [TORCHRUN, "--standalone", "--nproc_per_node=2", "-m", "dist_train", *given]
    return Launch(command, home, ROOT, soak.environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--faults", help="names, joined with commas; default: all")
    parser.add_argument("--every", default="45,90", help="seconds between two faults: least,most")
    given = parser.parse_args()
    names = given.faults.split(",") if given.faults else [fault.__name__ for fault in FAULTS]
    home = given.home or Path(mkdtemp(prefix="soak-"))
    home.mkdir(parents=True, exist_ok=True)
    soak = Soak(home.resolve(), given.minutes)
    low, high = map(float, given.every.split(","))
    other = undisturbed(soak)
    try:
        rows = disturb(soak, random.Random(given.seed), names, (low, high))
        table = ["| at | fault | detail | seen | went on after |", "|---|---|---|---|---|"]
        table += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
        print("\n".join(table), f"\n{len(rows)} faults, {soak.starts} starts, step {soak.step()}", flush=True)
        assert soak.run.finished, "the run did not end"
        assert other.code() == 0, other.text()[-2000:]
        same_end(soak.run, other.run)
        print("equal bit for bit: weights, moments, average, stream, metrics, scores", flush=True)
    finally:
        if soak.alive():
            soak.launch.process.terminate()
            soak.launch.code()
        soak.store.kill()
        unmount(home / "disk")
    return 0


if __name__ == "__main__":
    sys.exit(main())
