"""The reader: bytes as they lie in the files, in order, in few buffers; bad rows named; no thread left or hanging."""

import gc
import io
import os
import re
import sys
import threading

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_train.archive.row import BYTES, CODECS
from dist_train.compressed import decode
from dist_train.payload import Buffer, Payload
from dist_train.reader import Reader
from dist_train.storage import Files, copied_read, local, locked_read, system_read, vector_read
from dist_train.window import PLAN

RATE = 16000
RNG = np.random.default_rng(0)


def rows(number, /, **fields):
    """Plan rows of 100 frames of 16-bit mono, one after another in file 0, all of each wanted."""
    plan = np.zeros(number, PLAN)
    plan["id"] = plan["position"] = np.arange(number)
    plan["label"] = np.arange(number) + 1000
    plan["frames"], plan["rate"], plan["channels"], plan["weight"], plan["codec"] = 100, RATE, 1, 1, CODECS.S16
    for name, value in fields.items():
        plan[name] = value
    width = np.array([BYTES.get(CODECS(int(code)), 0) for code in plan["codec"]]) * plan["channels"]
    if "size" not in fields:
        plan["size"] = plan["frames"] * width
    if "offset" not in fields:
        plan["offset"] = np.cumsum(plan["size"]) - plan["size"]
    if "count" not in fields:
        plan["count"] = plan["frames"]
    return plan


@pytest.fixture
def shard(tmp_path):
    """A file of 64 KiB of noise and its bytes."""
    content = RNG.integers(0, 256, 65536, dtype=np.uint8).tobytes()
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    return path, content


def one(plan, paths, threads=1):
    """The batch of a single request."""
    with Reader(Files(paths), iter([plan]), threads) as reader:
        return next(reader)


