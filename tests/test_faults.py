"""Ranks that die, raise, hang, lag or run out of memory: the others leave in time, and the run goes on exactly."""

import functools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from causes import at_step, eat, eat_in_save, fail, in_front, in_reader, slow_evaluation, slow_reader
from launches import CLASSES, Job, Run, arguments, clip, train
from same import assert_same_end
from tars import pack, wav

from dist_train import shards as shard_sets

STEPS = 12
LENGTH = (f"run.max_steps={STEPS}", "evaluation.every_epochs=2", "run.timeout=20")
EVERY_STEP = "checkpoint.every_minutes=1e-6"
LOST = 3  # exit code of a rank that lost another


def _goes_on(home: Path, shards: Path, undisturbed: Run) -> None:
    """The same command again ends as if nothing had happened."""
    assert_same_end(train(home, shards, *LENGTH, EVERY_STEP, ranks=2), undisturbed)


def _errors(job: Job, rank: int) -> list[str]:
    return [line for line in job.outputs[rank].read_text().splitlines() if line.startswith("error: ")]


def _one_line(job: Job, rank: int) -> str:
    """The one line that a rank ended with, and no traceback."""
    text = job.outputs[rank].read_text()
    assert "Traceback" not in text, text
    (line,) = _errors(job, rank)
    return line


@pytest.mark.parametrize("killed", [0, pytest.param(1, marks=pytest.mark.full)])
def test_a_rank_killed(shards: Path, tmp_path: Path, undisturbed: Run, killed: int) -> None:
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP), tmp_path, 2)
    job.until(lambda: job.run.steps() >= 4)
    process = job.ranks[killed].pid
    assert process is not None
    os.kill(process, signal.SIGKILL)
    codes = job.wait()
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] == LOST, job.text()
    assert "rank" in _one_line(job, 1 - killed)
    _goes_on(tmp_path, shards, undisturbed)


@pytest.mark.parametrize(
    "cause",
    [
        functools.partial(at_step, 1, 5, fail),
        functools.partial(in_reader, 1, 99, fail),
        pytest.param(functools.partial(in_front, 0, 80, fail), marks=pytest.mark.full),
    ],
    ids=["step", "reader", "front end"],
)
def test_a_rank_that_raises(shards: Path, tmp_path: Path, undisturbed: Run, cause: Callable[[int], None]) -> None:
    """It shows its traceback, which somebody has to read; the other leaves with one line."""
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP), tmp_path, 2, cause)
    codes = job.wait()
    raised = codes.index(1)
    assert codes[1 - raised] == LOST, job.text()
    assert "RuntimeError: a mistake in the code" in job.outputs[raised].read_text()
    assert "rank" in _one_line(job, 1 - raised)
    assert not job.run.finished and job.run.saved()
    _goes_on(tmp_path, shards, undisturbed)


def test_a_rank_that_hangs(shards: Path, tmp_path: Path, undisturbed: Run) -> None:
    """SIGSTOP: its connections stay, nothing but time tells."""
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP, "run.timeout=8"), tmp_path, 2)
    job.until(lambda: job.run.steps() >= 4)
    process = job.ranks[1].pid
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    job.ranks[0].join(60)
    os.kill(process, signal.SIGCONT)
    assert job.ranks[0].exitcode == LOST, job.text()
    assert "rank" in _one_line(job, 0)
    assert job.wait() == [LOST, LOST], job.text()  # it finds itself alone
    _goes_on(tmp_path, shards, undisturbed)


def test_sigterm_in_an_evaluation(shards: Path, tmp_path: Path, undisturbed: Run) -> None:
    mark = tmp_path / "evaluates"
    cause = functools.partial(slow_evaluation, mark, 0.1)
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP, "evaluation.batch_size=1"), tmp_path, 2, cause)
    job.until(mark.exists)
    job.signal(signal.SIGTERM)
    assert job.wait() == [0, 0], job.text()
    assert "stopped and saved at step 4" in job.text() and not job.run.metrics("eval")
    _goes_on(tmp_path, shards, undisturbed)


def test_sigterm_in_a_save(shards: Path, tmp_path: Path, undisturbed: Run) -> None:
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP), tmp_path, 2)
    job.until(lambda: job.run.steps() >= 2)
    job.hold_in_save()
    job.signal(signal.SIGTERM)
    job.signal(signal.SIGCONT)
    assert job.wait() == [0, 0], job.text()
    assert "stopped and saved at step" in job.text() and not job.run.finished
    _goes_on(tmp_path, shards, undisturbed)


