"""tools/make_shards.py as a person runs it: exit codes, one line for each mistake, killed and started again."""

import hashlib
import io
import json
import re
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from dist_train import shards

RATE = 8000
SLOW = ("--sample-rate", "1000", "--codec", "mulaw", "--shard-mb", "0.2", "--folds", "0", "--workers", "2")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(root: Path) -> list[str]:
    return [sys.executable, str(root / "tools/make_shards.py")]


@pytest.fixture
def run(command: list[str], environment: dict[str, str], tmp_path: Path) -> Run:
    def call(*arguments: str | Path, **chosen: object) -> subprocess.CompletedProcess[str]:
        line = [*command, *map(str, arguments)]
        return subprocess.run(
            line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, **chosen
        )

    return call


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two classes of ten clips."""
    for number in range(20):
        path = tmp_path / f"in/{'yes' if number % 2 else 'no'}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 4000), RATE)
    return tmp_path / "in"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A table of 180 long cuts from one recording: seconds of resampling, few bytes."""
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000 * 40)
    soundfile.write(tmp_path / "in/long.wav", noise, 48000)
    rows = "".join(f"long.wav,class {cut % 3},{cut / 10},{cut / 10 + 20}\n" for cut in range(180))
    (tmp_path / "in/table.csv").write_text(f"path,label,start,end\n{rows}")
    return tmp_path / "in/table.csv"


def sums(dest: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(dest.glob("*.tar"))}


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_pack_index_check(run: Run, source: Path, tmp_path: Path) -> None:
    done = run("pack", source, "out", "--sample-rate", RATE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "read as layout folder" in done.stdout
    assert "classes: no 10, yes 10" in done.stdout
    assert "out: 20 clips, 0.00 hours, 2 classes, 1 shards" in done.stdout
    assert run("check", "out").returncode == 0
    before = (tmp_path / "out/index.json").read_text()
    assert run("index", "out").returncode == 0
    assert json.loads((tmp_path / "out/index.json").read_text())["fingerprint"] == json.loads(before)["fingerprint"]
    with (tmp_path / "out/shard-000000.tar").open("r+b") as file:
        file.seek(30000)
        file.write(b"damage")
    done = run("check", "out")
    assert done.returncode == 1
    assert "shard-000000.tar" in done.stderr
    assert "Traceback" not in done.stderr


def test_index_takes_tars_of_others(run: Run, source: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with tarfile.open(tmp_path / "theirs/x.tar", "w") as tar:
        for number, path in enumerate(sorted(source.glob("*/*.wav"))):
            for suffix, data in (("wav", path.read_bytes()), ("cls", path.parent.name.encode())):
                member = tarfile.TarInfo(f"{number:03d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    assert run("index", "theirs").returncode == 0
    assert shards.open_set(tmp_path / "theirs").classes == ("no", "yes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pack", "nowhere", "out"), "nowhere: there is no such file or folder"),
        (("pack", "in", "out", "--codec", "mp4"), "--codec mp4: is none of pcm16"),
        (("pack", "in", "in/no/1.wav"), "lies inside the source"),
        (("pack", "in", "out", "--classes", "none.txt"), "none.txt: cannot be read"),
        (("pack", "in", "/dev/null/out"), "/dev/null/out: cannot be written (Not a directory); name another folder"),
        (("index", "nowhere"), "nowhere"),
        (("check", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(run: Run, source: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in one_line(run(*arguments), 2)


def test_too_many_unreadable_recordings(run: Run, source: Path) -> None:
    (source / "no/empty.wav").touch()
    done = run("pack", source, "out", "--sample-rate", RATE)
    assert "1 of 21 clips are unreadable, more than 1 %" in one_line(done, 1)
    assert "left out: no/empty.wav: is an empty file" in done.stdout


def test_a_full_disk_is_one_line(run: Run, source: Path, tmp_path: Path) -> None:
    """A limit on the size of a file fails a write as a full disk does."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))  # noqa: E731
    done = run("pack", source, "out", "--sample-rate", RATE, preexec_fn=limit)
    assert "shard-000000.tar: cannot be written" in one_line(done, 2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".packing"]
    assert not list((tmp_path / "out/.packing").glob("*.part"))


def _start(command: list[str], environment: dict[str, str], slow: Path, dest: Path) -> subprocess.Popen[str]:
    """A packing under way: some of its shards are there."""
    # a shell that runs the tests behind `&` has SIGINT ignored
    line = ["env", "--default-signal=INT", *command, "pack", str(slow), str(dest), *SLOW]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(dest.glob("*.tar")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    return process


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_and_started_again(
    run: Run, command: list[str], environment: dict[str, str], slow: Path, tmp_path: Path
) -> None:
    process = _start(command, environment, slow, tmp_path / "out")
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.kill()
    process.communicate()
    left = sums(tmp_path / "out")
    assert not (tmp_path / "out/index.json").exists()
    deadline = time.monotonic() + 30
    while any(map(_alive, workers)):
        assert time.monotonic() < deadline, "the workers outlive their parent"
        time.sleep(0.02)

    assert run("pack", slow, "whole", *SLOW).returncode == 0
    done = run("pack", slow, "out", *SLOW)
    assert done.returncode == 0
    kept = re.search(r"\((\d+) were there before\)", done.stdout)
    assert kept and int(kept[1]) == len(left) < len(sums(tmp_path / "whole"))
    assert left.items() <= sums(tmp_path / "whole").items()
    assert sums(tmp_path / "out") == sums(tmp_path / "whole")
    files = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len({sample["__key__"] for sample in webdataset.WebDataset(files, shardshuffle=False)}) == 180


def test_stopped(command: list[str], environment: dict[str, str], slow: Path, tmp_path: Path) -> None:
    process = _start(command, environment, slow, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "make_shards: stopped; run the same command again to go on\n")
    assert not list((tmp_path / "out/.packing").glob("*.part"))


def test_esc10_in_full(esc10: Path, run: Run, tmp_path: Path) -> None:
    assert run("pack", esc10, "esc10").returncode == 0
    one = shards.open_set(tmp_path / "esc10")
    read = list(webdataset.WebDataset(str(tmp_path / "esc10/shard-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [one.key(row) for row in range(400)]
    labels = [json.loads(sample["json"])["label"] for sample in read]
    assert labels == [one.classes[label] for label in one.rows["label"]]
    assert np.bincount(one.rows["fold"]).tolist() == [0, 80, 80, 80, 80, 80]


def test_trimming_and_conditions_are_told(run: Run, source: Path, tmp_path: Path) -> None:
    quiet = np.concatenate([np.zeros(4000), soundfile.read(source / "no/0.wav")[0]])
    soundfile.write(source / "no/0.wav", quiet, RATE)
    soundfile.write(source / "no/2.wav", np.zeros(4000), RATE)
    table = source / "table.csv"
    rows = [f"no/{number}.wav,no,{number // 4}" for number in (0, 2, 4)]
    table.write_text("\n".join(["path,label,part", *rows]))
    chosen = ("--where", "part=0", "--trim", "silence", "--trim-limit", "30", "--folds", "0")
    done = run("pack", table, tmp_path / "out", *chosen)
    assert done.returncode == 0, done.stderr
    assert "trimmed: 0.5 s; nothing was found in 1 clips, kept whole: no/2.wav" in done.stdout
    assert "classes: no 2" in done.stdout
    again = run("pack", table, tmp_path / "out", *chosen[:4], "--folds", "0")
    assert again.returncode == 2 and "trim_limit was 30.0, is 40.0" in again.stderr
