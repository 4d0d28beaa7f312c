"""A view holds the samples that were chosen, each as often as it should, in the order of its shards."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import pack, samples

from dist_train import shards
from dist_train.archive.row import ROW
from dist_train.view import choose


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """12 samples in 3 shards: class dog, cat, cat; folds 1, 2, 3; splits train, train, test, test; growing length."""
    root = tmp_path_factory.mktemp("one")
    split = [("train", "train", "test", "test")[i % 4] for i in range(12)]
    for shard in range(3):
        kept = []
        for number in range(4 * shard, 4 * shard + 4):
            labels = ("dog", "cat", "cat")
            more = {"fold": [i % 3 + 1 for i in range(12)], "split": split, "frames": 800 + 100 * number}
            kept += samples(1, number, labels=labels, **more)
        pack(root / f"{shard}.tar", kept)
    return shards.build(root)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """6 samples in one shard: owl, dog; no folds."""
    root = tmp_path_factory.mktemp("other")
    pack(root / "0.tar", samples(6, 50, labels=("owl", "dog")))
    return shards.build(root)


def keys(view):
    return [view.key(number) for number in range(len(view))]


def everything(view):
    return view.rows(np.arange(len(view)))


def test_all_samples_without_an_array_of_them(one):
    view = choose([one])
    assert view.picked is None and view.left_out == 0
    assert keys(view) == [f"k{number:03d}" for number in range(12)]
    assert view.sizes.tolist() == [4, 4, 4] and view.sizes.dtype == np.int64
    assert view.files == tuple(one.root / f"{shard}.tar" for shard in range(3))
    rows = view.rows(np.array([11, 0, 5]))
    assert rows["file"].tolist() == [2, 0, 1]
    for name in set(ROW.names) - {"shard"}:
        np.testing.assert_array_equal(rows[name], one.rows[name][[11, 0, 5]])
    np.testing.assert_array_equal(view.activity(np.array([3, 3])), one.activity[[3, 3]])


def test_folds_and_their_complement_part_the_set(one):
    inside, outside = choose([one], folds=[2]), choose([one], without_folds=[2])
    assert set(everything(inside)["fold"]) == {2} and set(everything(outside)["fold"]) == {1, 3}
    assert sorted(keys(inside) + keys(outside)) == keys(choose([one]))


def test_splits(one):
    train, rest = choose([one], split="train"), choose([one], without_splits=["train", "valid"])
    assert keys(train) == [f"k{number:03d}" for number in range(12) if number % 4 < 2]
    assert sorted(keys(train) + keys(rest)) == keys(choose([one]))
    assert keys(choose([one], split="test", folds=[1])) == ["k003", "k006"]


def test_short_clips_are_left_out_and_counted(one):
    view = choose([one], min_seconds=1200 / 16000)
    assert keys(view) == [f"k{number:03d}" for number in range(4, 12)]
    assert view.left_out == 4 and view.sizes.tolist() == [4, 4]
    assert set(everything(view)["file"]) == {1, 2}
    assert choose([one], min_seconds=0.01).picked is None
    assert choose([one], folds=[1], min_seconds=1200 / 16000).left_out == 2


def test_balance_repeats_rows_side_by_side(one):
    view = choose([one], balance="class")
    assert keys(view) == [f"k{number:03d}" for number in range(12) for _ in range(2 if number % 3 == 0 else 1)]
    assert view.sizes.tolist() == [6, 5, 5] and len(view) == 16
    assert choose([one], balance="class", split="train").sizes.sum() == 8


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=3), st.sampled_from([0, 0.06, 0.1]), st.sampled_from(["none", "class"]))
def test_any_choice_is_what_a_plain_loop_chooses(one, other, folds, seconds, balance):
    sets, names = (one, other), ("cat", "dog", "owl")
    want = []
    for number, each in enumerate(sets):
        for place, row in enumerate(each.rows):
            if row["fold"] not in folds and row["frames"] >= seconds * row["rate"]:
                want.append((number, each.key(place), names.index(each.classes[row["label"]])))
    if not want:
        with pytest.raises(ValueError, match="no samples left"):
            choose(sets, without_folds=folds, min_seconds=seconds, balance=balance)
        return
    count = np.bincount([label for *_, label in want], minlength=3)
    if balance == "class":
        want = [item for item in want for _ in range(max(1, round(max(count) / count[item[2]])))]
    view = choose(sets, without_folds=folds, min_seconds=seconds, balance=balance)
    rows = everything(view)
    assert keys(view) == [key for _, key, _ in want]
    assert rows["label"].tolist() == [label for *_, label in want]
    files = [view.files[file].parent for file in rows["file"]]
    assert files == [sets[number].root for number, *_ in want]
    assert (np.diff(rows["file"]) >= 0).all()
    assert view.sizes.tolist() == np.unique(rows["file"], return_counts=True)[1].tolist()


def test_sets_are_joined_by_class_name(one, other):
    view = choose([other, one])
    assert view.classes == ("dog", "owl", "cat")
    rows = view.rows(np.array([0, 1, 6, 7, 17]))
    assert [view.classes[label] for label in rows["label"]] == ["owl", "dog", "dog", "cat", "cat"]
    assert rows["file"].tolist() == [0, 0, 1, 1, 3]
    assert view.key(7) == "k001" and view.activity(np.array([5, 6])).shape == (2, 16)


def test_the_trainings_classes_number_those_of_an_evaluation_set(one, other):
    view = choose([one], classes=("owl", "cat", "dog"))
    assert view.classes == ("owl", "cat", "dog") and set(everything(view)["label"]) == {1, 2}
    with pytest.raises(ValueError, match="class 'owl' is not among the 2 classes of the training"):
        choose([one, other], classes=one.classes)


def test_a_strange_class_matters_only_where_it_is_chosen(one):
    assert len(choose([one], classes=("cat",), folds=[2])) == 4
    with pytest.raises(ValueError, match="class 'dog'"):
        choose([one], classes=("cat",), folds=[1, 2])


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"folds": [1, 7]}, "no sample is in fold 7; the folds there: 1, 2, 3"),
        ({"split": "valid"}, "no samples left of 12 by split=valid"),
        ({"min_seconds": 9}, "no samples left of 12 by min_seconds=9.0"),
        ({"folds": [2], "without_folds": [2]}, r"by folds=\[2\], without_folds=\[2\]"),
        ({"split": "mine"}, "split 'mine': there are none, train, valid, test"),
    ],
)
def test_choices_that_leave_nothing(one, choice, text):
    with pytest.raises(ValueError, match=text) as error:
        choose([one], **choice)
    assert "\n" not in str(error.value)


def test_a_set_without_folds_says_so(other):
    with pytest.raises(ValueError, match="the folds there: none"):
        choose([other], folds=[1])


def test_the_digest_is_of_the_sets_and_the_choices(one, other):
    choices = [{}, {"folds": [1]}, {"without_folds": [1]}, {"split": "train"}, {"without_splits": ["train"]}]
    choices += [{"min_seconds": 0.06}, {"balance": "class"}, {"classes": ["dog", "cat"]}]
    views = [choose([one], **choice).digest for choice in choices] + [
        choose([one, other]).digest,
        choose([other]).digest,
    ]
    assert len(set(views)) == len(views) and all(len(digest) == 64 for digest in views)
    assert choose([one], folds=[2, 1]).digest == choose([shards.open_set(one.root)], folds=(1, 2, 1)).digest


def test_ten_million_samples_are_viewed_without_an_array(tmp_path):
    count = 10_000_000
    pack(tmp_path / "0.tar", samples(2))
    info = shards.build(tmp_path).info
    for name, dtype, shape in (
        ("index.npy", ROW, (count,)),
        ("activity.npy", np.dtype("u1"), (count, 16)),
        ("keys.npy", np.dtype("<u8"), (count + 1,)),
    ):
        with (tmp_path / name).open("wb") as file:
            head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            file.truncate(file.tell() + math.prod(shape) * dtype.itemsize)
    del info["sealed"]  # a row of zeros has no checksum
    info = info | {"totals": {"samples": count}, "shards": [info["shards"][0] | {"samples": count}]}
    (tmp_path / "index.json").write_text(json.dumps(info))
    tracemalloc.start()
    view = choose([shards.open_set(tmp_path)])
    rows = view.rows(np.arange(count - 64, count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(view), len(rows)) == (count, 64)
    assert peak < 1 << 20