def test_a_slow_rank(shards: Path, tmp_path: Path, undisturbed: Run) -> None:
    """It is named, and changes nothing else."""
    cause = functools.partial(slow_reader, 1)
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP), tmp_path, 2, cause)
    assert job.wait() == [0, 0], job.text()
    assert_same_end(job.run, undisturbed)
    assert job.run.column("slowest_rank").count(1) >= STEPS // 2
    assert "rank 1 is" in job.text() and "% slower" in job.text()


@pytest.mark.full
def test_an_evaluation_longer_than_the_timeout(shards: Path, tmp_path: Path) -> None:
    """Rank 0 alone scores while the other waits."""
    given = ("run.max_steps=2", "evaluation.every_epochs=1", "evaluation.ranks=first", "evaluation.batch_size=4")
    quick = train(tmp_path / "quick", shards, *given, ranks=2)
    cause = functools.partial(slow_evaluation, tmp_path / "evaluates", 1.0)
    home = tmp_path / "slow"
    job = Job(arguments(home, shards, *given, "run.timeout=6"), home, 2, cause)
    began = time.monotonic()
    assert job.wait() == [0, 0], job.text()
    assert time.monotonic() - began > 10  # of a second a batch
    assert job.run.metrics("eval") == quick.metrics("eval") and job.run.result() == quick.result()


def test_two_jobs_in_one_folder(shards: Path, tmp_path: Path, undisturbed: Run) -> None:
    command = arguments(tmp_path, shards, *LENGTH, EVERY_STEP)
    first = Job(command, tmp_path, 2, functools.partial(slow_reader, 1))
    first.until(lambda: first.run.steps() >= 2)
    other = tmp_path / "other"
    other.mkdir()
    second = Job(command, other, 2)
    assert second.wait() == [2, 2], second.text()
    assert f"in use by process {first.ranks[0].pid} on " in _one_line(second, 0)
    assert first.wait() == [0, 0], first.text()
    assert_same_end(first.run, undisturbed)


@pytest.mark.parametrize(
    "cause",
    [pytest.param(functools.partial(in_reader, 1, 99, eat), marks=pytest.mark.full), None],
    ids=["reader", "checkpoint"],
)
def test_out_of_memory_in_a_thread(
    shards: Path, tmp_path: Path, undisturbed: Run, cause: Callable[[int], None] | None
) -> None:
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP), tmp_path, 2, cause or eat_in_save)
    codes = job.wait()
    out = 1 if cause else 0
    assert codes[out] == 2 and codes[1 - out] in (2, LOST), job.text()
    assert "out of memory" in _one_line(job, out)
    assert not job.run.finished and job.run.saved()
    _goes_on(tmp_path, shards, undisturbed)


def test_a_gradient_that_is_not_finite(tmp_path: Path) -> None:
    """A clip so loud that its power is infinite: each step that holds it is skipped, in each epoch again."""
    folder = tmp_path / "loud"
    rows = [(f"clip{number:02d}", CLASSES[number % 4], *clip(number)) for number in range(40)]
    members = []
    for name, label, wave, rate in rows:
        loud = np.full(len(wave), 1e30, "<f4") if name == "clip07" else (wave / 32768).astype("<f4")
        members += [
            (f"{name}.wav", wav(loud, rate, subtype="FLOAT")),
            (f"{name}.json", json.dumps({"label": label}).encode()),
        ]
    pack(folder / "loud.tar", members)
    shard_sets.build(folder, workers=1)
    length = ("data.eval_folds=[]", "run.max_steps=8")
    job = Job(arguments(tmp_path, folder, *length), tmp_path, 2)
    assert job.wait() == [0, 0], job.text()
    assert sum(job.run.column("skipped")) == 4 and "skipped steps 1" in job.text()
    assert all(torch.isfinite(one).all() for one in job.run.last()["step"]["model"].values())


def test_a_rate_that_breaks_the_network(shards: Path, tmp_path: Path) -> None:
    """One line; the checkpoints of before stay, and one of them goes on with a lower rate."""
    save = "checkpoint.every_epochs=2", "checkpoint.keep=2", "optim.max_skipped=4", "optim.clip=null"
    first = train(tmp_path, shards, "run.max_steps=4", *save)
    good = first.saved()[-1]
    wild = ("run.max_steps=60", "optim.lr=1e30", "optim.name=sgd", *save)
    job = Job(arguments(tmp_path, shards, *wild, f"run.resume={good}"), tmp_path, 1)
    assert job.wait() == [2], job.text()
    line = _one_line(job, 0)
    assert "the gradient was not finite in 5 steps in a row" in line and "lower optim.lr" in line
    assert good.exists() and not job.run.finished
    again = train(tmp_path, shards, "run.max_steps=8", *save, f"run.resume={good}")
    assert again.column("step") == list(range(1, 9)) and again.finished
