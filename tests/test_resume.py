"""A run that is killed or stopped anywhere goes on as if nothing had happened, also on another number of ranks."""

import shutil
import signal
from pathlib import Path

import pytest
from launches import Job, Run, arguments, train
from same import assert_same_end, same

STEPS = 16
LENGTH = (f"run.max_steps={STEPS}", "evaluation.every_epochs=3", "optim.ema=0.9", "augment.speed=[9/10, 1]")
EVERY_STEP = "checkpoint.every_minutes=1e-6"


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.full)])
def test_killed_three_times(shards: Path, tmp_path: Path, ranks: int) -> None:
    undisturbed = train(tmp_path / "undisturbed", shards, *LENGTH, ranks=ranks)
    home = tmp_path / "killed"
    command = arguments(home, shards, *LENGTH, EVERY_STEP)

    first = Job(command, home, ranks)
    first.until(lambda: first.run.steps() >= 3 and bool(first.run.saved()))
    first.kill()
    assert not first.run.finished

    second = Job(command, home, ranks)
    second.until(lambda: second.run.steps() >= 6)
    second.kill_in_save()

    third = Job(command, home, ranks)
    third.until(lambda: bool(third.run.metrics("eval")))  # after two epochs: three are due at step 6
    third.until(lambda: third.run.steps() >= 11)
    third.kill()
    assert third.run.steps() < STEPS

    last = Job(command, home, ranks)
    assert last.wait() == [0] * ranks, last.text()
    assert last.text().count("goes on from") == 3
    assert_same_end(last.run, undisturbed)


def test_killed_before_anything_was_saved(shards: Path, tmp_path: Path) -> None:
    command = arguments(tmp_path / "killed", shards, *LENGTH)
    job = Job(command, tmp_path / "killed")
    job.until(lambda: job.run.steps() >= 2)
    job.kill()
    assert not job.run.saved()
    again = train(tmp_path / "killed", shards, *LENGTH)
    assert again.column("step") == list(range(1, STEPS + 1))


@pytest.fixture(scope="module")
def stopped(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run of two ranks in double precision that SIGTERM stopped, and its undisturbed twin of one rank."""
    home = tmp_path_factory.mktemp("stopped")
    job = Job(arguments(home, shards, *LENGTH, "precision=fp64"), home, 2)
    job.until(lambda: job.run.steps() >= 5)
    job.signal(signal.SIGTERM)
    assert job.wait() == [0, 0], job.text()
    assert "stopped and saved at step" in job.text()
    return home, train(home / "undisturbed", shards, *LENGTH, "precision=fp64")


def test_sigterm_saves_and_ends(stopped: tuple[Path, Run]) -> None:
    run = Run(stopped[0] / "tiny")
    assert not run.finished
    assert 5 <= run.last()["progress"]["step"] == run.steps() < STEPS


@pytest.mark.parametrize("ranks", [1, 3])
def test_goes_on_with_other_ranks(shards: Path, tmp_path: Path, stopped: tuple[Path, Run], ranks: int) -> None:
    home, undisturbed = stopped
    shutil.copytree(home / "tiny", tmp_path / "tiny")
    run = train(tmp_path, shards, *LENGTH, "precision=fp64", ranks=ranks)
    assert run.column("step") == list(range(1, STEPS + 1))
    assert run.column("stream") == undisturbed.column("stream")
    assert run.column("loss") == pytest.approx(undisturbed.column("loss"), rel=0, abs=1e-9)
    assert run.result()["confusion"] == undisturbed.result()["confusion"]


def test_stop_file(shards: Path, tmp_path: Path) -> None:
    command = arguments(tmp_path, shards, *LENGTH, "run.max_steps=5000")
    job = Job(command, tmp_path)
    job.until(lambda: job.run.steps() >= 1)
    stop = job.run.folder / "STOP"
    stop.touch()
    assert job.wait() == [0], job.text()
    assert not stop.exists() and not job.run.finished
    assert job.run.last()["progress"]["step"] == job.run.steps()
    stop.touch()  # left by somebody: not meant for the run that begins now
    run = train(tmp_path, shards, *LENGTH, f"run.max_steps={job.run.steps() + 2}")
    assert run.finished and not stop.exists()
    assert run.column("step") == list(range(1, len(run.metrics()) + 1))


def test_a_finished_run_again(shards: Path, tmp_path: Path) -> None:
    short = ("run.max_steps=2", "data.valid_folds=[2]")
    first = train(tmp_path, shards, *short)
    before, result = first.last(), first.result()
    again = train(tmp_path, shards, *short)
    assert again.result() == result
    assert again.column("step") == [1, 2] and len(again.metrics("eval")) == len(again.metrics("valid")) == 1
    same(again.last(), before)
    longer = train(tmp_path, shards, "run.max_steps=4", "data.valid_folds=[2]")
    assert longer.column("step") == [1, 2, 3, 4]


def test_validation_chooses_the_best_and_the_final_is_the_score(shards: Path, tmp_path: Path) -> None:
    often = (
        "data.valid_folds=[2]",
        "evaluation.every_epochs=1",
        "run.max_steps=9",
        "checkpoint.keep=1",
        "optim.lr=0.01",
    )
    run = train(tmp_path, shards, *often, "evaluation.metric=balanced_accuracy")
    marks, valid, result = run.metrics("eval"), run.metrics("valid"), run.result()
    assert [record["step"] for record in marks] == [record["step"] for record in valid] == list(range(1, 10))
    best = max(valid, key=lambda record: record["balanced_accuracy"])  # the first of equal ones
    assert result["best"]["step"] == best["step"] and result["best"]["valid"] == best["balanced_accuracy"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss"):
        assert result[name] == marks[-1][name]
        assert result["best"][name] == marks[best["step"] - 1][name]
    assert (result["value"], result["step"]) == (marks[-1]["balanced_accuracy"], 9)
    kept = {path.name for path in run.saved()}
    assert kept == {f"step-{best['step']:08d}.pt", "step-00000009.pt"}
    assert (run.folder / "checkpoints/best.json").exists() and (run.folder / "confusion.png").exists()
