"""Opening an index: instant however long it is, and refused where it does not fit the shards."""

import json
import math
import shutil

import numpy as np
import pytest
from tars import pack, samples

from dist_train import shards
from dist_train.archive.row import ROW


@pytest.fixture
def folder(tmp_path):
    pack(tmp_path / "a.tar", samples(6, fold=[i % 3 for i in range(10)], split="train", group="g"))
    pack(tmp_path / "b.tar", samples(4, 6))
    return tmp_path


def assert_refused_at_opening(path, text):
    with pytest.raises(ValueError, match=text) as error:
        shards.open_set(path)
    assert "\n" not in str(error.value)


def test_opening_without_shards_or_index(tmp_path, folder):
    assert_refused_at_opening(
        tmp_path / "nowhere", r"no folder of shards there: python tools/make_shards\.py pack SOURCE"
    )
    assert_refused_at_opening("pipe:cat shards.tar", "runs a shell")
    assert_refused_at_opening("hdfs://host/shards", "hdfs:// is not supported, only local paths, s3://")
    (tmp_path / "empty").mkdir()
    assert_refused_at_opening(tmp_path / "empty", r"no \.tar in it: python tools/make_shards\.py pack")
    (tmp_path / "empty" / "x.tar.gz").touch()
    assert_refused_at_opening(tmp_path / "empty", "gunzip")
    assert_refused_at_opening(folder, r"no index: python tools/make_shards\.py index")


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda folder: (folder / "b.tar").unlink(), r"b\.tar: in the index but not on disk"),
        (lambda folder: (folder / "b.tar").write_bytes(b"x" * 512), r"b\.tar: 512 bytes, the index says"),
        (lambda folder: shutil.copy(folder / "b.tar", folder / "c.tar"), r"c\.tar: not in the index"),
        (lambda folder: edit(folder, version=99), "index format 99, this program reads 1"),
        (lambda folder: (folder / "index.json").write_text("{"), "not JSON"),
        (lambda folder: edit(folder, classes=None), "no classes in it"),
        (lambda folder: edit(folder, totals={"samples": 11, "seconds": 1}), "11 samples in all, 10 in its shards"),
        (
            lambda folder: np.save(folder / "index.npy", np.zeros(9, ROW)),
            r"index\.npy: absent, or does not fit index\.json",
        ),
        (lambda folder: np.save(folder / "index.npy", np.zeros(10)), r"index\.npy: absent, or does not fit"),
        (
            lambda folder: (folder / "index.npy").write_bytes((folder / "index.npy").read_bytes()[:-5]),
            r"index\.npy: absent, or",
        ),
        (lambda folder: (folder / "keys.bin").unlink(), r"keys\.bin: absent, or"),
        (lambda folder: (folder / "activity.npy").write_bytes(b""), r"activity\.npy: absent, or"),
    ],
)
def test_opening_refuses_what_does_not_fit(folder, harm, text):
    shards.build(folder)
    harm(folder)
    assert_refused_at_opening(folder, text)


def edit(folder, **changes):
    info = json.loads((folder / "index.json").read_text())
    info |= changes
    (folder / "index.json").write_text(json.dumps({name: value for name, value in info.items() if value is not None}))


def sparse(path, dtype, shape):
    with path.open("wb") as file:
        head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
        file.truncate(file.tell() + math.prod(shape) * dtype.itemsize)


def test_ten_million_rows_open_without_being_read(tmp_path):
    """A sparse index: were it read, it would take a gigabyte of memory; the maps take none."""
    count = 10_000_000
    info = shards.build(pack(tmp_path / "a.tar", samples(2)) and tmp_path).info
    sparse(tmp_path / "index.npy", ROW, (count,))
    sparse(tmp_path / "activity.npy", np.dtype("u1"), (count, 16))
    sparse(tmp_path / "keys.npy", np.dtype("<u8"), (count + 1,))
    edit(tmp_path, totals={"samples": count, "seconds": 0}, shards=[info["shards"][0] | {"samples": count}])
    found = shards.open_set(tmp_path)
    assert len(found) == count
    assert found.rows[count - 1]["size"] == 0
    assert isinstance(found.rows, np.memmap)
