"""Packing from a store and to one, index and check there: the same bytes as in a folder, whatever is killed between."""

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from servers import Seaweed

from dist_train import check
from dist_train.archive import scanned
from dist_train.assembly.options import Options
from dist_train.packing import pack
from dist_train.stores import indexing, scratch
from dist_train.stores.bucket import Bucket
from dist_train.stores.part import Part

RATE = 8000
Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table of thirty clips of 0.3 s in three classes, the last two of equal bytes; folds are for packing to make."""
    root = tmp_path / "in"
    (root / "audio").mkdir(parents=True)
    for number in range(30):
        noise = np.random.default_rng(min(number, 28)).uniform(-0.5, 0.5, 2400)
        soundfile.write(root / f"audio/{number}.wav", noise, RATE)
    rows = "".join(f"audio/{number}.wav,class {number % 3}\n" for number in range(30))
    (root / "table.csv").write_text(f"path,label\n{rows}")
    return root


@pytest.fixture
def place(seaweed: Seaweed) -> str:
    """An address that is this test's own."""
    return f"s3://clips/{time.monotonic_ns()}"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where scratch folders are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def start(root: Path, environment: dict[str, str], place: str, temporary: Path) -> Run:
    def call(*arguments: object, **chosen: Any) -> subprocess.Popen[str]:
        line = [sys.executable, str(root / "tools/make_shards.py"), *map(str, arguments)]
        return subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **chosen
        )

    return call


def put(folder: Path, address: str) -> None:
    bucket = Bucket(address)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            bucket.put(path.relative_to(folder).as_posix(), path)


def options(**chosen: Any) -> Options:
    return Options(**{"sample_rate": RATE, "workers": 1, "shard_mb": 0.03, "patience": 20.0, **chosen})


def sums(place: Path | str) -> dict[str, str]:
    """Checksums of tars and index, in a folder or a store."""
    if isinstance(place, Path):
        files = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    else:
        bucket = Bucket(place)
        files = {name: bucket.read(name) for name in bucket.sizes() if "/" not in name}
    return {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}


def last_line(process: subprocess.Popen[str], code: int) -> str:
    """What a command that was refused said, which is one line."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert len(said.splitlines()) == 1, said
    return said.strip()


def test_a_store_gets_the_bytes_that_a_folder_gets(source: Path, place: str, tmp_path: Path, temporary: Path) -> None:
    """By a table in a store, by a folder's table, and once more onto what is there."""
    put(source, f"{place}/raw")
    mine = pack(source, tmp_path / "out", options())
    there = [pack(one, f"{place}/out", options()) for one in (source, source)]
    other = pack(f"{place}/raw/table.csv", f"{place}/other", options(workers=2))
    assert sums(f"{place}/out") == sums(f"{place}/other") == sums(tmp_path / "out")
    assert mine.shards == other.shards > 3
    assert mine.folds == other.folds
    assert [report.kept for report in there] == [0, mine.shards]
    assert list(temporary.iterdir()) == []


