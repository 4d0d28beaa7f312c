"""A run whose folder is copied to an object store: a real server on loopback, machines that are lost."""

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from launches import Job, arguments, train
from same import assert_same_end
from servers import BUCKET, Seaweed

from dist_train.hosts import mirror, owner
from dist_train.hosts.mirror import Mirror
from dist_train.stores.bucket import Bucket

LENGTH = ("run.max_steps=24", "evaluation.every_epochs=7", "data.valid_folds=[2]")
EVERY_STEP = "checkpoint.every_minutes=1e-6"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT", 0.2)
    monkeypatch.setattr(owner, "STILL", 2.0)


def _job(home: Path, shards: Path, address: str, *overrides: str, ranks: int = 1) -> Job:
    given = arguments(home, shards, *LENGTH, f"checkpoint.store={address}", *overrides)
    return Job(given, home, ranks)


def _names(address: str) -> set[str]:
    return {name for name in Bucket(address).sizes() if not name.startswith("checkpoints/old/")}


def test_a_fresh_machine_goes_on_from_the_store(shards: Path, seaweed: Seaweed, tmp_path: Path) -> None:
    undisturbed = train(tmp_path / "undisturbed", shards, *LENGTH)
    address = f"s3://{BUCKET}/fresh"
    first = _job(tmp_path / "one", shards, address, EVERY_STEP)
    first.until(lambda: first.run.steps() >= 5)
    first.signal(signal.SIGTERM)
    assert first.wait() == [0], first.text()
    stopped = first.run.steps()
    assert {"metrics.jsonl", "config.yaml", f"checkpoints/step-{stopped:08d}.pt"} <= _names(f"{address}/tiny")
    assert not {"result.json", "owner.json", ".lock", ".owner"} & _names(f"{address}/tiny")
    shutil.rmtree(tmp_path / "one")

    second = _job(tmp_path / "two", shards, address)
    assert second.wait() == [0], second.text()
    assert f"fetched the run from {address}/tiny" in second.text()
    assert f"goes on from {second.run.folder}/checkpoints/step-{stopped:08d}.pt" in second.text()
    assert_same_end(second.run, undisturbed)
    here = {path.relative_to(second.run.folder).as_posix() for path in second.run.folder.rglob("*") if path.is_file()}
    there = _names(f"{address}/tiny")
    assert there == {name for name in here if not name.startswith(".") and "/old/" not in name}
    for name in ("result.json", "metrics.jsonl", "checkpoints/best.json", "config.yaml"):
        assert Bucket(f"{address}/tiny").read(name) == (second.run.folder / name).read_bytes()


def test_a_store_that_is_down_costs_one_warning(seaweed: Seaweed, tmp_path: Path, quick: None) -> None:
    folder, lines = tmp_path / "run", list[str]()
    folder.mkdir()
    copy = Mirror(folder, f"s3://{BUCKET}/down", lines.append, 30.0)
    copy.claim("mine", "")
    (folder / "metrics.jsonl").write_text("1\n")
    copy.flush()
    seaweed.kill()
    copy.bucket.patience = 1.0
    try:
        for text in ("2\n", "3\n"):
            (folder / "metrics.jsonl").write_text(text)
            with pytest.raises(ValueError, match=r"down: the run's folder is not copied there whole \(.*the same"):
                copy.flush()
        assert len(lines) == 1 and "the next save tries again" in lines[0]
    finally:
        seaweed.start()
    copy.bucket.patience = 30.0
    copy.flush()
    assert copy.bucket.read("metrics.jsonl") == b"3\n"
    copy.close()


def test_rotation_and_abandoned_lines(seaweed: Seaweed, tmp_path: Path, quick: None) -> None:
    address, folder = f"s3://{BUCKET}/rotation", tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    copy = Mirror(folder, address, pytest.fail, 30.0)
    copy.claim("mine", "")
    for step in (1, 2, 3):
        (folder / f"checkpoints/step-{step:08d}.pt").write_bytes(b"state")
        (folder / f"checkpoints/step-{step - 2:08d}.pt").unlink(missing_ok=True)
        (folder / "checkpoints/.step.pt.tmp").touch()
        (folder / "result.json").write_text(str(step))
        copy.flush()
    (folder / "result.json").unlink()
    copy.flush()
    kept = {"checkpoints/step-00000002.pt", "checkpoints/step-00000003.pt", "owner.json"}
    assert set(Bucket(address).sizes()) == kept
    copy.drop(2)
    kept = kept - {"checkpoints/step-00000003.pt"} | {"checkpoints/old/step-00000003.pt"}
    assert set(Bucket(address).sizes()) == kept
    copy.close()
    assert set(Bucket(address).sizes()) == kept - {"owner.json"}


