"""A real Slurm with two daemons: jobs of tools/cluster/slurm.sh, requeued and stopped before their time is up."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hosts
import pytest
import slurm
from launches import Run, arguments, make_shards
from same import assert_same_end

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]
PATIENCE = 400.0  # seconds
OFTEN = ("run.threads=1", "checkpoint.every_minutes=0.05", "run.timeout=30")
LENGTH = ("run.epochs=60", *OFTEN)
ESC10 = ("run.max_steps=10", "log.every=1", "log.tensorboard=false", *OFTEN)


class Queue:
    """Training jobs on the cluster; each has a home of its own."""

    def __init__(self, cluster: slurm.Slurm, data: Path, root: Path) -> None:
        self.cluster, self.data, self.root = cluster, data, root

    def tiny(self, home: Path, *words: str, length: tuple[str, ...] = LENGTH) -> tuple[str, Run]:
        """A tiny run; `words`: what sbatch is told besides."""
        return self.submit(home, *arguments(home, self.data, *length), words=words), Run(home / "tiny")

    def submit(self, home: Path, *given: str, words: tuple[str, ...] = ()) -> str:
        """Number of the job that trains what is given."""
        script = str(self.root / "tools/cluster/slurm.sh")
        return self.cluster.submit(
            "--nodes=2", f"--chdir={self.root}", f"--output={home}/output.txt", *words, script, *given
        )

    def until(self, job: str, home: Path, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not happened():
            state = self.cluster.facts(job)["JobState"]
            words = (home / "output.txt").read_text() if (home / "output.txt").exists() else ""
            assert state not in ("FAILED", "TIMEOUT", "CANCELLED") and time.monotonic() < end, (
                words + self.cluster.log()
            )
            time.sleep(0.3)

    def restarts(self, job: str) -> int:
        """How often it was started again; one that waits to be is hurried on."""
        self.cluster.hurry(job)
        return int(self.cluster.facts(job)["Restarts"])

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
    job, run = queue.tiny(home)
    facts = queue.finish(job, home)
    assert (facts["Restarts"], facts["NumNodes"]) == ("0", "2")
    assert run.finished
    return run


def test_a_requeue_in_mid_epoch_changes_no_bit(undisturbed: Run, queue: Queue, tmp_path: Path) -> None:
    job, run = queue.tiny(tmp_path)
    queue.until(job, tmp_path, lambda: run.steps() > 20 and len(run.saved()) > 0)
    queue.cluster.run("scontrol", "requeue", job)
    assert not run.finished
    facts = queue.finish(job, tmp_path)
    assert facts["Restarts"] == "1"
    assert_same_end(run, undisturbed)


def test_before_its_time_is_up_a_job_saves_and_queues_itself_again(
    undisturbed: Run, queue: Queue, tmp_path: Path
) -> None:
    job, run = queue.tiny(tmp_path)
    queue.until(job, tmp_path, lambda: run.steps() > 20)
    queue.cluster.run("scancel", "--batch", "--signal=USR1", job)  # as --signal=B:USR1@180 does
    facts = queue.finish(job, tmp_path)
    output = (tmp_path / "output.txt").read_text()
    assert facts["Restarts"] == "1"
    assert output.count("stopped and saved") == 1
    assert output.count("saved before the time limit") == 1
    assert not (run.folder / "STOP").exists()
    assert_same_end(run, undisturbed)


def test_slurm_itself_tells_it_before_the_time_limit(queue: Queue, tmp_path: Path) -> None:
    """Limits are whole minutes, and the signal may come a minute early. Then a user's STOP ends the job for good."""
    length = ("run.epochs=100000", *OFTEN)
    job, run = queue.tiny(tmp_path, "--time=3", "--signal=B:USR1@60", length=length)
    queue.until(job, tmp_path, lambda: queue.restarts(job) > 0)
    saved = run.steps()
    output = (tmp_path / "output.txt").read_text()
    assert output.count("stopped and saved") == output.count("saved before the time limit") == 1
    assert run.saved()[-1].stem == f"step-{saved:08d}"

    def further() -> bool:
        return queue.restarts(job) > 0 and run.steps() >= saved + 10

    def over() -> bool:
        (run.folder / "STOP").touch()  # one that comes while the job waits is not heard
        queue.cluster.hurry(job)
        return queue.cluster.facts(job)["JobState"] == "COMPLETED"

    queue.until(job, tmp_path, further)
    queue.until(job, tmp_path, over)
    assert not run.finished
    assert run.column("step") == list(range(1, run.steps() + 1))  # none twice, none missing


@pytest.mark.parametrize("where", [("--nodes=2", "--ntasks-per-node=1"), ("--nodelist=dt1", "--ntasks=2")])
def test_srun_starts_the_ranks_itself(where: tuple[str, str], undisturbed: Run, queue: Queue, tmp_path: Path) -> None:
    """From a machine that has rank 0, and from one that has no rank at all."""
    given = arguments(tmp_path, queue.data, *LENGTH)
    trained = ("-m", "dist_train", *given)
    queue.cluster.run("srun", *where, f"--chdir={queue.root}", sys.executable, *trained, seconds=PATIENCE)
    assert_same_end(Run(tmp_path / "tiny"), undisturbed)


@pytest.mark.full
def test_the_recipe_of_esc10_is_requeued_in_mid_run(esc10: Path, queue: Queue, tmp_path: Path) -> None:
    shards, runs = tmp_path / "esc10", list[Run]()
    packed = ("tools/make_shards.py", "pack", str(esc10), str(shards))
    subprocess.run([sys.executable, *packed], cwd=queue.root, env=hosts.environment(), check=True)
    for name in ("undisturbed", "requeued"):
        home = tmp_path / name
        home.mkdir()
        recipe = ("configs/esc10.yaml", f"data.shards=[{shards}]", f"run.dir={home}", *ESC10)
        job, run = queue.submit(home, *recipe), Run(home / "esc10")
        if runs:
            queue.until(job, home, lambda run=run: run.steps() >= 4 and len(run.saved()) > 0)  # type: ignore[misc]
            queue.cluster.run("scontrol", "requeue", job)
        assert queue.finish(job, home)["Restarts"] == str(len(runs))
        runs.append(run)
    assert_same_end(runs[1], runs[0])
