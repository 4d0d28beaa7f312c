"""Byte ranges of a store: the same bytes as from local files, few of them for nothing, many requests at once."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from faulty import Faulty
from hypothesis import given
from hypothesis import strategies as st
from launches import make_shards, settings
from tars import pack

from dist_train import feed, shards
from dist_train.feed import windows
from dist_train.reader import RawBatch, Reader
from dist_train.supply import source
from dist_train.supply.ranges import IN_FLIGHT, LONGEST, Ranges, spans
from dist_train.view import View, choose
from dist_train.world import Place, World

WORLD = World(Place(), device=None, backend="gloo", threads=1)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def server(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Faulty(local) as server:
        yield server


def ranges(server: Faulty, view: View, patience: float = 60.0) -> Ranges:
    """The view's shards on the server."""
    return Ranges([f"{server.address}/{Path(file).name}" for file in view.files], view.bytes, patience)


def heard(batch: RawBatch) -> list[bytes]:
    """The bytes of each row that mean something."""
    found = []
    for row, one in enumerate(batch.plan):
        width, lead = 2 * int(one["channels"]), max(0, -int(one["first"]))
        count = min(int(one["first"] + one["count"]), int(one["frames"])) - max(0, int(one["first"]))
        found.append(batch.data[row, lead * width : (lead + count) * width].numpy().tobytes())
    return found


def counted(server: Faulty) -> tuple[int, int]:
    """Bytes and requests for shards alone, since the last time."""
    found = server.sent, server.gets
    server.sent = server.gets = 0
    return found


rows_of_shards = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 40_000), st.integers(0, 3000)), min_size=1, max_size=60
)


@given(rows_of_shards)
def test_spans_hold_every_row_and_little_else(rows: list[tuple[int, int, int]]) -> None:
    files, offsets, sizes = (list(column) for column in zip(*rows, strict=True))
    found = spans(range(len(rows)), files, offsets, sizes)
    assert sorted(row for span in found for row in span.rows) == [row for row in range(len(rows)) if sizes[row]]
    wanted = {(file, byte) for file, start, size in rows for byte in range(start, start + size)}
    for span in found:
        for row in span.rows:
            assert span.file == files[row] and span.start <= offsets[row]
            assert offsets[row] + sizes[row] <= span.stop
    fetched = sum(span.stop - span.start for span in found)
    assert len(wanted) <= fetched <= 1.05 * len(wanted)


def test_neighbours_are_one_request() -> None:
    assert len(spans([0, 1, 2], [0, 0, 0], [0, 1000, 2010], [1000, 1000, 1000])) == 1
    assert len(spans([0, 1], [0, 0], [0, 1500], [1000, 1000])) == 2  # half as much again for nothing
    assert len(spans([0, 1], [0, 1], [0, 1000], [1000, 1000])) == 2
    assert len(spans([0, 1], [0, 0], [0, LONGEST], [LONGEST, 1000])) == 2


def test_an_epoch_of_windows_is_the_same_and_costs_no_more(server: Faulty, local: Path) -> None:
    """Batches as the training takes them, from files and by ranges, beside what the server sent."""
    config = settings(local, "run.epochs=1", "audio.seconds=0.3")
    view = feed.views(config).train
    requests = list(windows(view, config, WORLD, 0, len(view)))
    with Reader(source.of_view(view), iter(requests)) as reader:
        expected = [(batch.plan.copy(), heard(batch)) for batch in reader]
    far = ranges(server, view)
    with Reader(far, iter(requests), threads=2, depth=4) as reader:
        for (plan, sounds), batch in zip(expected, reader, strict=True):
            assert (batch.plan == plan).all() and heard(batch) == sounds and batch.bad == []
    used = sum(len(sound) for _, sounds in expected for sound in sounds)
    sent, gets = counted(server)
    assert used <= sent <= 1.05 * used and 0 < gets <= len(view)
    assert far.traffic() == (sent, gets, 0)


def test_many_requests_at_once(server: Faulty) -> None:
    """Each answer takes its time; they take it together."""
    view = choose([shards.open_set(server.folder)])
    server.delay = 0.3
    far, rows = ranges(server, view), view.rows(np.arange(len(view)))
    buffers = [memoryview(bytearray(int(size))) for size in rows["size"]]
    assert far.read_rows(rows["file"].tolist(), rows["offset"].tolist(), buffers) == {}
    far.close()
    assert min(IN_FLIGHT, len(view)) >= server.most >= 16


