"""Each source layout gives the samples that lie there, and every mistake in it is one line that names the place."""

import shutil
import subprocess
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from dist_train.sources import classes, layouts
from dist_train.sources.samples import Sample

HEADER = "path,label,fold,group,split,start,end\n"


def put(root: Path, *names: str) -> None:
    """Empty files: layouts look at names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_folder_names_are_classes_whatever_they_look_like(tmp_path: Path) -> None:
    names = ["007", "a b", "on", "yes", "鸟叫声"]
    put(tmp_path, *[f"{name}/deep/er/1.WAV" for name in names], "on/notes.txt", ".git/x.wav")
    source = layouts.read(tmp_path)
    assert source.layout == "folder"
    assert [sample.labels for sample in source.samples] == [(name,) for name in names]
    assert source.samples[0].source == "007/deep/er/1.WAV"
    assert source.notes == ["1 other files are ignored (.txt)"]


def test_names_are_composed(tmp_path: Path) -> None:
    put(tmp_path, unicodedata.normalize("NFD", "forêt/é.wav"))
    sample = layouts.read(tmp_path).samples[0]
    assert (sample.labels, sample.source) == (("forêt",), "forêt/é.wav")
    assert sample.path.is_file()


@pytest.mark.parametrize(
    ("parts", "field", "values"),
    [
        (("train", "val", "Test"), "split", {"train", "valid", "test"}),
        (("fold1", "fold_2", "Fold 10"), "fold", {1, 2, 10}),
    ],
)
def test_folders_of_splits_and_folds(tmp_path: Path, parts: tuple[str, ...], field: str, values: set[object]) -> None:
    put(tmp_path, *[f"{part}/{name}/{part}.wav" for part in parts for name in ("cat", "dog")])
    source = layouts.read(tmp_path)
    assert {getattr(sample, field) for sample in source.samples} == values
    assert {sample.labels for sample in source.samples} == {("cat",), ("dog",)}
    assert len(source.notes) == 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["dog/x.txt", "cat/1.wav"], "dog: the class folder holds no recordings"),
        (["1.wav", "cat/2.wav"], "1.wav: lies in no class folder"),
        (["readme.txt"], "holds no class folders"),
    ],
)
def test_folder_mistakes(tmp_path: Path, names: list[str], message: str) -> None:
    put(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        layouts.read(tmp_path)


def test_csv_in_any_order_of_columns(tmp_path: Path) -> None:
    put(tmp_path, "audio/a,b.wav", "audio/c.wav")
    header = "\ufefflabel,end,path,split,fold,group,start"
    rows = 'rain;wind,1.5,"audio/a,b.wav",dev,3,mic,.5\nrain,,audio/c.wav,,,,'
    table = write(tmp_path / "table.csv", f"{header}\n{rows}\n")
    expected = [
        ("audio/a,b.wav", ("rain", "wind"), 3, "valid", "mic", 0.5, 1.5),
        ("audio/c.wav", ("rain",), None, None, None, None, None),
    ]
    for root in (table, tmp_path):
        source = layouts.read(root)
        found = [(s.source, s.labels, s.fold, s.split, s.group, s.start, s.end) for s in source.samples]
        assert (source.layout, found) == ("csv", expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b.wav,x,,,,,\n", "line 2: there is no file .*b.wav"),
        ("a.wav,,,,,,\n", "line 2: the label is empty"),
        ("a.wav,x,one,,,,\n", "line 2: fold 'one'"),
        ("a.wav,x,40000,,,,\n", "line 2: fold '40000'"),
        ("a.wav,x,,,tests,,\n", "line 2: split 'tests' is none of"),
        ("a.wav,x,,,,-1,\n", "line 2: start '-1'"),
        ("a.wav,x,,,,nan,\n", "line 2: start 'nan'"),
        ("a.wav,x,,,,2,1\n", "line 2: end '1' is not after start '2'"),
        ("a.wav,x,,,,,\na.wav,y,,,,,\n", "line 3: a.wav appears twice, first at .* line 2"),
        ("a.wav,x\n", "line 2: has 2 fields, the header 7"),
        ("", "has no rows"),
    ],
)
def test_csv_rows_with_mistakes(tmp_path: Path, rows: str, message: str) -> None:
    put(tmp_path, "a.wav")
    with pytest.raises(ValueError, match=message):
        layouts.read(write(tmp_path / "t.csv", HEADER + rows))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("file,label", "line 1: no column path; the header is path,label"),
        ("path,label,speaker", "line 1: unknown column speaker"),
        ("path,label,label", "line 1: a column name appears twice"),
        ("", "no column path and label"),
    ],
)
def test_csv_headers_with_mistakes(tmp_path: Path, header: str, message: str) -> None:
    put(tmp_path, "a.wav")
    with pytest.raises(ValueError, match=message):
        layouts.read(write(tmp_path / "t.csv", f"{header}\na.wav,x,y\n"))


def test_group_column_and_group_regex(tmp_path: Path) -> None:
    put(tmp_path, "s1_a.wav", "s2_b.wav")
    table = write(tmp_path / "t.csv", "path,label,speaker\ns1_a.wav,x,ann\ns2_b.wav,x,bob\n")
    assert [s.group for s in layouts.read(table, group="speaker").samples] == ["ann", "bob"]
    assert [s.group for s in layouts.read(table, "csv", "speaker", r"(s\d)_").samples] == ["s1", "s2"]
    with pytest.raises(ValueError, match=r"fits no path, for example not s1_a\.wav"):
        layouts.read(table, "csv", "speaker", "z")
    with pytest.raises(ValueError, match="no column mic"):
        layouts.read(table, group="mic")


@pytest.mark.parametrize(("coding", "folder"), [("gbk", True), ("gbk", False), ("utf-16", False)])
def test_a_table_of_a_chinese_windows_says_what_mends_it(tmp_path: Path, coding: str, folder: bool) -> None:
    """The command in the message is run; the only CSV of a folder is not passed over for its folders."""
    if shutil.which("iconv") is None:
        pytest.skip("no iconv")
    root = tmp_path / "我的 录音"
    put(root, "狗叫/一.wav", "雨声/二.wav")
    table = root / "标签 表.csv"
    table.write_bytes("path,label,fold\r\n狗叫/一.wav,狗叫,1\r\n雨声/二.wav,雨声,2\r\n".encode(coding))
    with pytest.raises(ValueError, match="is not UTF-8 text") as caught:
        layouts.read(root if folder else table)
    command = str(caught.value).split(": ")[2].removesuffix(", or save it as UTF-8 (Excel")
    assert command.startswith("iconv ")
    subprocess.run(command, shell=True, check=True)
    found = layouts.read(root / "标签 表-utf8.csv").samples
    assert [(sample.labels, sample.fold) for sample in found] == [(("狗叫",), 1), (("雨声",), 2)]


def test_lists_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    put(tmp_path, "狗叫/一.wav")
    (tmp_path / "train_list.txt").write_bytes("狗叫/一.wav\t狗叫\n".encode("gbk"))
    with pytest.raises(ValueError, match=r"train_list\.txt: is not UTF-8 text; it looks like GB18030"):
        layouts.read(tmp_path)
    write(tmp_path / "train_list.txt", "狗叫/一.wav\t0\n")
    (tmp_path / "label_list.txt").write_bytes("狗叫\n".encode("gbk"))
    with pytest.raises(ValueError, match=r"label_list\.txt: is not UTF-8 text; it looks like GB18030"):
        layouts.read(tmp_path)
    (tmp_path / "label_list.txt").write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text; find out what it is"):
        layouts.read(tmp_path)


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    put(tmp_path, "狗 叫/一（１）.wav", r"雨\二.wav")
    (tmp_path / "表.csv").write_bytes(
        "path,label\r\n狗 叫\\一（１）.wav,狗叫\r\n雨\\二.wav,雨声\r\n".encode("utf-8-sig")
    )
    found = layouts.read(tmp_path / "表.csv").samples
    assert [sample.source for sample in found] == ["狗 叫/一（１）.wav", r"雨\二.wav"]


def test_lists_with_class_numbers(tmp_path: Path) -> None:
    put(tmp_path / "dataset", "audio/a b.wav", "audio/c.wav")
    write(tmp_path / "dataset/train_list.txt", "dataset/audio/a b.wav\t1\n")
    write(tmp_path / "dataset/test_list.txt", "audio/c.wav\t0\n\n")
    write(tmp_path / "dataset/label_list.txt", "cat\ndog\n")
    source = layouts.read(tmp_path / "dataset")
    found = [(s.source, s.labels, s.split) for s in source.samples]
    assert found == [("audio/a b.wav", ("dog",), "train"), ("audio/c.wav", ("cat",), "test")]
    with pytest.raises(ValueError, match=r"train_list\.txt line 1: class number 1 is not below the 1 names"):
        write(tmp_path / "dataset/label_list.txt", "cat\n")
        layouts.read(tmp_path / "dataset")


def test_esc10_as_it_comes(esc10: Path) -> None:
    source = layouts.read(esc10)
    assert source.layout == "esc"
    assert Counter(sample.fold for sample in source.samples) == dict.fromkeys(range(1, 6), 80)
    assert Counter(sample.labels[0] for sample in source.samples)["Dog bark"] == 40
    assert source.samples[0].group == "100032"
    folds = {(sample.group, sample.fold) for sample in source.samples}
    assert len(folds) == len({group for group, _ in folds})


def test_esc50_by_its_table(tmp_path: Path) -> None:
    put(tmp_path, "audio/1-100032-A-0.wav", "audio/2-5-B-14.wav")
    rows = "1-100032-A-0.wav,1,0,dog,True,100032,A\n2-5-B-14.wav,2,14,chirping_birds,False,5,B\n"
    write(tmp_path / "meta/esc50.csv", f"filename,fold,target,category,esc10,src_file,take\n{rows}")
    source = layouts.read(tmp_path)
    found = [(s.labels, s.fold, s.group) for s in source.samples]
    assert (source.layout, found) == ("esc", [(("dog",), 1, "100032"), (("chirping birds",), 2, "5")])


def test_urbansound8k(tmp_path: Path) -> None:
    put(tmp_path, "audio/fold5/1-2-0-0.wav", "audio/fold10/7-3-1-2.wav")
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    rows = "1-2-0-0.wav,1,0,4,1,5,2,dog_bark\n7-3-1-2.wav,7,0,1,2,10,3,siren\n"
    write(tmp_path / "metadata/UrbanSound8K.csv", header + rows)
    source = layouts.read(tmp_path)
    found = [(s.labels, s.fold, s.group) for s in source.samples]
    assert (source.layout, found) == ("urbansound8k", [(("siren",), 10, "7"), (("dog bark",), 5, "1")])


def test_speechcommands(tmp_path: Path) -> None:
    clips = ["on/aa_nohash_0.wav", "on/bb_nohash_0.wav", "yes/cc_nohash_1.wav", "_background_noise_/hum.wav"]
    put(tmp_path, *clips)
    write(tmp_path / "validation_list.txt", "on/bb_nohash_0.wav\n")
    write(tmp_path / "testing_list.txt", "yes/cc_nohash_1.wav\n")
    source = layouts.read(tmp_path)
    found = [(s.labels, s.split, s.group) for s in source.samples]
    assert found == [(("on",), "train", "aa"), (("on",), "valid", "bb"), (("yes",), "test", "cc")]
    assert source.layout == "speechcommands"
    assert "_background_noise_ (1 recordings) is left out" in source.notes[0]


def _samples(*labels: tuple[str, ...]) -> list[Sample]:
    return [Sample(Path(f"{number}.wav"), f"{number}.wav", held) for number, held in enumerate(labels)]


def test_classes_file_orders_drops_renames_and_merges(tmp_path: Path) -> None:
    text = "# order of the old system\nwind\nanimal <- cat, dog\nChuckle, chortle\tlaugh, quiet\n"
    names = classes.read(write(tmp_path / "classes.txt", text))
    samples = _samples(("cat", "dog"), ("wind", "rain"), ("rain",), ("laugh, quiet",))
    kept, ordered, notes = classes.choose(samples, names)
    assert ordered == ("wind", "animal", "Chuckle, chortle")
    assert [sample.labels for sample in kept] == [("animal",), ("wind",), ("Chuckle, chortle",)]
    assert notes == ["1 clips are dropped, for the classes file does not name rain (2)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\ncat\n", "line 2: class 'cat' is there twice"),
        ("a <- cat\nb <- cat\n", "line 2: 'cat' already goes to 'a'"),
        ("a <- \n", "line 1: the label is empty"),
        ("\n", "names no class"),
    ],
)
def test_classes_files_with_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classes.read(write(tmp_path / "classes.txt", text))


def test_classes_without_a_file_are_sorted() -> None:
    assert classes.choose(_samples(("b",), ("a",), ("on",)), None)[1] == ("a", "b", "on")
    assert classes.choose(_samples(("10",), ("9",)), None)[1] == ("9", "10")
