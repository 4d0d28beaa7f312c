"""A run of two ranks under torchrun, on shards in SeaweedFS, with a random fault every 45 to 90 s; beside it an
undisturbed one: their ends must be equal, bit for bit.

    python tests/soak.py --minutes 20 --seed 1 [--home DIR] [--faults NAME,NAME] [--every 45,90]

What ends is started again, as a supervisor would: in turn by one torchrun for both ranks and by two torchruns of one
rank, as on two hosts. The faults are a shuffled deck: each comes once before any comes again. One sample is corrupt
from the beginning. The run's folder lies on a small disk of its own, which root alone may mount. Prints a table of the
faults; exit 0 only where the ends are equal.
"""

import argparse
import json
import os
import random
import re
import socket
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from conftest import LAUNCHER_VARIABLES, ROOT
from disks import mount, unmount
from gate import Gate
from launcher import ALONE, TORCHRUN, Launch, gone
from launches import Run, arguments, make_shards
from same import assert_same_end
from servers import BUCKET, Seaweed
from soak_faults import FAULTS
from tars import patch

from dist_train import shards
from dist_train.stores.bucket import Bucket

SLOW, FAST = 3.0, 0.2  # seconds slept in a step while faults come, so that the steps last as long as they do
RATE = 40  # steps a minute
LIMIT = 3.0  # times the planned length after which the soak has failed


class Soak:
    """The disturbed run and what can be done to it."""

    timeout = 30.0  # run.timeout; a store may be down for half of it

    def __init__(self, home: Path, minutes: float) -> None:
        self.home, self.root, self.minutes = home, ROOT, minutes
        self.data = make_shards(home / "shards", "FLAC")
        opened = shards.open_set(self.data)
        spoiled = next(row for row in opened.rows if row["fold"] != 1)
        for byte in range(4):  # the magic word
            patch(self.data / opened.names[spoiled["shard"]], int(spoiled["offset"]) + byte)
        self.store = Seaweed(home / "store")
        self.store.start()
        self.gate = Gate(self.store.ports[0])
        os.environ.update(self.store.environment)  # for `bucket`, which does not pass the gate
        self.bucket = Bucket(f"s3://{BUCKET}/soak")
        for path in sorted(self.data.iterdir()):
            self.bucket.put(path.name, path)
        mount(home / "disk", 24)
        self.run = Run(home / "disk/tiny")
        self.steps = max(20, int(minutes * RATE))
        self.length = [
            *("run.epochs=1000000", f"run.max_steps={self.steps}"),
            *(f"run.timeout={self.timeout:g}", "evaluation.every_epochs=12", "checkpoint.every_minutes=0.05"),
            "evaluation.batch_size=4",
            *("checkpoint.keep=3", "optim.ema=0.9", "augment.speed=[9/10, 1]"),
        ]
        given = arguments(home / "disk", Path("s3:") / BUCKET, *self.length)
        given[1] = f"data.shards=['s3://{BUCKET}/soak']"
        self.module = [str(ROOT / "tests/soaked.py"), *given]
        self.alone = [TORCHRUN, *ALONE, "--max-restarts=1", *self.module]
        self.environment = self._environment()
        self.pause(FAST)
        self.starts = 0
        self.output = home / "output.txt"
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
        """The same run once more, on one host or on two."""
        self.starts += 1
        commands = [self.alone]
        if self.starts % 2:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            flags = ("--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}")
            commands = [[TORCHRUN, *flags, f"--node-rank={number}", *self.module] for number in range(2)]
        output = os.path.relpath(self.output, self.home / "disk")
        self.launches = [Launch(one, self.home / "disk", ROOT, self.environment, output) for one in commands]

    def ranks(self) -> list[int]:
        return [rank for launch in self.launches for rank in launch.ranks()]

    def processes(self) -> list[int]:
        """Launchers and ranks."""
        return [launch.process.pid for launch in self.launches] + self.ranks()

    def alive(self) -> bool:
        """Whether no launcher has ended."""
        return all(launch.process.poll() is None for launch in self.launches)

    def codes(self) -> str:
        """Exit codes of the launchers; one that does not end after another is told and killed."""
        end = time.monotonic() + self.timeout + 60
        while any(launch.process.poll() is None for launch in self.launches) and time.monotonic() < end:
            time.sleep(0.2)
        late = [number for number, launch in enumerate(self.launches) if launch.process.poll() is None]
        for number in late:
            gone([self.launches[number].process.pid, *self.launches[number].ranks()], 0)
        told = " and ".join(f"{launch.process.wait()}" for launch in self.launches)
        return f"exit {told}" + (f", AFTER HOST {late} LIVED ON" if late else "")

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
            if not self.alive() and not self.run.finished:
                seen.append(self.codes())
                if not self.run.finished:
                    self.begin()
            time.sleep(0.2)
        return seen


