"""Index anybody's tars: what a row says, what WebDataset would read, what is refused, what opening refuses."""

import io
import json
import math
import shutil
import tarfile

import av
import numpy as np
import pytest
import soundfile
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import RATE, chunk, pack, riff, samples, tone, wav

from dist_train import shards
from dist_train.archive.label import group
from dist_train.archive.row import CODECS, ROW
from dist_train.archive.scan import split_name

CODED = [("WAV", "PCM_16", "wav", CODECS.S16), ("FLAC", "PCM_16", "flac", CODECS.FILE)]
CODED += [("OGG", "VORBIS", "ogg", CODECS.FILE), ("OGG", "OPUS", "opus", CODECS.FILE)]
CODED += [("MP3", "MPEG_LAYER_III", "mp3", CODECS.FILE), ("WAV", "IMA_ADPCM", "wav", CODECS.FILE)]


@pytest.fixture
def folder(tmp_path):
    pack(tmp_path / "a.tar", samples(6, fold=[i % 3 for i in range(10)], split="train", group="g"))
    pack(tmp_path / "b.tar", samples(4, 6))
    return tmp_path


def assert_refused(path, text):
    with pytest.raises(ValueError, match=text) as error:
        shards.build(path)
    assert "\n" not in str(error.value)
    assert not (path / "index.json").exists()
    return str(error.value)


def one(path, *members):
    pack(path / "x.tar", members)
    return shards.build(path)


def test_a_row_fits_a_cache_line():
    assert ROW.itemsize <= 64


def test_rows_point_at_the_samples(folder):
    found = shards.build(folder)
    assert (len(found), found.names, found.classes) == (10, ("a.tar", "b.tar"), ("cat", "dog"))
    for number, row in enumerate(found.rows):
        raw = (folder / found.names[row["shard"]]).read_bytes()[row["offset"] :][: row["size"]]
        want = tone(seed=number)
        np.testing.assert_array_equal(np.frombuffer(raw, "<i2"), want)
        assert found.key(number) == f"k{number:03d}"
        assert (row["frames"], row["rate"], row["channels"], row["codec"]) == (800, RATE, 1, CODECS.S16)
        assert row["rms"] == pytest.approx(np.sqrt(np.mean((want / 32768) ** 2)), rel=1e-6)
        assert found.classes[row["label"]] == ("dog", "cat")[number % 2]
        inside = number < 6
        assert (row["fold"], row["split"], row["group"]) == ((number % 3, 1, group("g")) if inside else (-1, 0, 0))
    assert len(set(found.rows["digest"])) == 10
    assert found.info["totals"] == {"samples": 10, "seconds": 0.5}


def test_webdataset_reads_the_same_samples(folder):
    found = shards.build(folder)
    stream = webdataset.WebDataset([str(folder / name) for name in found.names], shardshuffle=False)
    for number, sample in enumerate(stream):
        assert sample["__key__"] == found.key(number)
        size = int(found.rows["size"][number])
        assert np.frombuffer(sample["wav"][-size:], "<i2").tolist() == tone(seed=number).tolist()
    assert number == 9


def test_shardwriter_tars_can_be_indexed(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=3, mtime=0, verbose=0) as writer:
        for number in range(7):
            writer.write({"__key__": f"dir/{number}", "wav": wav(tone(seed=number)), "cls": number % 3})
    found = shards.build(tmp_path)
    assert (len(found), found.classes, found.key(6)) == (7, ("0", "1", "2"), "dir/6")


@pytest.mark.parametrize(("form", "subtype", "suffix", "codec"), CODED)
def test_coded_audio(tmp_path, form, subtype, suffix, codec):
    rate = 48000
    sound = np.stack([np.sin(np.arange(rate) / 20), np.zeros(rate)], 1) * 0.5
    raw = wav(sound, rate, subtype, form)
    found = one(tmp_path, (f"k.{suffix}", raw), ("k.txt", b"tone"))
    row = found.rows[0]
    decoded = soundfile.read(io.BytesIO(raw), always_2d=True)[0].mean(1)
    assert (row["codec"], row["channels"], row["rate"], row["frames"]) == (codec, 2, rate, len(decoded))
    assert row["rms"] == pytest.approx(math.sqrt(np.mean(decoded**2)), rel=1e-5)
    assert row["rms"] == pytest.approx(0.25 / math.sqrt(2), rel=0.05)


def test_m4a_goes_by_pyav(tmp_path):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(RATE)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    row = one(tmp_path, ("k.m4a", buffer.getvalue()), ("k.cls", b"x")).rows[0]
    assert (row["codec"], row["channels"], row["rate"]) == (CODECS.AV, 1, RATE)
    assert abs(int(row["frames"]) - RATE) <= 2048


