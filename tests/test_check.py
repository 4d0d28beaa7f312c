"""Each kind of damage, made for real, is found and named by check, and refused by build."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import cut, pack, patch, samples, tone, wav

from dist_train import shards
from dist_train.check import check


@pytest.fixture
def folder(tmp_path):
    pack(tmp_path / "a.tar", samples(5))
    pack(tmp_path / "b.tar", samples(5, 5))
    shards.build(tmp_path)
    return tmp_path


@pytest.fixture
def places(folder):
    with tarfile.open(folder / "a.tar") as tar:
        return {info.name: (info.offset, info.offset_data, info.size) for info in tar}


def lines(folder):
    found = check(folder)
    assert all("\n" not in line for line in found)
    return found


def refused(folder, text):
    with pytest.raises(ValueError, match=text):
        shards.build(folder)


def test_sound_shards_have_no_damage(folder):
    marks = []
    assert check(folder, lambda done, total: marks.append((done, total))) == []
    assert marks == [(1, 2), (2, 2)]


def test_a_flipped_byte_of_audio_names_the_sample(folder, places):
    patch(folder / "a.tar", places["k002.wav"][1] + 200)
    (line,) = lines(folder)
    assert line.startswith(
        f"a.tar, byte {places['k002.wav'][1] + 44}, sample 'k002': its audio is not what was indexed"
    )


def test_a_flipped_byte_of_the_wav_header(folder, places):
    patch(folder / "a.tar", places["k002.wav"][1] + 24, 1)
    (line,) = lines(folder)
    assert "sample 'k002': its audio's header is not" in line


def test_a_flipped_byte_of_a_label(folder, places):
    patch(folder / "a.tar", places["k003.json"][1] + 12, 1)
    (line,) = lines(folder)
    assert "sample 'k003': its label, fold, split or group is not" in line


def test_a_flipped_byte_between_the_samples(folder, places):
    _, start, size = places["k003.json"]
    patch(folder / "a.tar", start + size + 3)
    (line,) = lines(folder)
    assert line.startswith("a.tar: its checksum is not the index's")


def test_damage_of_all_shards_is_found(folder, places):
    for name in ("k001.wav", "k004.wav"):
        patch(folder / "a.tar", places[name][1] + 100)
    patch(folder / "b.tar", places["k003.wav"][1] + 100)
    named = [line.split("sample ")[1][:6] for line in lines(folder)]
    assert named == ["'k001'", "'k004'", "'k008'"]


def test_a_tar_cut_inside_a_payload(folder, places):
    cut(folder / "a.tar", places["k003.wav"][1] + 700)
    first, second = lines(folder)
    assert first.startswith(f"a.tar, byte {places['k003.wav'][0]}, sample 'k003': the tar is cut inside a payload")
    assert "1 samples of the index are not in it, the first 'k004'" in second
    refused(folder, "sample 'k003': the tar is cut inside a payload")


def test_a_tar_cut_at_a_member_boundary(folder, places):
    byte = places["k003.json"][0]
    cut(folder / "a.tar", byte)
    found = lines(folder)
    assert found[0].startswith(f"a.tar, byte {byte}: the tar is cut: no end-of-archive blocks")
    assert "sample 'k003': no label" in found[1]
    assert "the first 'k004'" in found[2]
    refused(folder, "the tar is cut: no end-of-archive")


@pytest.mark.parametrize("keep", [0, 512, 700])
def test_a_tar_whose_end_of_archive_is_cut(folder, places, keep):
    _, start, size = places["k004.json"]
    cut(folder / "a.tar", -(-(start + size) // 512) * 512 + keep)
    (line,) = lines(folder)
    assert "the tar is cut" in line
    refused(folder, "the tar is cut")


@pytest.mark.parametrize("byte", [3, 110, 125, 150, 156, 300])
def test_a_damaged_header_in_the_middle(folder, places, byte):
    start = places["k002.wav"][0]
    patch(folder / "a.tar", start + byte)
    found = lines(folder)
    assert found[0].startswith(f"a.tar, byte {start}") and "header is damaged (wrong checksum)" in found[0]
    assert any("'k002'" in line for line in found)
    assert not any(f"'k00{other}'" in line for line in found for other in (0, 1, 3, 4))
    refused(folder, "header is damaged")


def test_the_walk_goes_on_after_a_damaged_header(folder, places):
    patch(folder / "a.tar", places["k001.wav"][0])
    patch(folder / "a.tar", places["k003.json"][0])
    patch(folder / "a.tar", places["k004.wav"][1] + 99)
    found = "\n".join(lines(folder))
    assert all(f"'k00{number}'" in found for number in (1, 3, 4)) and "k002" not in found


def rebuilt(folder, members):
    pack(folder / "a.tar", members)
    return lines(folder)


def test_a_sample_without_its_label(folder):
    members = [member for member in samples(5) if member[0] != "k002.json"]
    (line,) = rebuilt(folder, members)
    assert line.startswith("a.tar, byte ") and "sample 'k002': no label" in line
    refused(folder, "sample 'k002': no label")


def test_a_sample_without_its_audio(folder):
    (line,) = rebuilt(folder, [member for member in samples(5) if member[0] != "k002.wav"])
    assert "sample 'k002': no audio" in line


def test_parts_that_are_apart(folder):
    members = samples(5)
    members.append(members.pop(3))
    (line,) = rebuilt(folder, members)
    assert "sample 'k001': 'k001.json' does not lie beside 'k001.wav': readers make two half samples" in line
    refused(folder, "does not lie beside")


def test_a_member_that_is_there_twice(folder):
    (line,) = rebuilt(folder, [*samples(5), samples(1, 1)[0]])
    assert "sample 'k001': member 'k001.wav' is there twice" in line
    refused(folder, "is there twice")


def test_a_sample_more_and_a_sample_less(folder):
    (line,) = rebuilt(folder, samples(4))
    assert "1 samples of the index are not in it, the first 'k004'" in line
    (line,) = rebuilt(folder, samples(6))
    assert "1 samples are not in the index, the first 'k005'" in line


def test_data_after_the_end(folder):
    with (folder / "a.tar").open("ab") as file:
        byte = file.tell()
        file.write((folder / "b.tar").read_bytes())
    (line,) = lines(folder)
    assert line.startswith(f"a.tar, byte {byte}: data after the end of the archive")
    refused(folder, "keep joined tars apart")


def test_a_wrong_count(folder):
    info = json.loads((folder / "index.json").read_text())
    info["shards"][1]["samples"] = 4
    (folder / "index.json").write_text(json.dumps(info))
    (line,) = lines(folder)
    assert "a wrong count, 4 samples in b.tar, index.npy has 5" in line


def test_an_index_of_other_shards(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    pack(other / "a.tar", [(name, raw) for name, raw in samples(5, 20)])
    pack(other / "b.tar", [(name, wav(tone(900, 9)) if "wav" in name else raw) for name, raw in samples(5, 5)])
    shards.build(other)
    for path in other.iterdir():
        if path.suffix != ".tar":
            shutil.copy(path, folder)
    found = lines(folder)
    assert [line.split(":")[0] for line in found] == ["a.tar", "b.tar"]
    assert all("the index was made of another tar of this name" in line for line in found)


def test_a_missing_and_an_extra_tar(folder):
    (folder / "a.tar").rename(folder / "c.tar")
    missing, extra = lines(folder)
    assert missing.startswith("a.tar: in the index but not on disk") and extra.startswith("c.tar: not in the index")


@pytest.mark.parametrize("name", ["index.npy", "keys.bin", "activity.npy"])
def test_a_flipped_byte_of_an_index_file(folder, name):
    patch(folder / name, (folder / name).stat().st_size - 1)
    (line,) = lines(folder)
    assert line.startswith(f"{name}: its bytes are not those that were written")


def test_a_wrong_fingerprint_and_a_changed_classes_txt(folder):
    info = json.loads((folder / "index.json").read_text()) | {"fingerprint": "0" * 64}
    (folder / "index.json").write_text(json.dumps(info))
    (folder / "classes.txt").write_text("dog\ncat\n")
    first, second = lines(folder)
    assert first.startswith("classes.txt") and "fingerprint" in second


def test_no_index_another_version_or_a_truncated_one(folder, places):
    (folder / "index.npy").write_bytes(b"")
    patch(folder / "a.tar", places["k002.wav"][1] + 200)
    first, second = lines(folder)
    assert "index.npy: absent, or does not fit" in first and second.startswith("a.tar: its checksum")
    (folder / "index.json").write_text('{"version": 7}')
    assert "index format 7" in lines(folder)[0]
    (folder / "index.json").unlink()
    patch(folder / "a.tar", places["k001.wav"][0])
    first, *rest = lines(folder)
    assert "no index" in first and "header is damaged" in rest[0]


def test_twins_without_an_index(tmp_path):
    pack(tmp_path / "a.tar", samples(2))
    shutil.copy(tmp_path / "a.tar", tmp_path / "b.tar")
    assert lines(tmp_path)[1:] == ["b.tar: the same bytes as a.tar: take one away"]


def test_no_shards_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"no \.tar in it"):
        check(tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flip")
    pack(folder / "a.tar", samples(3, frames=100))
    shards.build(folder)
    size = (folder / "a.tar").stat().st_size
    patch(folder / "a.tar", data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 255)))
    assert check(folder)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 7167))  # the two end blocks end at byte 7168; what follows is padding
def test_any_cut_is_refused(tmp_path_factory, size):
    path = tmp_path_factory.mktemp("cut") / "a.tar"
    pack(path, samples(3, frames=100))
    cut(path, size)
    with pytest.raises(ValueError, match=r"a\.tar"):
        shards.build(path.parent)


def test_float_wavs_of_many_channels_are_checked_too(tmp_path):
    sound = np.random.default_rng(0).standard_normal((500, 6)).astype(np.float32)
    pack(tmp_path / "a.tar", [("k.wav", wav(sound, subtype="FLOAT")), ("k.cls", b"1"), *samples(1, labels=("2",))])
    found = shards.build(tmp_path)
    patch(tmp_path / "a.tar", int(found.rows["offset"][0]) + 2000)
    (line,) = check(tmp_path)
    assert "sample 'k': its audio" in line
