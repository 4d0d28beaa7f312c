"""Parts of a packing on several machines: together they are one machine's, byte for byte, or they are refused."""

import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import soundfile

from dist_train.archive import scan
from dist_train.assembly.options import Options
from dist_train.packing import pack
from dist_train.stores import indexing, part
from dist_train.stores.part import Part

RATE = 8000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Thirty clips in three classes; one of no audio, one whose end is missing: both are left out."""
    root = tmp_path / "in"
    for number in range(30):
        path = root / f"class {number % 3}/{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 2400), RATE)
    (root / "class 0/0.flac").write_bytes(b"no audio")
    cut = root / "class 1/4.flac"
    cut.write_bytes(cut.read_bytes()[:-1000])
    return root


def options(**chosen: Any) -> Options:
    return Options(**{"sample_rate": RATE, "workers": 1, "shard_mb": 0.03, **chosen})


def sums(dest: Path) -> dict[str, str]:
    files = sorted(path for path in dest.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def whole(source: Path, dest: Path) -> dict[str, str]:
    """What one machine makes of it, indexed for all that was left out."""
    pack(source, dest, options())
    indexing.build(dest, 1)
    return sums(dest)


@pytest.mark.parametrize("count", [2, 3, 15])
def test_parts_together_are_one_packing(source: Path, tmp_path: Path, count: int) -> None:
    """On a shared disk, last part first; with more parts than shards, too."""
    reports = [pack(source, tmp_path / "out", options(part=Part(one, count))) for one in range(count, 0, -1)]
    assert not (tmp_path / "out/index.json").exists()
    indexing.build(tmp_path / "out", 1)
    assert sums(tmp_path / "out") == whole(source, tmp_path / "mine")
    assert sorted(name for report in reports for name, _ in report.unreadable) == ["class 0/0.flac", "class 1/4.flac"]
    assert sum(report.shards for report in reports) == reports[0].of > 3


def test_folders_copied_together_are_one_packing(source: Path, tmp_path: Path) -> None:
    """Each machine has its own copy of the recordings, with other times, and its own folder."""
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").rglob("*.flac"):
        os.utime(path, (1, 1))
    for one, place in ((1, source), (2, tmp_path / "copy")):
        pack(place, tmp_path / f"out{one}", options(part=Part(one, 2)))
        shutil.copytree(tmp_path / f"out{one}", tmp_path / "out", dirs_exist_ok=True, copy_function=shutil.copyfile)
    indexing.build(tmp_path / "out", 1)
    assert sums(tmp_path / "out") == whole(source, tmp_path / "mine")


def test_tars_are_not_read_again_unless_they_changed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in (1, 2):
        pack(source, tmp_path / "out", options(part=Part(one, 2)))
    seen = []
    monkeypatch.setattr(indexing, "scan", lambda path, **given: seen.append(path.name) or scan.scan(path, **given))
    indexing.build(tmp_path / "out", 1)
    assert seen == []
    os.utime(tmp_path / "out/shard-000001.tar", (1, 1))
    indexing.build(tmp_path / "out", 1)
    assert seen == ["shard-000001.tar"]
    (tmp_path / "out/skip.txt").write_text("nothing\n")
    indexing.build(tmp_path / "out", 1)
    assert len(seen) == 1 + len(list((tmp_path / "out").glob("*.tar")))


def test_a_missing_part_is_named(source: Path, tmp_path: Path) -> None:
    for one in (1, 3):
        pack(source, tmp_path / "out", options(part=Part(one, 3)))
    with pytest.raises(ValueError, match=r"part 2/3 not packed yet.*: pack with --part 2/3$"):
        indexing.build(tmp_path / "out", 1)
    pack(source, tmp_path / "out", options(part=Part(2, 3)))
    (tmp_path / "out/shard-000002.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000002\.tar: of part 3/3, is not there: pack with --part 3/3$"):
        indexing.build(tmp_path / "out", 1)
    assert pack(source, tmp_path / "out", options(part=Part(3, 3))).kept == 1
    indexing.build(tmp_path / "out", 1)
    assert sums(tmp_path / "out") == whole(source, tmp_path / "mine")


def test_one_machine_may_finish_what_parts_began(source: Path, tmp_path: Path) -> None:
    kept = pack(source, tmp_path / "out", options(part=Part(1, 2))).shards
    assert pack(source, tmp_path / "out", options()).kept == kept
    indexing.build(tmp_path / "out", 1)
    assert sums(tmp_path / "out") == whole(source, tmp_path / "mine")


def test_other_lists_and_options_are_refused(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out", options(part=Part(1, 3)))
    for chosen, message in (
        ({"part": Part(2, 4)}, "part 1/3 and part 2/4: all machines pack with the same N"),
        ({"part": Part(2, 3), "codec": "mulaw"}, "codec is 'pcm16' in part 1/3, 'mulaw' in part 2/3"),
        ({"part": Part(2, 3), "folds": 3}, "part 2/3 and part 1/3 have different lists of recordings"),
    ):
        with pytest.raises(ValueError, match=message):
            pack(source, tmp_path / "out", options(**chosen))
    (source / "class 2/5.flac").unlink()
    with pytest.raises(ValueError, match=r"\(28 clips in \d+ shards, 29 in \d+\): all parts need the same SOURCE"):
        pack(source, tmp_path / "out", options(part=Part(2, 3)))
    pack(source, tmp_path / "other", options(part=Part(2, 3)))
    shutil.copytree(tmp_path / "other", tmp_path / "out", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="part 1/3 and part 2/3 have different lists of recordings"):
        indexing.build(tmp_path / "out", 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "refused"),
    [
        (Part(2, 3), "lock-2-of-3", True),
        (Part(2, 3), "lock", True),
        (Part(2, 3), "lock-1-of-3", False),
        (Part(), "lock-1-of-3", True),
    ],
)
def test_who_would_write_the_same_shards_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Part, theirs: str, refused: bool
) -> None:
    monkeypatch.setattr("dist_train.assembly.permit.PASSING", 0.1)
    pack(source, tmp_path / "out", options(part=Part(1, 3)))
    with filelock.FileLock(tmp_path / "out/.packing" / theirs):
        if refused:
            with pytest.raises(ValueError, match="another process is packing into it"):
                pack(source, tmp_path / "out", options(part=ours))
        else:
            pack(source, tmp_path / "out", options(part=ours))


def test_parts_at_the_same_time(source: Path, tmp_path: Path) -> None:
    parts = [options(part=Part(one, 4)) for one in range(1, 5)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(partial(pack, source, tmp_path / "out"), parts))
    indexing.build(tmp_path / "out", 1)
    assert sums(tmp_path / "out") == whole(source, tmp_path / "mine")


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "1/3/5", "-1/3", "1/1000000"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(ValueError, match="is not I/N, such as 2/3"):
        part.parse(text)


def test_a_damaged_plan_is_one_line(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out", options(part=Part(1, 2)))
    for text in ("{", "[]", ""):
        (tmp_path / "out/.packing/plan-1-of-2.json").write_text(text)
        for work in (lambda: indexing.build(tmp_path / "out", 1), lambda: pack(source, tmp_path / "out", options())):
            with pytest.raises(ValueError, match=r"plan-1-of-2\.json: is damaged"):
                work()