def test_activity_says_where_the_sound_is(tmp_path):
    sound = np.zeros(1600, np.int16)
    sound[300:400], sound[800:900] = 20000, 10000
    found = one(tmp_path, ("k.wav", wav(sound)), ("k.cls", b"x"), ("s.wav", wav(sound * 0)), ("s.cls", b"x"))
    assert np.flatnonzero(found.activity[0]).tolist() == [3, 8]
    assert found.activity[0, [3, 8]].tolist() == [255, 128]
    assert found.rows["rms"][1] == 0 and not found.activity[1].any()


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_a_clip_of_a_few_frames(tmp_path, frames):
    row = one(tmp_path, ("k.wav", wav(tone(frames))), ("k.cls", b"x")).rows[0]
    assert (row["frames"], row["size"]) == (frames, 2 * frames)


def test_a_sample_that_is_not_finite_is_indexed_for_the_reader_to_name(tmp_path):
    sound = np.full(400, 0.5, np.float32)
    sound[7] = np.nan
    found = one(tmp_path, ("k.wav", wav(sound, subtype="FLOAT")), ("k.cls", b"x"))
    assert found.rows["rms"][0] == pytest.approx(0.5, 0.01)


@pytest.mark.parametrize("names", [["007", "on", "yes", "犬", "null"], ["10", "9", "2"], ["a;b"], ["Á", "A\u0301"]])
def test_class_names_stay_what_they_are(tmp_path, names):
    members = [(f"{i}.{part}", raw) for i, name in enumerate(names) for part, raw in both(json.dumps({"label": name}))]
    found = one(tmp_path, *members)
    want = sorted(names, key=int) if names[0] == "10" else sorted({part for name in names for part in name.split(";")})
    assert list(found.classes) == want
    assert found.info["classes"] == json.loads((tmp_path / "index.json").read_text("utf-8"))["classes"]


def both(text):
    return [("wav", wav(tone())), ("json", text.encode())]


def test_labels_by_cls_txt_and_json(tmp_path):
    audio = wav(tone())
    found = one(
        tmp_path,
        *[("a.wav", audio), ("a.json", b'{"class": "dog", "text": "x"}'), ("a.cls", b"9")],
        *[("b.json", b'{"text": "no label here"}'), ("b.wav", audio), ("b.cls", b"cat\n")],
        *[("c.flac", wav(tone(), form="FLAC")), ("c.txt", "犬\n".encode())],
        *[("d.wav", audio), ("d.json", b'{"label": 7}')],
    )
    assert [found.classes[row["label"]] for row in found.rows] == ["dog", "cat", "犬", "7"]


def test_classes_txt_fixes_the_order_and_gives_numbers_their_names(tmp_path):
    (tmp_path / "classes.txt").write_text("zebra\nape\nbee\n")
    audio = wav(tone())
    found = one(tmp_path, ("a.wav", audio), ("a.cls", b"1"), ("b.wav", audio), ("b.cls", b"zebra"))
    assert found.classes == ("zebra", "ape", "bee")
    assert found.rows["label"].tolist() == [1, 0]
    pack(tmp_path / "y.tar", [("c.wav", audio), ("c.cls", b"lion")])
    with pytest.raises(ValueError, match=r"'lion' is not in classes\.txt"):
        shards.build(tmp_path)


def test_several_labels(tmp_path):
    texts = ['{"labels": ["b", "a", "b"]}', '{"label": "c"}', '{"label": "a; c"}']
    found = one(tmp_path, *[(f"{i}.{part}", raw) for i, text in enumerate(texts) for part, raw in both(text)])
    assert [found.labels(i).tolist() for i in range(3)] == [[1, 0], [2], [0, 2]]
    assert found.rows["label"].tolist() == [1, 2, 0]
    assert shards.open_set(tmp_path).labels(2).tolist() == [0, 2]


def test_long_names_and_foreign_members(tmp_path):
    key = "dir/" + "n" * 150 + "/" + "名" * 40
    members = [("README", b"x"), ("__meta__/x.json", b"{}"), (f"{key}.wav", wav(tone())), ("._k.wav", b"junk")]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        pack(tmp_path / "x.tar", [*members, (f"{key}.cls", b"c")], form)
        assert shards.build(tmp_path).key(0) == key


@given(st.text("ab./_0", min_size=1, max_size=12))
def test_keys_are_webdatasets(name):
    key, extension = webdataset.tariterators.base_plus_ext(name)
    found = split_name(name)
    assert found == ((key, extension.lower()) if key else None)


def test_a_stem_with_dots_ends_at_the_first(tmp_path):
    found = one(tmp_path, ("a.v2.wav", wav(tone())), ("a.v2.json", b'{"label": "x"}'))
    assert found.key(0) == "a"


