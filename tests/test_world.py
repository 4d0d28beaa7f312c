"""Ranks that wait for one another: long work of rank 0 is harmless, its silence is not. Real processes on gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launches import PATIENCE, Job, Run, arguments, fork

from dist_train import world

TIMEOUT = 3.0  # seconds; generous to a busy machine


def _waits(timeout: float) -> int:
    """A rank that waits for rank 0 three times."""

    def long() -> str:
        time.sleep(3 * timeout)
        return "done"

    def refused() -> None:
        raise PermissionError(13, "Permission denied", "there")

    def cut() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    here = world.start(timeout)
    print("value", here.lead(long), here.collect(here.rank))
    for work in (refused, cut):
        try:
            here.lead(work)
        except ValueError as error:
            print("refused", error)
        except RuntimeError as error:
            print("lost", world.loss(error))
    return 0


def test_waits_for_rank_0(tmp_path: Path) -> None:
    """Its work may take three times as long as a rank may be silent; its silence (SIGSTOP: a cut link) may not."""
    outputs = [tmp_path / f"output-{rank}.txt" for rank in range(3)]
    ranks = fork(_waits, [[TIMEOUT]] * 3, outputs)
    try:
        for rank in ranks[1:]:
            rank.join(PATIENCE)
    finally:
        ranks[0].kill()
    for output in outputs[1:]:
        value, refused, lost = output.read_text().splitlines()
        assert value == "value done [0, 1, 2]"
        assert refused == "refused [Errno 13] Permission denied: 'there'"
        assert lost.startswith("lost ")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGSTOP, marks=pytest.mark.full), signal.SIGKILL])
def test_a_rank_that_is_cut_off_ends_the_others_with_one_line(number: int, shards: Path, tmp_path: Path) -> None:
    """SIGSTOP stands for a host whose link is cut: connections stay, nothing comes."""
    command = arguments(
        tmp_path, shards, "run.timeout=10", "run.max_steps=5000", "checkpoint.every_minutes=1e-6", "optim.lr=0.0001"
    )
    job = Job(command, tmp_path, 3)
    job.until(lambda: job.run.steps() >= 3 and bool(job.run.saved()))
    pid = job.ranks[0].pid
    assert pid is not None
    os.kill(pid, number)
    try:
        for rank in job.ranks[1:]:
            rank.join(PATIENCE)
        assert [rank.exitcode for rank in job.ranks[1:]] == [3, 3], job.text()
    finally:
        job.kill()
    lines = [path.read_text().splitlines() for path in job.outputs[1:]]
    for number_, said in enumerate(lines, 1):
        assert len(said) == 1 and said[0].startswith(f"error: rank {number_}: another rank was lost or cut off in step")
    again = Job([*command, "run.max_steps=2"], tmp_path, 2)  # the lock is free, a checkpoint there
    assert again.wait() == [0, 0], again.text()
    assert "goes on from" in again.text()


def test_ranks_do_not_outlive_their_launcher(
    shards: Path, tmp_path: Path, root: Path, environment: dict[str, str]
) -> None:
    given = arguments(tmp_path, shards, "run.max_steps=5000")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "dist_train", *given]
    with (tmp_path / "output.txt").open("w") as file:
        agent = subprocess.Popen([sys.executable, *command], cwd=root, env=environment, stdout=file, stderr=file)
    end, run = time.monotonic() + PATIENCE, Run(tmp_path / "tiny")
    while run.steps() < 3:
        assert agent.poll() is None and time.monotonic() < end, (tmp_path / "output.txt").read_text()
        time.sleep(0.05)
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    ranks = [int(child) for child in children if b"dist_train" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(ranks) == 2
    agent.kill()
    agent.wait()
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < end
        time.sleep(0.05)
    steps = run.steps()
    job = Job([*given, f"run.max_steps={steps + 1}"], tmp_path, 1)  # nobody holds the folder
    assert job.wait() == [0], job.text()


def test_a_live_rank_shows_its_stacks(shards: Path, tmp_path: Path) -> None:
    job = Job(arguments(tmp_path, shards, "run.max_steps=5000"), tmp_path)
    job.until(lambda: job.run.steps() >= 1)
    job.signal(signal.SIGUSR2)
    job.until(lambda: "engine.py" in job.text() and "Current thread" in job.text())
    job.signal(signal.SIGTERM)
    assert job.wait() == [0], job.text()  # and the run went on
