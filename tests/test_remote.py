"""Sets of shards at an address: the index is kept, damage is refused, and training is that of local disk, bit for bit,
also where the store goes away for a while."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import Faulty
from launches import Job, Run, arguments, make_shards, settings, train
from same import assert_same_end
from servers import Nginx, Seaweed
from stores import train_through_restarts, upload, window_bytes

from dist_train import feed, shards
from dist_train.stores import remote
from dist_train.stores.bucket import Bucket

SIDE = ("index.npy", "activity.npy", "keys.npy", "keys.bin")
LENGTH = ("run.epochs=3", "optim.ema=0.9", "checkpoint.every_minutes=1e-6")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def server(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A web server of a copy of the shards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(local, tmp_path / "served")
    with Faulty(tmp_path / "served") as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(local: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two ranks on the local shards."""
    return train(tmp_path_factory.mktemp("undisturbed"), local, *LENGTH, ranks=2)


def one_line(text: str, *told: str) -> None:
    """What a job said of its end: each rank at most one line, and no traceback."""
    lines = [line for line in text.splitlines() if "error:" in line]
    assert lines and all(word in lines[0] for word in told) and "Traceback" not in text, text


# -- the index


def test_the_index_is_fetched_once_and_kept(server: Faulty, local: Path) -> None:
    one, there = shards.open_set(local), shards.open_set(server.address)
    assert (there.rows == one.rows).all() and (there.activity == one.activity).all()
    assert there.fingerprint == one.fingerprint and there.key(7) == one.key(7) and there.root == server.address
    assert {server.seen[name] for name in (*SIDE, "index.json")} == {1}
    for name in ("", "/", "/index.json"):
        assert shards.open_set(server.address + name).root == server.address
    assert {server.seen[name] for name in (*SIDE, "index.json")} == {1}


def test_one_fetch_a_host(server: Faulty) -> None:
    server.delay = 0.02
    found: list[shards.ShardSet] = []
    threads = [threading.Thread(target=lambda: found.append(shards.open_set(server.address))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and {server.seen[name] for name in (*SIDE, "index.json")} == {1}


def test_another_index_at_the_address_is_noticed(server: Faulty) -> None:
    before = shards.open_set(server.address)
    for path in server.folder.iterdir():
        path.unlink()
    make_shards(server.folder, "FLAC")
    after = shards.open_set(server.address)
    assert after.fingerprint != before.fingerprint and len(after) == len(before)
    assert (before.rows["codec"] != after.rows["codec"]).all()  # the old map is still whole


def test_a_kept_file_that_was_cut_is_fetched_again(server: Faulty, tmp_path: Path) -> None:
    shards.open_set(server.address)
    kept = next((tmp_path / "cache").rglob("index.npy"))
    kept.write_bytes(kept.read_bytes()[:100])
    shards.open_set(server.address)
    assert server.seen["index.npy"] == 2 and server.seen["keys.npy"] == 2


@pytest.mark.parametrize("name", SIDE)
def test_a_file_that_does_not_fit_is_refused(server: Faulty, name: str, tmp_path: Path) -> None:
    path = server.folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: does not fit index\.json") as caught:
        shards.open_set(server.address)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("index.json"))
    path.unlink()
    with pytest.raises(ValueError, match=rf"{name}: is not there"):
        shards.open_set(server.address)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ({"version": 99}, "index format 99"),
        ({"files": {"../evil": {"bytes": 1, "sha256": "0" * 64}}}, "`files` is damaged"),
        ({"files": {"evil": {"bytes": 1, "sha256": "0" * 64}}}, "names a file 'evil'"),
        ({"totals": {"samples": 11, "seconds": 1}}, "11 samples in all, 60 in its shards"),
    ],
)
def test_an_index_that_is_wrong(server: Faulty, edit: dict[str, Any], text: str) -> None:
    path = server.folder / "index.json"
    info = json.loads(path.read_text())
    parts = {name: info[name] | part if isinstance(part, dict) else part for name, part in edit.items()}
    path.write_text(json.dumps(info | parts))
    with pytest.raises(ValueError, match=text):
        shards.open_set(server.address)


def test_nothing_there(server: Faulty) -> None:
    with pytest.raises(ValueError, match="no shards with an index there: python tools/make_shards"):
        shards.open_set(f"{server.address}/nowhere")
    server.stop()
    with pytest.raises(ConnectionError, match=r"no answer in 0\.5 s"):
        shards.open_set(server.address, patience=0.5)
    server.start()


def test_a_file_in_the_place_of_the_folder(server: Faulty, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"set data\.cache_dir or XDG_CACHE_HOME"):
        shards.open_set(server.address, keep=tmp_path / "file")
    with pytest.raises(ValueError, match=r"/proc/x/index: .*: set data\.cache_dir"):
        shards.open_set(server.address, keep=Path("/proc/x"))