def test_faults_that_pass_change_nothing(server: Faulty, local: Path) -> None:
    view = choose([shards.open_set(local)])
    rows = view.rows(np.arange(len(view)))
    faults = ("503", None, "cut", None, "drop", None, "429", None, "stall", None)
    server.fault = lambda name, number: faults[number % len(faults)] if number < 60 else None
    far, near = ranges(server, view, patience=6.0), source.of_view(view)
    found = []
    for files in (far, near):
        buffers = [memoryview(bytearray(int(size))) for size in rows["size"]]
        assert files.read_rows(rows["file"].tolist(), rows["offset"].tolist(), buffers) == {}
        files.close()
        found.append([bytes(buffer) for buffer in buffers])
    assert found[0] == found[1]
    assert far.traffic()[2] >= 20 and far.traffic()[1] == server.gets


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("404", "is not there"),
        ("403", "access denied"),
        ("truncated", "it was replaced"),
        ("longer", "it was replaced"),
    ],
)
def test_what_is_wrong_with_a_shard_stops_the_reader(server: Faulty, fault: str, text: str) -> None:
    """No sample is called bad for it."""
    view = choose([shards.open_set(server.folder)])
    server.fault = lambda name, number: fault if name == "tiny-1.tar" else None
    config = settings(server.folder)
    with (
        pytest.raises(ValueError, match=rf"tiny-1\.tar: .*{text}") as caught,
        Reader(ranges(server, view), windows(view, config, WORLD, 0, len(view))) as reader,
    ):
        for _ in reader:
            pass
    assert "\n" not in str(caught.value)


def test_a_store_that_stays_away_stops_the_reader(server: Faulty) -> None:
    view = choose([shards.open_set(server.folder)])
    server.fault = lambda name, number: "503"
    with (
        pytest.raises(ConnectionError, match=r"no answer in 1 s"),
        Reader(ranges(server, view, 1.0), windows(view, settings(server.folder), WORLD, 0, 8)) as reader,
    ):
        next(reader)


def test_a_row_behind_its_shard_is_a_bad_sample(server: Faulty) -> None:
    view = choose([shards.open_set(server.folder)])
    far, buffer = ranges(server, view), memoryview(bytearray(100))
    failed = far.read_rows([0, 0], [512, view.bytes[0] - 50], [buffer, memoryview(bytearray(100))])
    assert list(failed) == [1] and "the index is damaged" in str(failed[1])
    assert bytes(buffer) == (server.folder / "tiny-0.tar").read_bytes()[512:612]


@pytest.mark.parametrize("form", ["FLAC", "OGG"])
def test_compressed_clips_are_fetched_whole(tmp_path: Path, form: str) -> None:
    sound = (np.random.default_rng(0).normal(size=16000) * 3000).astype("<i2")
    soundfile.write(file := io.BytesIO(), sound, 16000, format=form)
    folder = tmp_path / "packed"
    members = [
        (f"{name}.{kind}", data)
        for name in "abc"
        for kind, data in ((form.lower(), file.getvalue()), ("json", json.dumps({"label": name}).encode()))
    ]
    folder.mkdir()
    pack(folder / "a.tar", members)
    view = choose([shards.build(folder, workers=1)])
    config = settings(folder, "audio.seconds=0.2")
    found = []
    with Faulty(folder) as server:
        for files in (source.of_view(view), ranges(server, view)):
            with Reader(files, windows(view, config, WORLD, 0, 3)) as reader:
                found.append([heard(batch) for batch in reader])
        sizes = view.rows(np.arange(3))["size"].sum()
        assert sizes <= server.sent <= 1.05 * sizes
    assert found[0] == found[1] and all(len(sound) > 5000 for sound in found[0][0])


def test_shards_here_and_there(server: Faulty, local: Path, tmp_path: Path) -> None:
    """One view of a local set and one at an address."""
    sets = [shards.open_set(local), shards.open_set(server.address)]
    mixed, near = choose(sets), choose([sets[0], sets[0]])
    counted(server)
    config = settings(local)
    found = []
    for view in (mixed, near):
        with Reader(source.of_view(view), windows(view, config, WORLD, 0, len(view))) as reader:
            found.append([heard(batch) for batch in reader])
    assert found[0] == found[1]
    sent, gets = counted(server)
    assert sent > 0 and gets >= len(sets[0]) // 2
    assert source.of_view(mixed).traffic() == (0, 0, 0) and source.of_view(near).traffic() is None
