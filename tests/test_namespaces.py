"""Three machines, of which one is cut off in mid-epoch and comes back: the run goes on with two, then with three."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import hosts
import pytest
from launches import Job, Run, arguments, make_shards

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE = (
    240.0  # seconds, of which a cut takes run.timeout, 15 until a machine counts as gone and 15 of waiting for more
)
LENGTH = ("run.epochs=5000", "run.timeout=15", "checkpoint.every_minutes=0.05")
ALWAYS = 'until ./launch.sh "$@"; do echo "--- again"; sleep 1; done'  # as Kubernetes or systemd would


class Machines:
    """The three machines and the run on them."""

    def __init__(self, home: Path, data: Path, root: Path) -> None:
        self.home, self.run = home, Run(home / "tiny")
        self.hosts = hosts.Hosts(3, home / "hosts")
        self.environment = hosts.environment() | {
            "NNODES": "2:3",
            "MASTER_ADDR": self.hosts.address(0),
            "PWD": str(root),
        }
        self.command = ["sh", "-c", f"cd {root} && {ALWAYS}", "sh", *arguments(home, data, *LENGTH)]
        self.loops = [self.start(number) for number in range(3)]

    def start(self, number: int) -> subprocess.Popen[bytes]:
        return self.hosts.start(number, self.command, self.environment, self.output(number))

    def output(self, number: int) -> Path:
        return self.home / f"output-{number}.txt"

    def ranks(self) -> int:
        """Of the newest start."""
        path = self.run.folder / "environment.json"
        return int(json.loads(path.read_text())["ranks"]) if path.exists() else 0

    def until(self, happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not happened():
            texts = [self.output(number).read_text(errors="replace")[-3000:] for number in range(3)]
            assert time.monotonic() < end, "\n".join([what, *texts])
            time.sleep(0.2)

    def until_further(self, steps: int, ranks: int) -> None:
        self.until(lambda: self.ranks() == ranks, f"a start with {ranks} ranks")
        goal = self.run.steps() + steps
        self.until(lambda: self.run.steps() >= goal, f"step {goal} with {ranks} ranks")

    def until_over(self) -> None:
        self.until(lambda: all(loop.poll() is not None for loop in self.loops), "the end")


def _alone(home: Path, data: Path, steps: int) -> Run:
    """One undisturbed process, at least so many steps of it."""
    job = Job(arguments(home, data, *LENGTH), home)
    job.until(lambda: job.run.steps() >= steps)
    job.signal(signal.SIGTERM)
    assert job.wait() == [0], job.text()
    return job.run


@pytest.mark.parametrize("rebooted", [False, True])
def test_a_machine_is_cut_off_and_comes_back(rebooted: bool, tmp_path: Path, root: Path) -> None:
    if why := hosts.absent():
        pytest.skip(why)
    data = make_shards(tmp_path / "shards")
    machines = Machines(tmp_path / "three", data, root)
    run = machines.run
    try:
        machines.until_further(5, ranks=3)  # steps; an epoch has two
        machines.hosts.cut(2)
        machines.until_further(5, ranks=2)
        machines.hosts.mend(2)
        if rebooted:
            machines.hosts.kill(2)
            machines.loops[2] = machines.start(2)
        machines.until_further(5, ranks=3)
        (run.folder / "STOP").touch()
        machines.until_over()
    finally:
        machines.hosts.close()
    steps = run.steps()
    assert run.column("step") == list(range(1, steps + 1))  # none twice, none missing
    assert run.saved()[-1].stem == f"step-{steps:08d}"
    alone = _alone(tmp_path / "alone", data, steps)
    for column in ("step", "consumed", "epoch", "stream"):
        assert run.column(column) == alone.column(column)[:steps]
    # sums in another order: what they differ by grows from step to step
    assert run.column("loss")[:10] == pytest.approx(alone.column("loss")[:10], rel=1e-3)
