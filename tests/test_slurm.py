"""A real Slurm with two daemons: jobs of tools/cluster/slurm.sh, requeued and stopped before their time is up."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm
import torch
from launches import Run, arguments, make_shards

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE = 300.0  # seconds
LENGTH = ("run.epochs=60", "run.threads=1", "checkpoint.every_minutes=0.05", "run.timeout=30")


class Queue:
    """Training jobs on the cluster; each has a home of its own."""

    def __init__(self, cluster: slurm.Slurm, data: Path, root: Path) -> None:
        self.cluster, self.data, self.root = cluster, data, root

    def submit(self, home: Path) -> tuple[str, Run]:
        given = arguments(home, self.data, *LENGTH)
        script = self.root / "tools/cluster/slurm.sh"
        words = ("--nodes=2", f"--chdir={self.root}", f"--output={home}/output.txt", str(script), *given)
        return self.cluster.submit(*words), Run(home / "tiny")

    def until(self, job: str, home: Path, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not happened():
            state = self.cluster.facts(job)["JobState"]
            words = (home / "output.txt").read_text() if (home / "output.txt").exists() else ""
            assert state not in ("FAILED", "TIMEOUT", "CANCELLED") and time.monotonic() < end, (
                words + self.cluster.log()
            )
            time.sleep(0.3)

    def finish(self, job: str, home: Path) -> dict[str, str]:
        def over() -> bool:
            self.cluster.hurry(job)
            return self.cluster.facts(job)["JobState"] == "COMPLETED"

        self.until(job, home, over)
        return self.cluster.facts(job)


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Queue]:
    if why := slurm.absent():
        pytest.skip(why)
    home = tmp_path_factory.mktemp("slurm")
    cluster = slurm.Slurm(home / "cluster")
    try:
        yield Queue(cluster, make_shards(home / "shards"), root)
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def undisturbed(queue: Queue, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("undisturbed")
    job, run = queue.submit(home)
    facts = queue.finish(job, home)
    assert (facts["Restarts"], facts["NumNodes"]) == ("0", "2")
    assert run.finished
    return run


def _same(run: Run, undisturbed: Run) -> None:
    """Weights, moments and average bit for bit; every number of every step."""
    for column in ("step", "stream", "loss", "grad_norm", "lr"):
        assert run.column(column) == undisturbed.column(column)
    (tensors, others) = (dict(_tensors(each.last()["step"], "")) for each in (run, undisturbed))
    assert len(tensors) > 10 and tensors.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    assert run.result()["value"] == undisturbed.result()["value"]


def _tensors(found: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(found, torch.Tensor):
        yield name, found
    elif isinstance(found, dict | list | tuple):
        for key, inner in found.items() if isinstance(found, dict) else enumerate(found):
            yield from _tensors(inner, f"{name}.{key}")


def test_a_requeue_in_mid_epoch_changes_no_bit(undisturbed: Run, queue: Queue, tmp_path: Path) -> None:
    job, run = queue.submit(tmp_path)
    queue.until(job, tmp_path, lambda: run.steps() > 20 and len(run.saved()) > 0)
    queue.cluster.run("scontrol", "requeue", job)
    assert not run.finished
    facts = queue.finish(job, tmp_path)
    assert facts["Restarts"] == "1"
    _same(run, undisturbed)


def test_before_its_time_is_up_a_job_saves_and_queues_itself_again(
    undisturbed: Run, queue: Queue, tmp_path: Path
) -> None:
    job, run = queue.submit(tmp_path)
    queue.until(job, tmp_path, lambda: run.steps() > 20)
    queue.cluster.run("scancel", "--batch", "--signal=USR1", job)  # as --signal=B:USR1@180 does
    facts = queue.finish(job, tmp_path)
    output = (tmp_path / "output.txt").read_text()
    assert facts["Restarts"] == "1"
    assert output.count("stopped and saved") == 1
    assert output.count("saved before the time limit") == 1
    assert not (run.folder / "STOP").exists()
    _same(run, undisturbed)
