"""Published data sets and Kaldi's data directories, imitated by empty files: labels, splits, groups, mistakes named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_layouts import put, write

from dist_train import shards
from dist_train.assembly.options import Options
from dist_train.packing import pack
from dist_train.sources import layouts


def found(root: Path, *fields: str, **chosen: Any) -> list[tuple[Any, ...]]:
    """The wanted fields of each sample, in order of their paths."""
    return [tuple(getattr(s, name) for name in fields) for s in layouts.read(root, **chosen).samples]


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    put(tmp_path, *[f"FSDKaggle2018.audio_train/{name}.wav" for name in "abc"], "FSDKaggle2018.audio_test/d.wav")
    head = "fname,label,manually_verified,freesound_id,license\n"
    rows = "a.wav,Acoustic_guitar,1,7,x\nb.wav,Bark,0,7,x\nc.wav,Bark,1,9,x\n"
    write(tmp_path / "FSDKaggle2018.meta/train_post_competition.csv", head + rows)
    test = "fname,label,usage,freesound_id,license\nd.wav,Bark,Public,11,x\n"
    write(tmp_path / "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv", test)
    return tmp_path


def test_fsdkaggle2018(kaggle: Path) -> None:
    assert layouts.read(kaggle).layout == "fsdkaggle2018"
    assert found(kaggle, "labels", "split", "group") == [
        (("Bark",), "test", "11"),
        (("Acoustic guitar",), "train", "7"),
        (("Bark",), "train", "7"),
        (("Bark",), "train", "9"),
    ]


def test_fsdkaggle2018_verified_clips_only(kaggle: Path) -> None:
    source = layouts.read(kaggle, where=("manually_verified=1",))
    assert [sample.path.stem for sample in source.samples] == ["d", "a", "c"]
    assert "has no column manually_verified: all its clips stay" in source.notes[0]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("verified=1",), r"no column verified \(--where\); there are fname, label"),
        (("manually_verified=2",), "no row has manually_verified=2"),
        (("manually_verified",), "--where manually_verified: is not COLUMN=VALUE"),
        (
            ("manually_verified=1", "label=Bark", "fname=a.wav"),
            "no row has manually_verified=1 and label=Bark and fname",
        ),
    ],
)
def test_conditions_that_choose_nothing(kaggle: Path, where: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layouts.read(kaggle, where=where)


def test_conditions_on_a_csv_and_on_urbansound8k(tmp_path: Path) -> None:
    put(tmp_path, "1.wav", "2.wav", "us/audio/fold1/1-0-0-0.wav", "us/audio/fold1/2-0-0-0.wav")
    table = write(tmp_path / "t.csv", "path,label,quality,room\n1.wav,x,good,a\n2.wav,x,bad,a\n")
    assert found(table, "source", "group", where=("quality=good",), group="room") == [("1.wav", "a")]
    with pytest.raises(ValueError, match="unknown column quality"):
        layouts.read(table, where=("room=a",))
    with pytest.raises(ValueError, match=r"no column rom \(--where\); there are path, label, quality, room"):
        layouts.read(table, where=("rom=a",))
    rows = "1-0-0-0.wav,1,0,4,1,1,2,siren\n2-0-0-0.wav,2,0,4,2,1,2,siren\n"
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    write(tmp_path / "us/metadata/UrbanSound8K.csv", header + rows)
    assert found(tmp_path / "us", "group", where=("salience=1",)) == [("1",)]


def test_layouts_without_columns_take_no_condition(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.wav", "dog/2.wav")
    with pytest.raises(ValueError, match="--where a=b: the folder layout has no columns"):
        layouts.read(tmp_path, where=("a=b",))


@pytest.fixture
def fsd50k(tmp_path: Path) -> Path:
    root = tmp_path / "FSD50K"
    put(root, *[f"FSD50K.dev_audio/{name}.wav" for name in (64760, 8)], "FSD50K.eval_audio/5.wav")
    place = root / "FSD50K.ground_truth"
    write(place / "vocabulary.csv", "0,Wind,/m/03m9d0z\n1,Bathtub_(filling),/m/03dnzn\n2,Animal,/m/0jbk\n3,Rain,/m/x\n")
    rows = '64760,"Wind,Animal","/m/03m9d0z,/m/0jbk",train\n8,Bathtub_(filling),/m/03dnzn,val\n'
    write(place / "dev.csv", f"fname,labels,mids,split\n{rows}")
    write(place / "eval.csv", "fname,labels,mids\n5,Animal,/m/0jbk\n")
    return root


def test_fsd50k(fsd50k: Path) -> None:
    source = layouts.read(fsd50k)
    assert (source.layout, source.classes) == ("fsd50k", ("Wind", "Bathtub (filling)", "Animal", "Rain"))
    assert found(fsd50k, "labels", "split", "group") == [
        (("Wind", "Animal"), "train", "64760"),
        (("Bathtub (filling)",), "valid", "8"),
        (("Animal",), "test", "5"),
    ]
    write(fsd50k / "FSD50K.metadata/dev_clips_info_FSD50K.json", json.dumps({"8": {"uploader": "ann", "title": "t"}}))
    assert [group for (group,) in found(fsd50k, "group")] == ["64760", "uploader ann", "5"]


def test_fsd50k_is_chosen_by_a_column_that_only_its_dev_table_has(fsd50k: Path) -> None:
    source = layouts.read(fsd50k, where=("split=val",))
    assert [(sample.group, sample.split) for sample in source.samples] == [("8", "valid"), ("5", "test")]
    assert "eval.csv has no column split: all its clips stay" in source.notes
    with pytest.raises(ValueError, match=r"dev\.csv line 1: no column splot"):
        layouts.read(fsd50k, where=("splot=val",))


def test_fsd50k_packs_in_the_order_of_its_vocabulary(fsd50k: Path, tmp_path: Path) -> None:
    for path in fsd50k.glob("*/*.wav"):
        soundfile.write(path, np.full(1600, 0.1), 16000)
    pack(fsd50k, tmp_path / "shards", Options(workers=1))
    one = shards.open_set(tmp_path / "shards")
    assert one.classes == ("Wind", "Bathtub (filling)", "Animal", "Rain")
    assert sorted(one.rows["split"]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("dev.csv", "fname,labels,mids,split\n8,Fog,x,val\n", "line 2: label 'Fog' is not in vocabulary.csv"),
        ("dev.csv", "fname,labels\n8,Wind\n", "line 1: no column mids, split"),
        ("vocabulary.csv", "Wind,0,/m/03m9d0z\n", "vocabulary.csv line 1: is not 0,NAME,MID"),
        ("eval.csv", "fname,labels,mids\n6,Wind,x\n", "line 2: there is no file .*eval_audio/6.wav"),
    ],
)
def test_fsd50k_mistakes(fsd50k: Path, name: str, text: str, message: str) -> None:
    write(fsd50k / "FSD50K.ground_truth" / name, text)
    with pytest.raises(ValueError, match=message):
        layouts.read(fsd50k)


@pytest.mark.parametrize("above", [".", "wav", "vox1_dev_wav/wav", "dev/aac"])
def test_voxceleb(tmp_path: Path, above: str) -> None:
    suffix = "m4a" if above.endswith("aac") else "wav"
    clips = [f"{above}/id10001/1zcIwhmdeo4/00001.{suffix}", f"{above}/id10001/1zcIwhmdeo4/00002.{suffix}"]
    put(tmp_path, *clips, f"{above}/id10002/-x_y/00001.{suffix}", "readme.txt")
    assert layouts.read(tmp_path).layout == "voxceleb"
    assert found(tmp_path, "labels", "group", "split") == [
        (("id10001",), "1zcIwhmdeo4", None),
        (("id10001",), "1zcIwhmdeo4", None),
        (("id10002",), "-x_y", None),
    ]


def test_voxceleb_with_the_list_of_identification(tmp_path: Path) -> None:
    put(tmp_path, *[f"wav/id10001/abc/0000{number}.wav" for number in range(1, 5)])
    lines = [f"{number} id10001/abc/0000{number}.wav\n" for number in (1, 2, 3)]
    write(tmp_path / "iden_split.txt", "".join(lines) + "1 id10009/x/00001.wav\n")
    source = layouts.read(tmp_path)
    assert [sample.split for sample in source.samples] == ["train", "valid", "test", None]
    assert "names 1 clips that are not there (first: id10009/x/00001.wav)" in source.notes[0]
    assert "1 clips are not in iden_split.txt" in source.notes[1]
    write(tmp_path / "iden_split.txt", "4 id10001/abc/00001.wav\n")
    with pytest.raises(ValueError, match="line 1: is not 1, 2 or 3"):
        layouts.read(tmp_path)


def test_voxlingua107(tmp_path: Path) -> None:
    put(tmp_path, "et/0Bk__U__S100---0480.070-0494.320.wav", "et/0Bk__U__S101---0494.320-0499.000.wav")
    put(tmp_path, "zh-CN/a-b_c---0000.010-0005.000.wav", "dev/et/zz__U__S1---0001.000-0004.000.wav")
    source = layouts.read(tmp_path)
    assert source.layout == "voxlingua107" and "dev/ is taken as split test" in source.notes[0]
    assert found(tmp_path, "labels", "split", "group") == [
        (("et",), "test", "zz"),
        (("et",), "train", "0Bk"),
        (("et",), "train", "0Bk"),
        (("zh-CN",), "train", "a-b_c"),
    ]


def test_folders_of_short_names_are_no_languages(tmp_path: Path) -> None:
    put(tmp_path, "on/1.wav", "cat/2.wav")
    assert layouts.read(tmp_path).layout == "folder"


def kaldi(root: Path, **files: str) -> Path:
    for name, text in files.items():
        write(root / name.replace("_", "."), text)
    return root


def test_kaldi_languages_with_segments(tmp_path: Path) -> None:
    put(tmp_path, "audio/r1.wav", "audio/r2.wav")
    data = kaldi(
        tmp_path / "data/train",
        wav_scp=f"r1 audio/r1.wav\nr2 {tmp_path}/audio/r2.wav\n",
        segments="a-1 r1 0.5 2.0\na-2 r1 2.5 -1\nb-1 r2 0 1\n",
        utt2spk="a-1 ann\na-2 ann\nb-1 bob\n",
        utt2lang="a-1 en\na-2 en\nb-1 fr\n",
    )
    source = layouts.read(data)
    assert (source.layout, source.notes) == ("kaldi", ["classes are those of utt2lang"])
    fields = ("source", "labels", "group", "start", "end")
    assert found(data, *fields) == [
        ("a-1", ("en",), "ann", 0.5, 2.0),
        ("a-2", ("en",), "ann", 2.5, None),
        ("b-1", ("fr",), "bob", 0.0, 1.0),
    ]
    assert found(tmp_path / "data", "source", "split")[0] == ("train/a-1", "train")


def test_kaldi_speakers(tmp_path: Path) -> None:
    put(tmp_path, "1.wav")
    data = kaldi(tmp_path, wav_scp="u1 1.wav\n", utt2spk="u1 ann\n")
    assert found(data, "labels", "group") == [(("ann",), None)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav_scp": "u1 sph2pipe -f wav 1.sph |\n"}, "wav.scp line 1: is a command, and none is run"),
        ({"wav_scp": "u1 2.wav\n"}, "wav.scp line 1: there is no file"),
        ({"wav_scp": "u1\n"}, "wav.scp line 1: u1 stands alone"),
        ({"wav_scp": "u1 1.wav\nu1 1.wav\n"}, "line 2: u1 is there twice, first at .* line 1"),
        ({"wav_scp": "u2 1.wav\n"}, "utterance u2 is not in utt2spk"),
        ({"segments": "u1 r9 0 1\n"}, "segments line 1: recording r9 is not in"),
        ({"segments": "u1 u1 0\n"}, "segments line 1: is not UTTERANCE RECORDING START END"),
        ({"segments": "u1 u1 3 2\n"}, "segments line 1: end '2' is not after start '3'"),
    ],
)
def test_kaldi_mistakes(tmp_path: Path, files: dict[str, str], message: str) -> None:
    put(tmp_path, "1.wav")
    with pytest.raises(ValueError, match=message):
        layouts.read(kaldi(tmp_path, **{"wav_scp": "u1 1.wav\n", "utt2spk": "u1 ann\n", **files}))


@pytest.mark.parametrize("layout", ["fsdkaggle2018", "fsd50k", "voxceleb", "voxlingua107", "kaldi"])
def test_a_layout_that_is_not_there(tmp_path: Path, layout: str) -> None:
    put(tmp_path, "cat.wav")
    with pytest.raises(ValueError, match=r"holds no|there is no such file"):
        layouts.read(tmp_path, layout)
    with pytest.raises(ValueError, match="to choose from; use --group-regex"):
        layouts.read(tmp_path, layout, group="speaker")
