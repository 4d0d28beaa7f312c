"""What `stats` tells of a set of shards, beside what was put into it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tars import pack, wav

from dist_train import shards
from dist_train.inspection import clipping, hearing, stats

RATE = 16000


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Ten clips of 1 s, five of 2 s at 8 kHz in stereo; one silent, one half silent, two clipped, two equal."""
    random, members = np.random.default_rng(0), []
    for number in range(15):
        wave = random.uniform(-0.1, 0.1, RATE if number < 10 else (RATE, 2))
        if number == 0:
            wave[:] = 0
        if number in (1, 2):
            wave[100 : 100 + 3 * number] = 1
        if number == 3:
            wave[RATE // 2 :] = 0
        if number == 4:
            wave[[50, 60, 61]] = -1  # peaks, no plateau
        samples = np.clip(np.rint(wave * 32768), -32768, 32767).astype("<i2")
        data = wav(samples, RATE if number < 10 else 8000)
        if number == 6:
            data = members[-2][1]
        record = {"label": f"class {number % 3}", "fold": number % 5 + 1, "group": f"g{number // 3}"}
        members += [(f"k{number:02d}.wav", data), (f"k{number:02d}.json", json.dumps(record).encode())]
    pack(tmp_path / "mine/a.tar", members)
    shards.build(tmp_path / "mine", workers=1)
    return tmp_path / "mine"


def test_numbers_are_those_of_the_clips(mine: Path) -> None:
    found = stats.deep(shards.open_set(mine))
    assert found["samples"] == 15
    assert found["hours"] == pytest.approx(20 / 3600)
    assert {name: of["samples"] for name, of in found["classes"].items()} == {f"class {k}": 5 for k in range(3)}
    assert sum(of["hours"] for of in found["classes"].values()) == pytest.approx(found["hours"])
    assert found["folds"] == {str(fold): 3 for fold in range(1, 6)}
    assert (found["splits"], found["groups"], found["equal_bytes"]) == ({}, 5, 1)
    assert (found["rates"], found["channels"], found["codecs"]) == (
        {"8000": 5, "16000": 10},
        {"1": 10, "2": 5},
        {"s16": 15},
    )
    assert found["seconds"] == {"0": 1, "5": 1, "25": 1, "50": 1, "75": 2, "95": 2, "100": 2}
    assert found["silent"] == 1
    assert found["silence_share"] == pytest.approx(1.5 / 20)
    assert (found["clipped"], found["clipped_samples"], found["unreadable"]) == (2, 9, 0)


def test_the_index_alone_tells_no_clipping(mine: Path) -> None:
    found = stats.measure(shards.open_set(mine))
    assert "clipped" not in found
    assert any("not looked at (--deep)" in row for sheet in stats.sheets(found) for row in sheet.rows)


def test_several_labels_count_for_each_class(tmp_path: Path) -> None:
    members = []
    for number, labels in enumerate((["a", "b"], ["b"], ["b", "c"])):
        members.append((f"k{number}.wav", wav(np.full(RATE, 9 + number, "<i2"))))
        members.append((f"k{number}.json", json.dumps({"labels": labels}).encode()))
    pack(tmp_path / "a.tar", members)
    found = stats.measure(shards.build(tmp_path, workers=1))
    assert {name: of["samples"] for name, of in found["classes"].items()} == {"a": 1, "b": 3, "c": 1}
    assert found["classes"]["b"]["hours"] == pytest.approx(3 / 3600)


def test_the_command(root: Path, environment: dict[str, str], mine: Path) -> None:
    command = [sys.executable, str(root / "tools/make_shards.py"), "stats", str(mine)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "class 0" in done.stdout and "8000: 5, 16000: 10" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 240
    done = subprocess.run([*command, "--deep", "--json"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout) == stats.deep(shards.open_set(mine))


def test_a_run_of_full_scale_is_clipping_and_a_peak_is_not() -> None:
    frames = np.zeros((100, 2), np.float32)
    frames[10:12, 0] = 1
    frames[20:23, 1] = -1
    frames[30:40, 0] = 1
    assert clipping.measure(hearing.Sound(0, frames, RATE)) == clipping.Peak(1.0, 13)


def test_hearing_keeps_order_and_names_what_cannot_be_decoded(mine: Path) -> None:
    one = shards.open_set(mine)
    rows = list(range(15)) * 9
    ticks: list[tuple[int, int]] = []

    def job(sound: hearing.Sound) -> int:
        if sound.row == 7:
            raise ValueError("it is broken")
        return sound.row

    heard = list(hearing.hear(one, rows, job, lambda done, total: ticks.append((done, total)), threads=3))
    assert heard == [row if row != 7 else "k07: it is broken" for row in rows]
    assert ticks[-1] == (135, 135)
