"""Several hosts and a run's folder: shared and proved, or said to be rank 0's alone, or copied to a store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from launches import PATIENCE, Job, arguments, fork, train
from pytest import MonkeyPatch

from dist_train import shared
from dist_train.hosts import owner
from dist_train.hosts.owner import FileMark, Owner
from dist_train.runs import RunFolder
from dist_train.world import start


def _proof(folder: Path, together: bool) -> int:
    """A host that looks at its folder."""
    here = start(30.0)
    shared._WAIT = 3.0
    try:
        (shared.prove if together else shared.alone)(here, folder)
    except ValueError as error:
        print(error)
        return 2
    return 0


def _hosts(tmp_path: Path, folders: list[Path], together: bool) -> tuple[list[int], list[str]]:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    outputs = [tmp_path / f"said-{number}.txt" for number in range(len(folders))]
    for output in outputs:
        output.unlink(missing_ok=True)
    ranks = fork(_proof, [[folder, together] for folder in folders], outputs, hosts=True)
    for rank in ranks:
        rank.join(PATIENCE)
    return [rank.exitcode for rank in ranks], [output.read_text() for output in outputs]


def test_a_token_proves_that_hosts_share_a_folder(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert _hosts(tmp_path, [one, one, one], True) == ([0, 0, 0], ["", "", ""])
    assert list(one.iterdir()) == []  # the token is gone
    codes, said = _hosts(tmp_path, [one, other, one], True)
    assert codes == [2, 2, 2]
    assert all("not shared by all hosts" in text and text.count("\n") == 1 for text in said)
    assert all("checkpoint.store" in text and "run.shared=false" in text for text in said)


def test_an_unshared_folder_belongs_to_the_host_with_the_newest_checkpoint(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert _hosts(tmp_path, [one, other], False)[0] == [0, 0]
    (one / "checkpoints").mkdir()
    (one / "checkpoints/step-00000007.pt").touch()
    assert _hosts(tmp_path, [one, other], False)[0] == [0, 0]
    codes, said = _hosts(tmp_path, [other, one], False)  # rank 0 has moved
    assert codes == [2, 2]
    assert all("the newest checkpoint (step 7) lies on" in text and text.count("\n") == 1 for text in said)


def test_two_hosts_train_on_a_folder_that_they_share(shards: Path, tmp_path: Path) -> None:
    job = Job(arguments(tmp_path, shards, "run.max_steps=2"), tmp_path, 2, hosts=True)
    assert job.wait() == [0, 0], job.text()
    assert not list(job.run.folder.glob(".token*"))


@pytest.fixture
def quick(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.1)
    monkeypatch.setattr(owner, "STILL", 1.5)


def _other(path: Path, beats: int) -> bytes:
    """The mark of a job on another host."""
    record = {"token": "theirs", "host": "elsewhere", "pid": 7, "since": "today", "command": "train", "beat": beats}
    return json.dumps(record).encode().ljust(1024)


def test_a_job_on_another_host_is_refused_while_its_mark_moves(tmp_path: Path, quick: None) -> None:
    """Where a lock does not reach the other host, the lock is free and the mark is all there is."""
    code = (
        "import sys, time\nfrom pathlib import Path\nbeat = 0\nwhile True:\n    beat += 1\n"
        f"    Path(sys.argv[1]).write_bytes({_other(tmp_path, 0)!r}.replace(b'beat\": 0', b'beat\": %d' % beat))\n"
        "    print(beat, flush=True)\n    time.sleep(0.1)"
    )
    mark = tmp_path / ".owner"
    there = subprocess.Popen([sys.executable, "-c", code, str(mark)], stdout=subprocess.PIPE, text=True)
    folder = RunFolder(tmp_path)
    try:
        assert there.stdout is not None and there.stdout.readline() == "1\n"
        with pytest.raises(ValueError, match=r"in use by process 7 on elsewhere since today \(train\); wait for it"):
            folder.open()
    finally:
        there.kill()
        there.wait()
    mark.write_bytes(_other(tmp_path, 3))  # the last that it wrote
    folder.open()  # it stands still: dead
    assert json.loads(mark.read_bytes())["host"] != "elsewhere" and folder.before == "theirs"
    folder.close()
    assert not mark.exists()


def test_a_job_whose_place_is_taken_over_is_told(tmp_path: Path, quick: None) -> None:
    first = Owner(FileMark(tmp_path / "mark"), "first")
    first.claim(lambda found: False)
    (tmp_path / "mark").write_bytes(_other(tmp_path, 1))
    end = time.monotonic() + PATIENCE
    while not first.taken and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(ValueError, match="taken over by process 7 on elsewhere"):
        first.check()
    first.release()
    assert b"theirs" in (tmp_path / "mark").read_bytes()  # not ours to remove


def test_a_disk_without_locks_is_guarded_by_the_mark(tmp_path: Path, quick: None, monkeypatch: MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def lockless(*_: object) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(fcntl, "flock", lockless)
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.open()
    with pytest.raises(ValueError, match="in use by process"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_job_that_lost_its_folder_stops(shards: Path, tmp_path: Path) -> None:
    job = Job(arguments(tmp_path, shards, "run.max_steps=5000"), tmp_path)
    job.until(lambda: job.run.steps() >= 1)
    (job.run.folder / ".owner").write_bytes(_other(tmp_path, 1))
    assert job.wait() == [2]
    assert job.text().splitlines()[-1].startswith(f"error: {job.run.folder}: taken over by process 7 on elsewhere")
    (job.run.folder / ".owner").unlink()
    assert train(tmp_path, shards, f"run.max_steps={job.run.steps() + 1}").finished


def test_killed_jobs_leave_no_folder_that_must_be_waited_for(shards: Path, tmp_path: Path) -> None:
    job = Job(arguments(tmp_path, shards, "run.max_steps=5000"), tmp_path)
    job.until(lambda: job.run.steps() >= 1)
    job.signal(signal.SIGKILL)
    job.kill()
    assert (job.run.folder / ".owner").exists()
    begun = time.monotonic()
    folder = RunFolder(job.run.folder)
    folder.open()
    assert time.monotonic() - begun < owner.STILL
    folder.close()


def test_ranks_that_are_started_anew_wait_for_those_of_the_same_job(tmp_path: Path, quick: None) -> None:
    """A cut-off rank 0 lives until run.timeout; the rank 0 that takes its place on another host needs its folder."""
    before, after, other = (RunFolder(tmp_path, job) for job in ("job 1", "job 1", "job 2"))
    before.open()
    with pytest.raises(ValueError, match="in use by"):
        other.open(PATIENCE)  # at once
    threading.Timer(1.0, before.close).start()
    after.open(PATIENCE)
    after.close()