def test_recordings_that_do_not_fit_scratch_are_fetched_again(
    source: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(source, place)
    monkeypatch.setattr(scratch, "free", lambda: 0)
    pack(source / "table.csv", tmp_path / "mine", options())
    pack(f"{place}/table.csv", tmp_path / "theirs", options())
    assert sums(tmp_path / "mine") == sums(tmp_path / "theirs")


def test_a_part_reads_no_more_than_headers_of_what_others_pack(
    source: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a WAV whose header is behind its first bytes, and of one that is cut."""
    for number in range(30):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 5 * RATE)
        soundfile.write(source / f"audio/{number}.wav", noise, RATE)
    raw = (source / "audio/4.wav").read_bytes()
    late = raw[:12] + b"LIST" + (40000).to_bytes(4, "little") + bytes(40000) + raw[12:]
    (source / "audio/4.wav").write_bytes(late)
    (source / "audio/7.wav").write_bytes(raw[:-9000])
    names = [f"audio/{number}.wav" for number in range(30)]
    (source / "table.csv").write_text("path,label,fold\n" + "".join(f"{name},a,0\n" for name in names))
    put(source, f"{place}/raw")
    fetched: list[str] = []
    fetch = Bucket.download
    monkeypatch.setattr(Bucket, "download", lambda self, name, path: fetched.append(name) or fetch(self, name, path))
    for one in (1, 2, 3):
        fetched.clear()
        pack(f"{place}/raw", tmp_path / "parts", options(part=Part(one, 3), shard_mb=0.3))
        assert len(fetched) < 20
        assert {"table.csv", "audio/4.wav", "audio/7.wav"} <= set(fetched)
    mine = pack(source, tmp_path / "mine", options(shard_mb=0.3))
    assert [name for name, _ in mine.unreadable] == ["audio/7.wav"]
    for name in ("parts", "mine"):
        indexing.build(tmp_path / name, 1)
    assert sums(tmp_path / "parts") == sums(tmp_path / "mine")


def test_an_index_in_a_store_reads_only_the_tars_that_it_does_not_know(
    source: Path, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(source, place, options())
    whole, bucket, scanned_anew = sums(place), Bucket(place), []
    put_back = bucket.read("shard-000001.tar")
    fetch = Bucket.download
    monkeypatch.setattr(
        Bucket, "download", lambda self, name, path: scanned_anew.append(name) or fetch(self, name, path)
    )
    bucket.delete("index.json")
    indexing.build(place, 1)
    assert (sums(place), scanned_anew) == (whole, [])
    bucket.delete(".packing/shard-000000.scan")
    bucket.put("shard-000001.tar", put_back[:-1] + b"\1")  # the same size, other bytes
    with pytest.raises(ValueError, match=rf"{place}/shard-000001.tar, byte \d+"):
        indexing.build(place, 1)
    assert scanned_anew == ["shard-000000.tar", "shard-000001.tar"]


def test_check_names_damage_in_a_store(source: Path, place: str, start: Run, temporary: Path) -> None:
    pack(source, place, options())
    assert check.check(place) == []
    bucket = Bucket(place)
    last = max(name for name in bucket.sizes() if name.endswith(".tar"))
    data = bytearray(bucket.read(last))
    row = np.load(io.BytesIO(bucket.read("index.npy")))[-1]
    data[int(row["offset"])] ^= 1
    bucket.put(last, bytes(data))
    bucket.delete("shard-000000.tar")
    process = start("check", place)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "shard-000000.tar: in the index but not in the store" in said
    assert f"{last}, byte" in said and "its audio is not what was indexed" in said
    assert str(temporary) not in out + said


@pytest.mark.parametrize(
    ("of", "to", "message"),
    [
        ("http://127.0.0.1:1/raw", "out", "a web server does not list its files"),
        ("in", "http://127.0.0.1:1/out", "a web server takes no objects"),
        ("s3://clips/a", "s3://clips/a/b", "lies inside the source"),
        ("s3://clips/a", "s3://clips/ab", "s3://clips/a: no objects there"),
        ("in", "s3:/clips/out", "not an address"),
        ("s3:/clips/in", "out", "not an address"),
        ("s3://clips/there-is-nothing", "out", "s3://clips/there-is-nothing: no objects there"),
        ("s3://clips/there-is-nothing/table.csv", "out", "s3://clips/there-is-nothing: no objects there"),
    ],
)
def test_places_that_cannot_be(source: Path, seaweed: Seaweed, tmp_path: Path, of: str, to: str, message: str) -> None:
    of, to = (one if ":/" in one else str(tmp_path / one) for one in (of, to))
    with pytest.raises(ValueError, match=message):
        pack(of, to, options())
    assert not (tmp_path / "out").exists()


def test_a_store_with_other_shards_is_refused(source: Path, place: str) -> None:
    Bucket(place).put("theirs.tar", b"tar")
    with pytest.raises(ValueError, match="holds shards that are not of this packing"):
        pack(source, place, options())
    pack(source, f"{place}/own", options())
    with pytest.raises(ValueError, match="holds another packing"):
        pack(source, f"{place}/own", options(codec="mulaw"))


def test_errors_of_a_source_name_the_store(source: Path, place: str, temporary: Path) -> None:
    (source / "table.csv").write_text("path,label\naudio/0.wav,a\naudio/none.wav,b\n")
    put(source, place)
    message = f"^{place}/table.csv line 3: there is no file {place}/audio/none.wav"
    with pytest.raises(ValueError, match=message) as error:
        pack(f"{place}/table.csv", f"{place}/out", options())
    assert str(temporary) not in str(error.value)


@pytest.mark.full
def test_a_store_that_stays_down_ends_a_packing_that_goes_on_later(
    source: Path, place: str, start: Run, seaweed: Seaweed, tmp_path: Path
) -> None:
    """Killed once its first shard is there; up again for the same command."""
    (source / "table.csv").write_text(
        "path,label,start,end\n"
        + "".join(f"audio/{cut % 30}.wav,class {cut % 3},0.0{cut // 30 + 10},0.3\n" for cut in range(150))
    )
    words = ("pack", source, place, "--sample-rate", RATE, "--shard-mb", 0.02, "--workers", 1, "--patience")
    Bucket(f"{place}-other").put("warm", b"")  # a new server makes room at first
    try:
        process = start(*words, 4)
        until = time.monotonic() + 60
        while ".packing/shard-000000.json" not in Bucket(place).sizes():
            assert process.poll() is None and time.monotonic() < until, process.communicate(timeout=60)
            time.sleep(0.01)
        seaweed.kill()
        assert "no answer in 4 s" in last_line(process, 2)
    finally:
        seaweed.start()
    again = start(*words, 60)
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "were there before" in out
    pack(source, tmp_path / "out", options(shard_mb=0.02))
    assert sums(place) == sums(tmp_path / "out")


def test_a_store_that_comes_back_is_waited_for(source: Path, place: str, seaweed: Seaweed, tmp_path: Path) -> None:
    put(source, f"{place}/raw")
    back = threading.Timer(1.0, seaweed.start)
    seaweed.kill()
    back.start()
    pack(f"{place}/raw", f"{place}/out", options(patience=60.0))
    back.join()
    pack(source, tmp_path / "out", options())
    assert sums(f"{place}/out") == sums(tmp_path / "out")


def test_full_scratch_is_one_line(source: Path, place: str, start: Run, temporary: Path) -> None:
    """A limit on the size of a file fails a write as a full disk does."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))  # noqa: E731
    said = last_line(start("pack", source, place, "--sample-rate", RATE, preexec_fn=limit), 2)
    assert f"scratch in {temporary}: cannot be written" in said and "TMPDIR" in said
    assert [name for name in Bucket(place).sizes() if name.endswith(".tar")] == []


def test_scratch_of_a_killed_process_is_removed(temporary: Path) -> None:
    left, young = temporary / f"{scratch.PREFIX}left", temporary / f"{scratch.PREFIX}young"
    for folder in (left, young):
        (folder / "work").mkdir(parents=True)
    with scratch.folder() as held:
        for folder in (left, held.parent):
            os.utime(folder, (0, 0))
        with scratch.folder():
            assert not left.exists() and young.exists() and held.exists()
    assert list(temporary.iterdir()) == [young]


def test_a_damaged_scan_is_no_scan(tmp_path: Path, source: Path) -> None:
    pack(source, tmp_path / "out", options(part=Part(1, 2)))
    path = next((tmp_path / "out/.packing").glob("*.scan"))
    state = scanned.on_disk(tmp_path / f"out/{path.stem}.tar")
    names = json.loads(json.dumps(["class 0", "class 1", "class 2"]))
    key = scanned.key(names, (), 100)
    assert scanned.load(path, key, state) is not None
    assert scanned.load(path, key, (state[0], "0")) is None
    assert scanned.load(path, scanned.key(names, ["a"], 100), state) is None
    whole = path.read_bytes()
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert scanned.load(path, key, state) is None
        path.write_bytes(whole[:place])
        assert scanned.load(path, key, state) is None