def test_shards_that_the_store_lists(seaweed: Seaweed, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RECENT", -1.0)
    address = upload(local, "listed")
    assert len(shards.open_set(address)) == 60
    bucket, tar = Bucket(address), (local / "tiny-1.tar").read_bytes()
    for change, text in (
        (lambda: bucket.put("tiny-3.tar", tar), r"tiny-3\.tar: not in the index"),
        (
            lambda: (bucket.delete("tiny-3.tar"), bucket.put("tiny-1.tar", tar[:-1])),
            rf"{len(tar) - 1} bytes, the index",
        ),
        (lambda: bucket.delete("tiny-1.tar"), r"tiny-1\.tar: in the index but not in the store"),
    ):
        change()
        with pytest.raises(ValueError, match=text):
            shards.open_set(address)


# -- training


def used(data: Path) -> int:
    """Bytes of the windows of the epochs that LENGTH trains."""
    config = settings(data, *LENGTH)
    return window_bytes(feed.views(config).train, config, epochs=3)


def test_two_ranks_on_an_s3_server_that_is_killed_twice(
    seaweed: Seaweed, local: Path, undisturbed: Run, tmp_path: Path
) -> None:
    """Same stream, same weights; the bytes are those of the windows."""
    address = upload(local, "train")
    job = Job(arguments(tmp_path, address, *LENGTH, "data.ahead=1"), tmp_path, ranks=2)
    train_through_restarts(job, seaweed, (1, 3))  # of two an epoch
    assert_same_end(job.run, undisturbed)
    fetched, repeated = sum(job.run.column("fetched_bytes")), sum(job.run.column("store_retries"))
    assert repeated > 0 and "requests repeated" in job.text()
    assert used(local) <= fetched <= 1.05 * used(local)


@pytest.mark.cluster
def test_two_ranks_on_nginx(local: Path, undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes as the server's log counts them: the index's, the windows of training, whole clips of the evaluation."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = Nginx(tmp_path / "nginx", local)
    server.start()
    try:
        job = Job(arguments(tmp_path, server.address, *LENGTH, "data.ahead=1"), tmp_path, ranks=2)
        job.until(lambda: job.run.steps() >= 3)
        server.kill()
        server.start()
        assert job.wait() == [0, 0], job.text()
    finally:
        server.kill()
    assert_same_end(job.run, undisturbed)
    evaluation = feed.views(settings(local)).evaluation
    assert evaluation is not None
    index = sum((local / name).stat().st_size for name in (*SIDE, "index.json"))
    clips = int(evaluation.rows(np.arange(len(evaluation)))["size"].sum())
    sent, answers = server.sent()
    assert used(local) + index < sent <= 1.05 * (used(local) + clips) + index and answers > 50


def test_a_store_that_stays_away_ends_the_run(server: Faulty, local: Path, undisturbed: Run, tmp_path: Path) -> None:
    """One line, exit code 2, no sample called bad; it goes on, from local disk for once."""
    command = arguments(tmp_path, server.address, *LENGTH, "data.patience=4", "data.ahead=1")
    server.fault = lambda name, number: "503" if server.seen["tiny-0.tar"] > 12 else None
    job = Job(command, tmp_path, ranks=2)
    codes = job.wait()
    assert 2 in codes and 0 not in codes
    one_line(job.outputs[codes.index(2)].read_text(), server.address, "no answer in 4 s", "is the store up?")
    assert 0 < job.run.steps() < undisturbed.steps() and not job.run.finished and "bad sample" not in job.text()
    assert_same_end(train(tmp_path, local, *LENGTH, ranks=2), undisturbed)


@pytest.mark.parametrize(
    ("fault", "text"), [("403", "access denied"), ("404", "is not there"), ("replaced", "it was replaced")]
)
def test_a_shard_that_is_lost_or_replaced_under_a_run(server: Faulty, tmp_path: Path, fault: str, text: str) -> None:
    server.fault = lambda name, number: fault if server.seen["tiny-0.tar"] > 12 and name == "tiny-0.tar" else None
    job = Job(arguments(tmp_path, server.address, *LENGTH, "data.ahead=1"), tmp_path)
    assert job.wait() == [2]
    one_line(job.text(), f"{server.address}/tiny-0.tar", text)
    assert job.run.steps() > 0 and "bad sample" not in job.text()


def test_patience_is_shorter_than_the_other_ranks(local: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.patience=40 is over half of run\.timeout=60"):
        settings(local, "data.patience=40")
    assert settings(local).patience == 30 and settings(local, "run.timeout=600").patience == 120
