"""Packing: what lies in the shards is what was recorded, the same bytes for any number of workers, damage named."""

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import soundfile
import soxr
import webdataset
from numpy.typing import NDArray

from dist_train import shards
from dist_train.assembly.options import Options
from dist_train.packing import Report, pack
from dist_train.stores.indexing import LEFT_OUT

RATE = 8000


def tone(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1) -> NDArray[np.float32]:
    """Noise under a sine, half of full scale at most."""
    noise = np.random.default_rng(seed).uniform(-0.2, 0.2, (round(seconds * rate), channels))
    sine = 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(noise)) / rate)
    return (noise + sine[:, None]).astype(np.float32)


def record(path: Path, data: NDArray[np.float32], rate: int = RATE, **form: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, data, rate, **form)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three classes of ten clips of 0.2 to 0.6 s."""
    root = tmp_path / "recordings"
    for number in range(30):
        name = f"class {number % 3}/{number}.wav"
        record(root / name, tone(0.2 + 0.04 * (number // 3), number))
    return root


def options(**chosen: Any) -> Options:
    return Options(**{"sample_rate": RATE, "workers": 1, **chosen})


def samples(dest: Path) -> dict[str, dict[str, Any]]:
    """Every sample as WebDataset reads it, by its source."""
    found = webdataset.WebDataset([str(path) for path in sorted(dest.glob("*.tar"))], shardshuffle=False)
    return {json.loads(sample["json"])["source"]: {**sample, **json.loads(sample["json"])} for sample in found}


def pcm(data: bytes) -> tuple[NDArray[np.int16], int]:
    return soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)


def sums(dest: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(dest.glob("*.tar"))}


def test_any_number_of_workers_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    reports = [pack(source, tmp_path / str(n), options(workers=n, shard_mb=0.05)) for n in (1, 3)]
    assert sums(tmp_path / "1") == sums(tmp_path / "3")
    assert len(sums(tmp_path / "1")) == reports[0].shards > 3
    assert (tmp_path / "1/index.npy").read_bytes() == (tmp_path / "3/index.npy").read_bytes()
    for shard in (tmp_path / "1").glob("*.tar"):
        assert shard.stat().st_size < 0.06 * 2**20


def test_pcm_at_its_own_rate_is_kept_bit_for_bit(source: Path, tmp_path: Path) -> None:
    report = pack(source, tmp_path / "shards", options())
    found = samples(tmp_path / "shards")
    assert report.clips == len(found) == 30
    for name, sample in found.items():
        data, rate = pcm(sample["wav"])
        assert rate == RATE
        np.testing.assert_array_equal(data, soundfile.read(source / name, dtype="int16", always_2d=True)[0])
        assert sample["label"] == name.split("/")[0]
    one = shards.open_set(tmp_path / "shards")
    assert one.classes == ("class 0", "class 1", "class 2")
    assert report.seconds == pytest.approx(float((one.rows["frames"] / one.rows["rate"]).sum()))


def test_shards_are_not_sorted_by_class(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "shards", options())
    labels = shards.open_set(tmp_path / "shards").rows["label"]
    assert np.count_nonzero(np.diff(labels)) > 12


def test_resampling_is_soxr_and_mono_the_mean(tmp_path: Path) -> None:
    """Longer than a block, so that the joints between blocks are crossed."""
    path = record(tmp_path / "in/a/stereo.flac", tone(13, rate=22050, channels=2), 22050)
    record(tmp_path / "in/b/1.wav", tone(1))
    pack(tmp_path / "in", tmp_path / "out", options(folds=0))
    data, _ = pcm(samples(tmp_path / "out")["a/stereo.flac"]["wav"])
    mono = soundfile.read(path, dtype="float32")[0].mean(1)
    expected = np.rint(soxr.resample(mono, 22050, RATE, "VHQ") * 32768)
    assert len(data) == len(expected) == 13 * RATE
    assert np.abs(data[:, 0] - expected).max() <= 1


def test_loud_samples_are_clipped_not_wrapped(tmp_path: Path) -> None:
    record(tmp_path / "in/a/1.wav", np.float32([[1.5], [-1.5], [0.99999], [3.05e-5]]), subtype="FLOAT")
    pack(tmp_path / "in", tmp_path / "out", options(folds=0))
    data, _ = pcm(samples(tmp_path / "out")["a/1.wav"]["wav"])
    assert data[:, 0].tolist() == [32767, -32768, 32767, 1]


def test_more_channels_than_there_are_begin_anew(tmp_path: Path) -> None:
    for channels in (1, 2, 3):
        record(tmp_path / f"in/a/{channels}.wav", tone(0.2, channels, channels=channels))
    pack(tmp_path / "in", tmp_path / "out", options(folds=0, channels=2))
    for name, sample in samples(tmp_path / "out").items():
        source, _ = soundfile.read(tmp_path / "in" / name, dtype="int16", always_2d=True)
        np.testing.assert_array_equal(pcm(sample["wav"])[0], source[:, [0, 1 % source.shape[1]]])


@pytest.mark.parametrize(("codec", "suffix", "error"), [("mulaw", "wav", 700), ("flac", "flac", 0)])
def test_codecs(source: Path, tmp_path: Path, codec: str, suffix: str, error: int) -> None:
    pack(source, tmp_path / "shards", options(codec=codec))
    for name, sample in samples(tmp_path / "shards").items():
        data, _ = pcm(sample[suffix])
        expected, _ = soundfile.read(source / name, dtype="int16", always_2d=True)
        assert np.abs(data.astype(int) - expected).max() <= error


def test_original_keeps_the_bytes(tmp_path: Path) -> None:
    for name, form in {"a/1.ogg": "OGG", "a/2.wav": "WAV", "b/1.mp3": "MP3", "b/2.flac": "FLAC"}.items():
        record(tmp_path / "in" / name, tone(0.5, rate=16000, channels=2), 16000, format=form)
    pack(tmp_path / "in", tmp_path / "out", options(codec="original", folds=0))
    for name, sample in samples(tmp_path / "out").items():
        assert sample[Path(name).suffix[1:]] == (tmp_path / "in" / name).read_bytes()
    assert set(shards.open_set(tmp_path / "out").rows["channels"]) == {2}


def test_cuts_labels_and_everything_else_of_a_table(tmp_path: Path) -> None:
    path = record(tmp_path / "in/long.wav", tone(3))
    rows = ["long.wav,a;b,2,mic,test,0.5,1.25", "long.wav,鸟叫声,1,mic,train,2,3.05", "long.wav,b,1,,train,,"]
    (tmp_path / "in/t.csv").write_text("path,label,fold,group,split,start,end\n" + "\n".join(rows), encoding="utf-8")
    report = pack(tmp_path / "in/t.csv", tmp_path / "out", options())
    assert report.classes == {"a": 1, "b": 2, "鸟叫声": 1}
    assert (report.folds, report.splits) == ({1: 2, 2: 1}, {"test": 1, "train": 2})
    found = webdataset.WebDataset(str(tmp_path / "out/shard-000000.tar"), shardshuffle=False)
    by_start = {json.loads(sample["json"]).get("start"): sample for sample in found}
    assert json.loads(by_start[0.5]["json"]) == {
        **{"labels": ["a", "b"], "fold": 2, "split": "test", "group": "mic", "source": "long.wav"},
        **{"start": 0.5, "end": 1.25},
    }
    whole, _ = soundfile.read(path, dtype="int16", always_2d=True)
    np.testing.assert_array_equal(pcm(by_start[0.5]["wav"])[0], whole[4000:10000])
    np.testing.assert_array_equal(pcm(by_start[2.0]["wav"])[0], whole[16000:])
    keys = [sample["__key__"] for sample in by_start.values()]
    assert len(set(keys)) == 3
    assert all(key.isascii() and "." not in key and "/" not in key for key in keys)


def test_compressed_films_and_phones_are_read(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "in/a/1.m4a"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone(2, rate=16000).T.copy(), format="fltp", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    (tmp_path / "in/t.csv").write_text("path,label,start,end\na/1.m4a,x,,\na/1.m4a,x,0.5,1.5\n")
    report = pack(tmp_path / "in/t.csv", tmp_path / "out", options(folds=0))
    assert report.seconds == pytest.approx(3, abs=0.2)
    assert set(shards.open_set(tmp_path / "out").rows["frames"]) > {RATE}


def test_clips_without_folds_get_five(source: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    (source / "class 1/copy.wav").write_bytes((source / "class 0/0.wav").read_bytes())
    report = pack(source, tmp_path / "shards", options(), say=lines.append)
    assert sorted(report.folds) == [1, 2, 3, 4, 5]
    assert max(report.folds.values()) - min(report.folds.values()) <= 1
    assert any("5 folds" in line for line in lines)
    found = samples(tmp_path / "shards")
    assert found["class 1/copy.wav"]["fold"] == found["class 0/0.wav"]["fold"]


def test_groups_by_path_stay_in_one_fold(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "shards", options(folds=2, group_regex=r"(\d)\.wav"))
    found = samples(tmp_path / "shards").values()
    pairs = {(sample["group"], sample["fold"]) for sample in found}
    assert len(pairs) == len({group for group, _ in pairs}) == 10


def test_classes_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("yes <- class 2\nclass 0\n")
    report = pack(source, tmp_path / "shards", options(classes=tmp_path / "classes.txt"))
    assert list(report.classes.items()) == [("yes", 10), ("class 0", 10)]
    assert shards.open_set(tmp_path / "shards").classes == ("yes", "class 0")


def _spoil(root: Path) -> None:
    (root / "class 0/empty.wav").touch()
    (root / "class 0/junk.mp3").write_bytes(b"not a sound" * 99)
    whole = (root / "class 1/1.wav").read_bytes()
    (root / "class 1/cut.wav").write_bytes(whole[: len(whole) // 2])
    record(root / "class 2/nan.wav", np.float32([[0.1], [np.nan]]), subtype="FLOAT")
    record(root / "class 2/nothing.flac", np.zeros((0, 1), np.float32))


def test_unreadable_recordings_are_named_and_left_out(source: Path, tmp_path: Path) -> None:
    good = pack(source, tmp_path / "good", options())
    _spoil(source)
    report = pack(source, tmp_path / "shards", options())
    spoilt = {f"class {place}.{'flac' if 'nothing' in place else 'mp3' if 'junk' in place else 'wav'}" for place in
              ("0/empty", "0/junk", "1/cut", "2/nan", "2/nothing")}  # fmt: skip
    assert {name for name, _ in report.unreadable} == spoilt
    assert (report.clips, report.classes) == (good.clips, good.classes)
    lines = (tmp_path / "shards" / LEFT_OUT).read_text().splitlines()
    assert {line.split("\t")[0] for line in lines} == spoilt
    assert not report.indexed
    with pytest.raises(ValueError, match="index"):
        shards.open_set(tmp_path / "shards")
    assert len(shards.build(tmp_path / "shards")) == 30


def test_once_the_unreadable_recordings_are_gone_only_the_index_is_made(source: Path, tmp_path: Path) -> None:
    (source / "class 0/empty.wav").touch()
    assert not pack(source, tmp_path / "shards", options()).indexed
    (source / "class 0/empty.wav").unlink()
    report = pack(source, tmp_path / "shards", options())
    assert (report.kept, report.indexed, len(shards.open_set(tmp_path / "shards"))) == (1, True, 30)
    assert not (tmp_path / "shards" / LEFT_OUT).exists()


def test_two_at_a_time_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "shards/.packing").mkdir(parents=True)
    with (
        filelock.FileLock(tmp_path / "shards/.packing/lock"),
        pytest.raises(ValueError, match="another process is packing into it"),
    ):
        pack(source, tmp_path / "shards", options())


def test_one_bad_recording_in_a_hundred_is_tolerated(source: Path, tmp_path: Path) -> None:
    for number in range(70):
        record(source / f"class 0/more{number}.wav", tone(0.05, number))
    (source / "class 0/empty.wav").touch()
    report = pack(source, tmp_path / "shards", options())
    assert (report.indexed, report.clips, len(report.unreadable)) == (True, 100, 1)


def test_short_clips_are_left_out_and_counted(source: Path, tmp_path: Path) -> None:
    report = pack(source, tmp_path / "shards", options(min_seconds=0.35))
    assert (report.clips, len(report.short), report.indexed) == (18, 12, True)


def test_packing_again_keeps_everything(source: Path, tmp_path: Path) -> None:
    first = pack(source, tmp_path / "shards", options(shard_mb=0.05))
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir() if path.suffix in (".tar", ".json")
    }
    again = pack(source, tmp_path / "shards", options(shard_mb=0.05, workers=2))
    assert again.kept == again.shards == first.shards
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert _content(again) == _content(first)


def test_a_lost_or_cut_shard_is_written_again(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "shards", options(shard_mb=0.05))
    before = sums(tmp_path / "shards")
    (tmp_path / "shards/shard-000001.tar").unlink()
    os.truncate(tmp_path / "shards/shard-000002.tar", 5000)
    report = pack(source, tmp_path / "shards", options(shard_mb=0.05))
    assert sums(tmp_path / "shards") == before
    assert report.kept == report.shards - 2


def _content(report: Report) -> tuple[object, ...]:
    return report.clips, report.seconds, report.classes, report.folds, report.bytes


def test_another_plan_in_the_same_folder_is_refused(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "shards", options())
    with pytest.raises(
        ValueError, match="holds another packing \\(codec was 'pcm16', is 'flac'\\); name another folder"
    ):
        pack(source, tmp_path / "shards", options(codec="flac"))
    record(source / "class 0/new.wav", tone(1))
    with pytest.raises(ValueError, match="the recordings or their labels have changed"):
        pack(source, tmp_path / "shards", options())
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/x.tar").touch()
    with pytest.raises(ValueError, match="holds shards that are not of this packing"):
        pack(source, tmp_path / "theirs", options())


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"codec": "mp3"}, "--codec mp3: is none of pcm16"),
        ({"layout": "tree"}, "--layout tree: is none of auto"),
        ({"folds": 1}, "--folds 1"),
        ({"sample_rate": 0}, "--sample-rate 0: is not from"),
        ({"min_seconds": 9.0}, "no recording can be used; the first, class 0/0.wav, 0.200 s"),
        ({"classes": Path("nowhere.txt")}, "nowhere.txt: cannot be read"),
        ({"group": "speaker"}, "the folder layout has no columns"),
    ],
)
def test_bad_options_leave_nothing_that_looks_like_shards(
    source: Path, tmp_path: Path, chosen: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pack(source, tmp_path / "shards", options(**chosen))
    assert list(tmp_path.glob("shards/*")) in ([], [tmp_path / "shards/.packing"])


def test_a_cut_cannot_keep_its_bytes(tmp_path: Path) -> None:
    record(tmp_path / "in/a.wav", tone(1))
    (tmp_path / "in/t.csv").write_text("path,label,start\na.wav,x,0.5\n")
    with pytest.raises(ValueError, match="line 2: a cut cannot keep its file's bytes"):
        pack(tmp_path / "in/t.csv", tmp_path / "out", options(codec="original", folds=0))


@pytest.mark.parametrize(("start", "end"), [("5", ""), ("", "3.5"), ("3", "4")])
def test_cuts_past_the_end_are_unreadable(tmp_path: Path, start: str, end: str) -> None:
    for name in ("a.wav", "b.flac"):
        record(tmp_path / "in" / name, tone(3))
    (tmp_path / "in/t.csv").write_text(f"path,label,start,end\na.wav,x,{start},{end}\nb.flac,x,0,3\n")
    report = pack(tmp_path / "in/t.csv", tmp_path / "out", options(folds=0))
    assert len(report.unreadable) == 1
    assert report.clips == 1


def test_the_destination_may_not_lie_in_the_source(source: Path) -> None:
    with pytest.raises(ValueError, match="lies inside the source"):
        pack(source, source / "shards", options())
