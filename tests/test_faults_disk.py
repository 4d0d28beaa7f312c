"""Disks that are full, read-only or damaged, shards that change under a run: one line, and it goes on exactly."""

import functools
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from causes import at_step, slow_reader
from disks import fill, read_only, small_disk
from launches import Job, Run, arguments
from same import assert_same_end

from dist_train import shards as shard_sets

STEPS = 12
LENGTH = (f"run.max_steps={STEPS}", "evaluation.every_epochs=2", "run.timeout=20")
EVERY_STEP = "checkpoint.every_minutes=1e-6"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MB for runs."""
    with small_disk(tmp_path / "disk", 16) as folder:
        yield folder


def _line(job: Job, rank: int = 0) -> str:
    """The one line that a rank ended with, and no traceback."""
    text = job.outputs[rank].read_text()
    assert "Traceback" not in text, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line


def _job(disk: Path, home: Path, shards: Path, *more: str, cause: Callable[[int], None] | None = None) -> Job:
    """Two ranks whose run lies on the disk, their output elsewhere."""
    job = Job(arguments(home, shards, *LENGTH, *more, f"run.dir={disk}"), home, 2, cause)
    job.run = Run(disk / "tiny")
    return job


@pytest.mark.parametrize(
    "saves",
    [
        pytest.param(EVERY_STEP, id="save"),
        pytest.param("checkpoint.every_minutes=60", id="metrics", marks=pytest.mark.full),
    ],
)
def test_full_disk(shards: Path, tmp_path: Path, undisturbed: Run, disk: Path, saves: str) -> None:
    """In a save, and where only lines are added to metrics.jsonl."""
    job = _job(disk, tmp_path, shards, saves, cause=functools.partial(slow_reader, 1))
    job.until(lambda: job.run.steps() >= 3)
    filler = fill(disk)
    codes = job.wait()
    assert codes[0] == 2 and codes[1] in (2, 3), job.text()
    assert "No space left on device" in _line(job) and str(disk) in _line(job)
    assert not job.run.finished
    again = _job(disk, tmp_path / "full", shards, saves)  # nobody made room
    assert 2 in again.wait(), again.text()
    assert any("No space left on device" in line for line in again.text().splitlines() if line.startswith("error: "))
    filler.unlink()
    last = _job(disk, tmp_path / "free", shards, saves)
    assert last.wait() == [0, 0], last.text()
    assert_same_end(last.run, undisturbed)


@pytest.mark.full
def test_read_only_disk(shards: Path, tmp_path: Path, undisturbed: Run, disk: Path) -> None:
    """Before the run begins, and where it wants to go on."""
    job = _job(disk, tmp_path / "one", shards, EVERY_STEP, "data.threads=1")
    job.until(lambda: job.run.steps() >= 3)
    job.signal(signal.SIGTERM)
    assert job.wait() == [0, 0], job.text()
    read_only(disk)
    for name, folder in (("again", disk), ("new", disk / "new")):
        refused = _job(folder, tmp_path / name, shards)
        assert refused.wait() == [2, 2], refused.text()
        assert "cannot be written (Read-only file system); mend that or give another run.dir" in _line(refused)
    read_only(disk, False)
    last = _job(disk, tmp_path / "last", shards)
    assert last.wait() == [0, 0], last.text()
    assert_same_end(last.run, undisturbed)


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(name, marks=pytest.mark.full) for name in ("cut", "empty"))]
)
def test_newest_checkpoint_damaged(shards: Path, tmp_path: Path, undisturbed: Run, damage: str) -> None:
    job = Job(arguments(tmp_path, shards, *LENGTH, EVERY_STEP), tmp_path, 2)
    job.until(lambda: job.run.steps() >= 4 and len(job.run.saved()) >= 2)
    job.kill()
    newest, dice = job.run.saved()[-1], random.Random(damage)
    data = bytearray(newest.read_bytes())
    place = data.find(b"\x80") + dice.randrange(len(data) // 2)  # among the tensors: headers have unused bytes
    data[place] ^= 1 << dice.randrange(8)
    newest.write_bytes({"cut": data[: dice.randrange(len(data))], "flipped": data, "empty": b""}[damage])
    last = Job(arguments(tmp_path, shards, *LENGTH), tmp_path, 2)
    assert last.wait() == [0, 0], last.text()
    assert last.text().count(f"{newest.name}: broken checkpoint") == 1 and "goes on from" in last.text()
    assert_same_end(last.run, undisturbed)


def _other(folder: Path) -> Path:
    """A shard of the same size and other sound."""
    path = folder / "tiny-1.tar"
    data, opened = bytearray(path.read_bytes()), shard_sets.open_set(folder)
    for row in opened.rows[opened.rows["shard"] == 1]:
        begin = int(row["offset"])
        data[begin : begin + int(row["size"])] = np.random.default_rng(0).bytes(int(row["size"]))
    other = folder.parent / "other.tar"
    other.write_bytes(data)
    return other


@pytest.mark.parametrize(
    "how", ["written over", *(pytest.param(how, marks=pytest.mark.full) for how in ("renamed over", "cut"))]
)
def test_shard_replaced_under_a_run(shards: Path, tmp_path: Path, undisturbed: Run, how: str) -> None:
    """Noticed in one line, or harmless: never other samples without a word."""
    copy = Path(shutil.copytree(shards, tmp_path / "data/shards"))
    path = copy / "tiny-1.tar"
    whole, other = path.read_bytes(), _other(copy)

    def replace() -> None:
        if how == "renamed over":
            other.replace(path)
        elif how == "written over":
            path.write_bytes(other.read_bytes())
        else:
            path.write_bytes(whole[: len(whole) // 2])

    mark = tmp_path / "replaced"
    job = Job(arguments(tmp_path, copy, *LENGTH, EVERY_STEP), tmp_path, 2, functools.partial(_waits, mark))
    job.until(lambda: job.run.steps() >= 3)
    replace()
    mark.touch()
    codes = job.wait()
    if codes != [0, 0]:
        assert 2 in codes, job.text()
        assert "tiny-1.tar: " in (line := _line(job, codes.index(2))) and "restore it, or index again" in line
        assert "bad sample" not in job.text()
        path.write_bytes(whole)
        job = Job(arguments(tmp_path, copy, *LENGTH), tmp_path, 2)
        assert job.wait() == [0, 0], job.text()
    assert_same_end(job.run, undisturbed)


def _waits(mark: Path, number: int) -> None:
    """Each rank goes on behind its third step when it is told."""

    def wait() -> None:
        while not mark.exists():
            pass

    at_step(number, 4, wait, number)


def test_index_replaced_under_a_run(shards: Path, tmp_path: Path, undisturbed: Run) -> None:
    """As `make_shards index` does, by renaming: the run keeps what it opened. Going on with another is refused."""
    copy = Path(shutil.copytree(shards, tmp_path / "data/shards"))
    mark = tmp_path / "replaced"
    job = Job(arguments(tmp_path, copy, *LENGTH, EVERY_STEP), tmp_path, 2, functools.partial(_waits, mark))
    job.until(lambda: job.run.steps() >= 3)
    fewer = Path(shutil.copytree(shards, tmp_path / "fewer/shards"))
    (fewer / "tiny-1.tar").unlink()
    (fewer / "index.json").unlink()
    shard_sets.build(fewer, workers=1)
    for file in fewer.glob("*.np*"):
        file.replace(copy / file.name)
    (fewer / "index.json").replace(copy / "index.json")
    mark.touch()
    assert job.wait() == [0, 0], job.text()
    assert_same_end(job.run, undisturbed)
    more = Job(arguments(tmp_path, copy, *LENGTH, f"run.max_steps={STEPS + 4}"), tmp_path, 2)
    first, other = more.wait()
    assert first == 2 and other in (2, 3), more.text()  # it may still be joining when rank 0 leaves
    assert "tiny-1.tar: not in the index" in _line(more)