def encoded(sound, kind, subtype, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(frames=40_000, channels=2):
    time = np.arange(frames) / RATE
    sound = 0.4 * np.sin(2 * np.pi * 440 * time) + 0.05 * RNG.standard_normal(frames)
    return np.stack([sound * (1 - 0.5 * channel) for channel in range(channels)], 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_hold_the_wanted_frames(tmp_path_factory, data):
    """Any codec, window, channels, file and number of threads: the clip's bytes at the place that `first` says."""
    folder = tmp_path_factory.mktemp("any")
    count = data.draw(st.integers(1, 40))
    draw = RNG.integers
    plan = rows(count, codec=draw(1, 9, count), channels=draw(1, 4, count), frames=draw(1, 60, count))
    plan["first"], plan["count"] = draw(-30, 70, count), draw(0, 90, count)
    contents = [RNG.integers(0, 128, int(plan["size"].sum()) + 1, dtype=np.uint8).tobytes() for _ in range(3)]
    paths = [folder / f"{number}.tar" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    plan["file"] = draw(0, 3, count)
    with Reader(Files(paths, limit=2), iter([plan]), data.draw(st.integers(1, 3))) as reader:
        batch = next(reader)
    assert not batch.bad and batch.data.shape[0] == count and batch.data.shape[1] % 64 == 0
    assert (batch.plan == plan).all()
    for row, wanted in enumerate(plan):
        width = BYTES[int(wanted["codec"])] * int(wanted["channels"])
        first, frames = int(wanted["first"]), int(wanted["frames"])
        begin, end = max(first, 0), max(min(first + int(wanted["count"]), frames), 0)
        place, offset = max(-first, 0) * width, int(wanted["offset"])
        expected = contents[wanted["file"]][offset + begin * width : offset + end * width] if end > begin else b""
        assert bytes(batch.data[row].numpy()[place : place + len(expected)]) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_from_few_buffers(shard, threads):
    """Five thousand reads: the memory is that of 2 * depth buffers, used again and again."""
    path, content = shard
    plan, depth = rows(300), 2
    requests = [plan[RNG.permutation(300)[: 23 + number % 3]] for number in range(200)]
    seen = set()
    with Reader(Files([path]), iter(requests), threads, depth) as reader:
        for request, batch in zip(requests, reader, strict=True):
            seen.add(batch.data.untyped_storage().data_ptr())
            assert (batch.plan == request).all() and batch.read_seconds > 0
            assert all(
                bytes(batch.data[i, :200].numpy()) == content[o : o + 200] for i, o in enumerate(request["offset"])
            )
    assert len(seen) <= 2 * depth


def test_a_batch_stays_as_it_is_until_depth_more_are_taken(shard):
    path, content = shard
    plan, depth = rows(320).reshape(-1, 8), 3
    with Reader(Files([path]), iter(plan), 2, depth) as reader:
        kept = []
        for number, batch in enumerate(reader):
            kept.append(batch)
            for back in range(min(depth, number + 1)):
                offset = int(plan[number - back]["offset"][0])
                assert bytes(kept[-1 - back].data[0, :200].numpy()) == content[offset : offset + 200]


def test_released_buffers_are_used_once_their_event_happened(shard):
    """Releasing at once leaves depth + 1 buffers; no buffer is written to before its event has happened."""
    waits = []

    class Event:
        def synchronize(self):
            waits.append(threading.current_thread().name)

    seen = set()
    with Reader(Files([shard[0]]), iter(rows(320).reshape(-1, 8)), 1, 2) as reader:
        for batch in reader:
            seen.add(batch.data.untyped_storage().data_ptr())
            batch.release(Event())
            batch.release(Event())
    assert len(seen) <= 3
    assert len(waits) == 40 - len(seen) and set(waits) == {"reader-0"}


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
)
def test_compressed_clips_become_int16(tmp_path, kind, subtype):
    """The wanted window of each, as decoding the whole file gives it, beside a PCM row of the same batch."""
    payload = encoded(tone(), kind, subtype)
    whole = soundfile.read(io.BytesIO(payload), dtype="float64", always_2d=True)[0]
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(100) + payload)
    plan = rows(
        4, codec=[CODECS.FILE] * 3 + [CODECS.S16], channels=2, frames=[len(whole)] * 3 + [20], size=len(payload)
    )
    plan["offset"], plan["first"], plan["count"] = (
        [100, 100, 100, 0],
        [-50, 20_001, len(whole) - 100, 0],
        [300, 300, 300, 20],
    )
    batch = one(plan, [path], 2)
    assert not batch.bad and (batch.plan["codec"] == CODECS.S16).all()
    for row, (place, begin, end) in enumerate([(50, 0, 250), (0, 20_001, 20_301), (0, len(whole) - 100, len(whole))]):
        frames = batch.data[row].numpy().view("<i2").reshape(-1, 2)[place : place + end - begin]
        assert np.abs(frames - whole[begin:end] * 32768).max() <= 0.51
    assert not batch.data[3, :80].any()


def test_the_end_of_a_vorbis_file_is_the_end():
    """Seeking into the last page goes wrong in one of five such files."""
    time = np.arange(40_000) / RATE
    for seed in range(8):
        sound = 0.4 * np.sin(2 * np.pi * 440 * time) + 0.05 * np.random.default_rng(seed).standard_normal(40_000)
        payload = encoded(np.stack([sound, 0.5 * sound], 1), "OGG", "VORBIS")
        whole = decode(payload, CODECS.FILE, 0, 40_000, 2, RATE)
        assert (decode(payload, CODECS.FILE, 39_700, 40_000, 2, RATE) == whole[39_700:]).all()


def test_loud_and_float_files_are_clipped_not_wrapped():
    loud = np.array([[1.5], [-1.5], [0.25]] * 400)
    frames = decode(encoded(loud, "CAF", "FLOAT"), CODECS.FILE, 0, 3, 1, RATE)
    assert frames.tolist() == [[32767], [-32768], [8192]]


def test_av_formats_become_int16(tmp_path):
    av = pytest.importorskip("av")
    file, sound = io.BytesIO(), tone(32_000, 1)[:, 0].astype(np.float32)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    payload = file.getvalue()
    (tmp_path / "a.tar").write_bytes(payload)
    with av.open(io.BytesIO(payload)) as container:
        whole = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    plan = rows(2, codec=CODECS.AV, size=len(payload), offset=0, frames=len(whole), first=[0, 9_999], count=5_000)
    batch = one(plan, [tmp_path / "a.tar"])
    assert not batch.bad
    frames = batch.data.numpy()[:, :10_000].copy().view("<i2")
    assert np.abs(frames[1] - whole[9_999:14_999] * 32768).max() <= 1
    assert "pip install av" in without_av(payload, len(whole))


def without_av(payload, frames):
    """What is said where PyAV is not installed."""
    hidden = sys.modules.pop("av")
    sys.modules["av"] = None
    try:
        with pytest.raises(ValueError) as said:
            decode(payload, CODECS.AV, 0, frames, 1, RATE)
    finally:
        sys.modules["av"] = hidden
    return str(said.value)


def broken_rows(folder):
    """A batch of one good row of each kind, and bad ones, with what is said of each by its id."""
    flac = encoded(tone(), "FLAC", "PCM_16")
    floats = np.full(100, 0.5, "<f4")
    floats[70] = np.nan
    parts = {
        "good": RNG.integers(0, 256, 200, dtype=np.uint8).tobytes(),
        "flac": flac,
        "noise": RNG.integers(0, 256, 4000, dtype=np.uint8).tobytes(),
        "half": flac[: len(flac) // 2],
        "nan": floats.tobytes(),
    }
    starts = dict(zip(parts, np.cumsum([0, *map(len, parts.values())]).tolist(), strict=False))
    (folder / "a.tar").write_bytes(b"".join(parts.values()))
    end = sum(map(len, parts.values()))
    file = {"codec": CODECS.FILE, "channels": 2, "frames": 40_000}
    cases = [
        ({"offset": starts["good"]}, None),
        ({"offset": starts["nan"], "codec": CODECS.F32, "count": 70}, None),
        ({"offset": starts["flac"], "size": len(flac), **file, "first": 30_000}, None),
        ({"offset": end - 100}, "a.tar, byte .*: 200 bytes wanted, 100 are there"),
        ({"offset": 0, "file": 1}, "b.tar"),
        ({"offset": 0, "size": 198}, "198 bytes hold fewer than the 100 frames"),
        ({"offset": 0, "codec": 99}, "codec 99"),
        ({"offset": starts["nan"], "codec": CODECS.F32}, "not finite"),
        ({"offset": starts["noise"], "size": 4000, **file}, "cannot decode"),
        ({"offset": starts["half"], "size": len(parts["half"]), **file, "first": 35_000}, ""),
        ({"offset": starts["flac"], "size": len(flac), **file, "frames": 50_000, "first": 45_000}, "ends at frame"),
        ({"offset": starts["flac"], "size": len(flac), **file, "rate": 8000}, "2 channels at 16000 Hz"),
        ({"offset": starts["noise"], "size": 4000, **file, "codec": CODECS.AV}, "cannot decode"),
    ]
    plan = rows(len(cases))
    for row, (fields, _) in enumerate(cases):
        size = 400 if fields.get("codec") == CODECS.F32 else 200
        for name, value in {"count": 100, "size": size, **fields}.items():
            plan[name][row] = value
    return plan, {row: said for row, (_, said) in enumerate(cases) if said is not None}


@pytest.mark.parametrize("threads", [1, 4])
def test_bad_rows_are_named_and_become_a_good_one(tmp_path, threads):
    plan, expected = broken_rows(tmp_path)
    batch = one(plan, [tmp_path / "a.tar", tmp_path / "b.tar"], threads)
    said = dict(batch.bad)
    assert said.keys() == expected.keys() and len(batch.bad) == len(expected)
    for row, text in expected.items():
        assert re.search(text, said[row]), (text, said[row])
        assert "\n" not in said[row]
    # The next good row, round the end: row 0.
    for row in expected:
        assert (batch.data[row] == batch.data[0]).all()
        assert batch.plan[row]["weight"] == 0
        for name in set(PLAN.names) - {"weight"}:
            own = name in ("position", "id", "label")
            assert batch.plan[row][name] == (plan[row] if own else batch.plan[0])[name]
    assert (batch.plan["weight"][: len(plan) - len(expected)] == 1).all()


def test_a_batch_without_a_good_row_is_silence(shard):
    batch = one(rows(3, offset=10**9, codec=[2, 5, 16], size=400), [shard[0]])
    assert [place for place, _ in batch.bad] == [0, 1, 2]
    assert (batch.plan["weight"] == 0).all() and (batch.plan["codec"] == CODECS.U8).all()
    assert (batch.data == 128).all() and batch.data.shape[1] >= 100


def test_a_request_without_rows_is_a_batch_without_rows(shard):
    with Reader(Files([shard[0]]), iter([rows(0), rows(2), rows(0)]), 2) as reader:
        assert [len(batch.plan) for batch in reader] == [0, 2, 0]


def test_an_exception_of_the_requests_comes_in_its_place(shard):
    def requests():
        yield rows(3)
        yield rows(4)
        raise RuntimeError("no more")

    reader = Reader(Files([shard[0]]), requests(), 3, 8)
    assert [len(next(reader).plan), len(next(reader).plan)] == [3, 4]
    with pytest.raises(RuntimeError, match="no more"):
        next(reader)
    assert next(reader, None) is None


def test_an_exception_of_a_thread_comes_in_its_place(shard):
    """A file number that the view does not have is a mistake of the program, not a bad sample."""
    requests = [rows(20), rows(20, file=[0] * 19 + [7]), rows(20)]
    with Reader(Files([shard[0]]), iter(requests), 2) as reader:
        assert len(next(reader).plan) == 20
        with pytest.raises(IndexError):
            next(reader)


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader-")]


def test_a_reader_that_is_dropped_leaves_nothing(shard):
    def endless():
        while True:
            yield rows(8)

    for batch in Reader(Files([shard[0]]), endless(), 3):
        assert len(batch.plan) == 8
        break
    gc.collect()
    assert not reader_threads()
    reader = Reader(Files([shard[0]]), endless(), 2)
    next(reader)
    reader.close()
    reader.close()
    assert next(reader, None) is None and not reader_threads()


def test_close_does_not_wait_for_a_read_that_hangs(shard):
    """Nor does the consumer that waits for it, when another thread closes."""
    hang = threading.Event()

    def read(descriptor, buffer, offset):
        hang.wait()
        return 0

    reader = Reader(Files([shard[0]], read=read), iter([rows(2)]), 2)
    waiter = threading.Thread(target=lambda: next(reader, None))
    waiter.start()
    reader.close()
    waiter.join(20)
    assert not waiter.is_alive()
    hang.set()


def read_into(files: Files, file: int, offset: int, buffer: memoryview) -> None:
    """One row, or its error."""
    for error in files.read_rows([file], [offset], [buffer]).values():
        raise error


@pytest.mark.parametrize("read", [vector_read, copied_read, locked_read(), system_read()])
def test_every_way_of_reading_gives_the_same(shard, read):
    path, content = shard
    buffer = memoryview(bytearray(1000))
    files = Files([path], read=read)
    read_into(files, 0, 5000, buffer)
    assert bytes(buffer) == content[5000:6000]
    with pytest.raises(OSError, match=r"a\.tar, byte 65036: 1000 bytes wanted, 500 are there"):
        read_into(files, 0, 65036, buffer)


def test_a_read_that_brings_less_goes_on(shard):
    path, content = shard
    buffer = memoryview(bytearray(1000))
    read_into(Files([path], read=lambda number, part, offset: vector_read(number, part[:37], offset)), 0, 99, buffer)
    assert bytes(buffer) == content[99:1099]


def test_few_files_are_open_and_none_closes_in_use(tmp_path):
    """Eight threads over forty files, four of which may stay open: every read is right."""
    paths = [tmp_path / f"{number}.tar" for number in range(40)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    files, wrong = Files(paths, limit=4), []

    def work(seed):
        buffer = memoryview(bytearray(100))
        for number in np.random.default_rng(seed).integers(0, 40, 500).tolist():
            read_into(files, number, 0, buffer)
            if bytes(buffer) != bytes([number]) * 100:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(files._open) == 4
    files.close()
    assert not files._open


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s3://bucket/a.tar", "only local paths here"),
        ("s3:/bucket/a.tar", "not an address: write SCHEME://BUCKET/PATH"),
        ("https://host/a.tar", "https://"),
        ("gs://b/a.tar", "gs://"),
        ("az://b/a.tar", "az://"),
        ("hdfs://host/a.tar", "hdfs:// is not supported"),
        ("pipe:cat a.tar", "runs a shell"),
    ],
)
def test_addresses_are_refused(name, text):
    with pytest.raises(ValueError, match=text) as said:
        Files([name])
    assert str(said.value).startswith(name)


@pytest.mark.parametrize("name", ["a.tar", "/data/a.tar", "C:/data/a.tar", "./pipes/a.tar"])
def test_paths_are_local(name):
    assert str(local(name)) == name.removeprefix("./")


def test_a_buffer_grows_and_stays():
    buffer, files = Buffer(pin=False), Files([])
    sizes = [Payload(rows(count, first=200), buffer, files).mend()[0].data_ptr() for count in (9, 5, 9, 10)]
    assert len(set(sizes)) == 1


def test_a_file_that_was_replaced_is_refused_when_it_is_opened(tmp_path):
    """Not called a bad sample: whatever lies there now, the index does not speak of it."""
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(bytes(100))
    files, buffer = Files(paths, limit=1, sizes=[100, 100, 99]), memoryview(bytearray(10))
    read_into(files, 0, 0, buffer)
    with pytest.raises(ValueError, match="c: 100 bytes, the index says 99: it was replaced"):
        read_into(files, 2, 0, buffer)
    paths[1].unlink()
    with pytest.raises(ValueError, match="b: is gone"):
        files.read_rows([1], [0], [buffer])
    read_into(files, 0, 90, buffer)
    files.close()
    paths[0].unlink()
    paths[0].write_bytes(bytes(100))
    os.utime(paths[0], ns=(0, 1))
    with pytest.raises(ValueError, match="a: was changed under the run"):
        read_into(files, 0, 0, buffer)
