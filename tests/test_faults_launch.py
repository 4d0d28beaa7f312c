"""Ranks, launchers and hosts that are killed under torchrun: nothing lives on, nothing hangs, nothing is lost."""

import os
import signal
import socket
from pathlib import Path

import pytest
from launcher import ALONE, Launch, gone, torchrun
from launches import PATIENCE, Run
from same import assert_same_end

STEPS = 40
LENGTH = (f"run.max_steps={STEPS}", "run.epochs=100", "evaluation.every_epochs=10", "run.timeout=30")
EVERY_STEP = "checkpoint.every_minutes=1e-6"


@pytest.mark.full
def test_torchrun_starts_all_again_after_one_was_killed(
    shards: Path, tmp_path: Path, undisturbed: Run, root: Path, environment: dict[str, str]
) -> None:
    """Twice, on the store of the ranks before."""
    command = torchrun(tmp_path, shards, *LENGTH, EVERY_STEP, flags=(*ALONE, "--max-restarts=2"))
    launch = Launch(command, tmp_path, root, environment)
    for place, step in ((1, 8), (0, 20)):
        launch.until_step(step)
        ranks = launch.ranks()
        os.kill(ranks[place], signal.SIGKILL)
        launch.until(lambda ranks=ranks: not set(ranks) & set(launch.ranks()))  # type: ignore[misc]
    assert launch.code() == 0, launch.text()
    assert launch.text().count(f"goes on from {launch.run.folder}") == 2
    assert_same_end(launch.run, undisturbed)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_host_killed(
    shards: Path, tmp_path: Path, undisturbed: Run, root: Path, environment: dict[str, str], lost: int
) -> None:
    """Two torchrun on loopback, one rank each, stand for two hosts: all that one started is killed at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def host(number: int) -> Launch:
        place = ("--nnodes=2", f"--node-rank={number}", "--master-addr=127.0.0.1", f"--master-port={port}")
        command = torchrun(tmp_path, shards, *LENGTH, EVERY_STEP, flags=(*place, "--nproc-per-node=1"))
        return Launch(command, tmp_path, root, environment, f"host-{number}.txt")

    hosts = [host(0), host(1)]
    hosts[0].until_step(8)
    ranks = [one.ranks() for one in hosts]
    for process in (hosts[lost].process.pid, *ranks[lost]):
        os.kill(process, signal.SIGKILL)
    other = hosts[1 - lost]
    assert other.code() == 1, other.text()
    assert gone(ranks[1 - lost], 10)
    lines = [line for line in other.text().splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "another rank was lost or cut off" in lines[0]
    hosts = [host(0), host(1)]
    assert [one.code(3 * PATIENCE) for one in hosts] == [0, 0], hosts[0].text() + hosts[1].text()
    assert_same_end(hosts[0].run, undisturbed)