def lines_since(path: Path, place: int) -> list[str]:
    """Errors and warnings of the ranks that came into a file since a byte, and requests that were repeated."""
    text = path.read_bytes()[place:].decode(errors="replace").splitlines()
    wanted = [line.strip() for line in text if line.startswith(("error: ", "warning: "))]
    wanted += [f"stopped: {line}" for line in text if "stopped and saved" in line]
    wanted += [line for line in text if line.endswith("Error: a mistake in the code")]
    repeated = sum(int(found[1]) for line in text if (found := re.search("requests repeated ([0-9]+)", line)))
    wanted += [f"requests repeated {repeated}"] if repeated else []
    return list(dict.fromkeys(wanted))


def draw(left: list[str], soak: Soak) -> str:
    """The next fault of the deck; a host is killed where there are two."""
    place = -1
    if left[-1] == "host_killed" and len(soak.launches) < 2 and len(left) > 1:
        place = -2
    return left.pop(place)


def disturb(soak: Soak, dice: random.Random, names: list[str], every: tuple[float, float]) -> list[list[str]]:
    """Faults until time is over and each has come; a row each: time, hosts, fault, detail, seen, seconds until it
    went on."""
    began, rows, at = time.monotonic(), list[list[str]](), 0.0
    known, left = {fault.__name__: fault for fault in FAULTS}, list[str]()
    soak.supervise(120, past=2)
    while not soak.run.finished and (time.monotonic() - began < soak.minutes * 60 or len(rows) < len(names)):
        soak.supervise(at + dice.uniform(*every) - time.monotonic())
        if soak.run.finished:
            break
        if not left:  # each once before any comes again
            left = dice.sample(names, len(names))
        fault, at, step = known[draw(left, soak)], time.monotonic(), soak.step()
        place = soak.output.stat().st_size
        hosts, detail = len(soak.launches), fault(soak, dice)
        seen = soak.supervise(180, past=max(step, soak.step()) + 1)
        told = lines_since(soak.output, place)
        went_on = f"{time.monotonic() - at:.0f} s" if soak.step() > step or soak.run.finished else "DID NOT GO ON"
        clock = f"{int(at - began) // 60:02d}:{int(at - began) % 60:02d}"
        rows.append([clock, str(hosts), fault.__name__.replace("_", " "), detail, "; ".join([*seen, *told]), went_on])
        print(" | ".join(rows[-1]), flush=True)
        planned = max(soak.minutes * 60 - (time.monotonic() - began), (len(names) - len(rows)) * every[1])
        lives = planned / 2  # the other half goes by while it starts again
        soak.pause(min(SLOW, max(FAST, lives / max(1, soak.steps - soak.step()) - 0.1)))
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
        table = ["| at | hosts | fault | detail | seen | went on after |", "|---|---|---|---|---|---|"]
        table += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
        print("\n".join(table), f"\n{len(rows)} faults, {soak.starts} starts, step {soak.step()}", flush=True)
        assert soak.run.finished, "the run did not end"
        assert other.code() == 0, other.text()[-2000:]
        assert_same_end(soak.run, other.run)
        print("equal bit for bit: weights, moments, average, stream, metrics, scores", flush=True)
    finally:
        gone(soak.processes(), 0 if soak.run.finished else 30)
        soak.store.kill()
        unmount(home / "disk")
    return 0


if __name__ == "__main__":
    sys.exit(main())