def test_two_stems_that_are_one_key_are_refused(tmp_path):
    pack(tmp_path / "x.tar", [("a.v1.wav", wav(tone())), ("a.v2.wav", wav(tone(seed=1))), ("a.cls", b"x")])
    assert_refused(tmp_path, "sample 'a': several audio members in one sample .*first dot")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ([("k.wav", wav(tone())), ("j.wav", wav(tone())), ("j.cls", b"x")], "byte 0, sample 'k': no label"),
        ([("k.json", b'{"label": "x"}'), ("k.png", b"")], "sample 'k': no audio: it has only 'k.json', 'k.png'"),
        ([("k.wav", wav(tone())), ("k.json", b"{")], "not JSON"),
        ([("k.wav", wav(tone())), ("k.json", b'{"label": true}')], "neither a name nor"),
        ([("k.wav", wav(tone())), ("k.json", b'{"labels": []}')], "list of labels is empty"),
        ([("k.wav", wav(tone())), ("k.json", b'{"label": "x", "fold": "one"}')], "fold 'one'"),
        ([("k.wav", wav(tone())), ("k.json", b'{"label": "x", "split": "mine"}')], "split 'mine'"),
        (
            [("k.wav", wav(np.empty(0, np.int16))), ("k.cls", b"x")],
            "sample 'k': the WAV holds no samples: pack it again",
        ),
        ([("k.wav", b""), ("k.cls", b"x")], "sample 'k': soundfile cannot decode"),
        ([("k.wav", wav(tone())[:500]), ("k.cls", b"x")], "sample 'k': the WAV is cut"),
        ([("k.wav", riff(chunk(b"fmt ", b""))), ("k.cls", b"x")], "sample 'k': the WAV header is damaged"),
        ([("k.flac", b"fLaC" + bytes(99)), ("k.cls", b"x")], "sample 'k': soundfile cannot decode"),
        ([("k.m4a", b"junk" * 99), ("k.cls", b"x")], "sample 'k': PyAV cannot decode"),
        ([("README", b"x")], "hold no samples"),
    ],
)
def test_samples_that_are_refused(tmp_path, members, text):
    pack(tmp_path / "x.tar", members)
    assert_refused(tmp_path, text)


def test_skip_txt_leaves_samples_out(tmp_path):
    pack(tmp_path / "x.tar", [*samples(3), ("bad.wav", b""), ("bad.cls", b"x")])
    assert "skip.txt" in assert_refused(tmp_path, "sample 'bad'")
    (tmp_path / "skip.txt").write_text("bad\n")
    assert len(shards.build(tmp_path)) == 3


def test_all_damage_is_counted_and_the_first_is_named(tmp_path):
    pack(tmp_path / "x.tar", [("a.wav", b""), ("a.cls", b"x"), ("b.wav", b""), ("b.cls", b"x")])
    assert "'a'" in assert_refused(tmp_path, r"\(1 more: python tools/make_shards.py check")


def test_hidden_files_are_no_shards(folder):
    (folder / "._a.tar").write_bytes(b"what macOS leaves beside a.tar")
    assert shards.build(folder).names == ("a.tar", "b.tar")


def test_links_and_equal_shards_are_refused(folder):
    shutil.copy(folder / "a.tar", folder / "c.tar")
    assert_refused(folder, r"c\.tar: the same bytes as a\.tar")
    with tarfile.open(folder / "c.tar", "a") as tar:
        link = tarfile.TarInfo("z.wav")
        link.type, link.linkname = tarfile.LNKTYPE, "k000.wav"
        tar.addfile(link)
    assert_refused(folder, "sample 'z': the member is a hard link")


def test_the_index_is_the_same_bytes_for_any_workers(folder, monkeypatch):
    monkeypatch.setattr("dist_train.archive.index.WORTH_PROCESSES", 0)
    marks = []
    indexed = []
    for workers in (1, 2):
        shards.build(folder, workers, lambda done, total: marks.append((done, total)))
        indexed.append({path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".tar"})
    assert indexed[0] == indexed[1]
    assert marks == [(1, 2), (2, 2)] * 2
    assert not [path for path in folder.iterdir() if "part" in path.name]


def test_the_fingerprint_is_of_shards_rows_and_classes(folder):
    first = shards.build(folder).fingerprint
    assert shards.build(folder).fingerprint == first
    (folder / "classes.txt").write_text("cat\ndog\nowl\n")
    assert shards.build(folder).fingerprint != first


def test_a_crash_while_writing_leaves_no_index(folder, monkeypatch):
    shards.build(folder)
    with monkeypatch.context() as patch:
        patch.setattr("dist_train.archive.index.os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            shards.build(folder)
    with pytest.raises(ValueError, match="no index"):
        shards.open_set(folder)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["a", "b;c", "c", "ü"]), min_size=1, max_size=6))
def test_labels_come_back(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("labels")
    texts = [json.dumps({"label": name}) for name in names]
    found = one(path, *[(f"{i}.{part}", raw) for i, text in enumerate(texts) for part, raw in both(text)])
    assert [[found.classes[label] for label in found.labels(i)] for i in range(len(names))] == [
        n.split(";") for n in names
    ]