def test_what_the_store_holds_is_not_trusted(seaweed: Seaweed, tmp_path: Path, quick: None) -> None:
    """A broken newest checkpoint is named and left, names that lead out of the folder too."""
    address, lines = f"s3://{BUCKET}/odd", []
    bucket = Bucket(address)
    for name in ("checkpoints/step-00000009.pt", "checkpoints/step-x.pt", ".lock", "notes.txt"):
        bucket.put(name, b"no checkpoint")
    copy = Mirror(tmp_path / "run", address, lines.append, 30.0)
    assert not copy.fetch()
    assert len(lines) == 1 and "step-00000009.pt: broken checkpoint; skipped" in lines[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not any(map(mirror._plain, ("../x", "a/../../x", "/x", ".owner", "a\\b", "owner.json", "checkpoints/old/x")))
    copy.close()


def test_two_jobs_on_one_address(seaweed: Seaweed, tmp_path: Path, quick: None) -> None:
    address = f"s3://{BUCKET}/claimed"
    first, second = (Mirror(tmp_path / name, address, print, 30.0) for name in ("one", "two"))
    first.claim("first", "")
    with pytest.raises(ValueError, match=rf"claimed: in use by process {os.getpid()} on {socket.gethostname()} since"):
        second.claim("second", "")
    first.close()
    second.claim("second", "")
    second.close()
    Bucket(address).put("owner.json", json.dumps({"token": "dead", "host": "h", "pid": 1}).encode())
    third = Mirror(tmp_path / "three", address, print, 30.0)
    begun = time.monotonic()
    third.claim("third", "dead")  # of the job whose folder we hold the lock of: no need to watch
    assert time.monotonic() - begun < owner.STILL
    third.close()
    Bucket(address).put("owner.json", json.dumps({"token": "dead", "host": "h", "pid": 1}).encode())
    fourth = Mirror(tmp_path / "four", address, print, 30.0)
    fourth.claim("fourth", "")  # it stands still
    fourth.close()


@pytest.mark.parametrize("address", ["runs", "https://host/runs"])
def test_an_address_that_cannot_be_written(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="no store that can be written; give s3://"):
        Mirror(tmp_path, address, print, 1.0)


@pytest.mark.cluster
def test_a_machine_that_is_lost_while_the_store_restarts(shards: Path, seaweed: Seaweed, tmp_path: Path) -> None:
    """kill -9, the folder gone, a second job meanwhile refused, the server killed between: the same stream."""
    address = f"s3://{BUCKET}/lost"
    undisturbed = train(tmp_path / "undisturbed", shards, *LENGTH, ranks=2)
    long = "run.epochs=5000"  # it must not end by itself before it is killed
    often = (EVERY_STEP, long, "run.max_steps=3000", "data.patience=2")
    first = _job(tmp_path / "one", shards, address, *often, ranks=2)
    first.until(lambda: first.run.steps() >= 4)
    rival = _job(tmp_path / "rival", shards, address)
    assert rival.wait() == [2] and f"{address}/tiny: in use by process" in rival.text()
    seaweed.kill()
    try:
        first.until(lambda: "the next save tries again" in first.text())
        seen = first.run.steps()
    finally:
        seaweed.start()
    bucket = Bucket(f"{address}/tiny")
    first.until(lambda: _newest(bucket) > seen)
    first.kill()
    at = _newest(bucket)
    shutil.rmtree(tmp_path / "one")
    second = _job(tmp_path / "two", shards, address, long, f"run.max_steps={max(at, 24) + 3}", ranks=2)
    assert second.wait() == [0, 0], second.text()
    assert second.run.column("step") == list(range(1, max(at, 24) + 4))
    assert second.run.column("stream")[:24] == undisturbed.column("stream")
    assert second.run.finished


def _newest(bucket: Bucket) -> int:
    return max((mirror._step(name) for name in bucket.sizes()), default=-1)
