"""Shards in a local cache: one download a host, nothing half, nothing wrong, nothing more than there is room for."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty import Faulty
from filelock import FileLock
from launches import CLASSES, Job, arguments, process, settings, train
from same import assert_same_end
from servers import Seaweed
from stores import upload
from tars import pack, patch, wav

from dist_train import shards
from dist_train.feed import ahead, opened, windows
from dist_train.reader import Reader
from dist_train.settings import Config
from dist_train.stores.bucket import Bucket
from dist_train.supply import cache, cached, source
from dist_train.supply.ahead import Pass
from dist_train.supply.cache import Cache, Full, Shard
from dist_train.supply.claims import Claims, held
from dist_train.view import View, choose
from dist_train.world import Place, World

COUNT, CLIPS = 24, 10  # shards, clips a shard


def make(folder: Path, count: int = COUNT, seed: int = 0) -> Path:
    """`count` shards of ten clips, half a second each."""
    random = np.random.default_rng(seed)
    for shard in range(count):
        members = []
        for number in range(shard * CLIPS, (shard + 1) * CLIPS):
            record = {"label": CLASSES[number % 4], "fold": number % 3 + 1}
            clip = wav(random.integers(-3000, 3000, 4000).astype("<i2"), 8000)
            members += [(f"c{number:04d}.wav", clip), (f"c{number:04d}.json", json.dumps(record).encode())]
        pack(folder / f"s-{shard:02d}.tar", members)
    shards.build(folder, workers=1)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def server(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with Faulty(data) as server:
        yield server


def listed(server: Faulty, patience: float = 20.0) -> list[Shard]:
    """The shards as the index has them."""
    bucket = Bucket(server.address, patience)
    said = json.loads((server.folder / "index.json").read_text())["shards"]
    return [Shard(bucket, one["name"], one["bytes"], one["sha256"]) for one in said]


def plain(found: list[Shard]) -> list[tuple[str, int, str]]:
    """For another process, which opens connections of its own."""
    return [(shard.name, shard.size, shard.sha256) for shard in found]


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "shards").iterdir())


def tars(server: Faulty) -> int:
    """GETs of shards."""
    return sum(count for name, count in server.seen.items() if name.endswith(".tar"))


# The folder


def test_a_shard_is_fetched_once_and_named_by_its_bytes(server: Faulty, data: Path, tmp_path: Path) -> None:
    one, two = listed(server)[:2]
    ours = Cache(tmp_path)
    path = ours.fetch(one)
    assert path is not None and path.read_bytes() == (data / one.name).read_bytes()
    assert ours.fetch(one) == path and Cache(tmp_path).find(one) == path and ours.find(two) is None
    assert server.seen[one.name] == 1 and kept(tmp_path) == [f"{one.sha256}.tar"]


def test_equal_names_of_other_sets_never_meet_and_equal_bytes_are_shared(server: Faulty, tmp_path: Path) -> None:
    other = make(tmp_path / "other", 2, seed=1)
    shutil.copy(server.folder / "s-05.tar", other / "s-99.tar")
    shards.build(other, workers=1)
    with Faulty(other) as second:
        ours, theirs, mine = Cache(tmp_path / "cache"), listed(second), listed(server)
        paths = [ours.fetch(shard) for shard in (mine[0], theirs[0], mine[5], theirs[2])]
        assert mine[0].name == theirs[0].name and paths[0] != paths[1]
        assert paths[2] == paths[3] and second.seen["s-99.tar"] == 0
        for path, home, name in zip(paths, (server.folder, other), ("s-00.tar", "s-00.tar"), strict=False):
            assert path is not None and path.read_bytes() == (home / name).read_bytes()


def _fetch_all(folder: Path, server: str, said: list[tuple[str, int, str]]) -> None:
    bucket = Bucket(server, 20.0)
    ours, left = Cache(folder), [Shard(bucket, *one) for one in said]
    while left:
        left = [shard for shard in left if ours.fetch(shard) is None]


def test_jobs_at_once_fetch_each_shard_once(server: Faulty, data: Path, tmp_path: Path) -> None:
    server.delay, found = 0.02, listed(server)
    jobs = [process(_fetch_all, tmp_path, server.address, plain(found)) for _ in range(3)]
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    assert {name: count for name, count in server.seen.items() if name.endswith(".tar")} == {s.name: 1 for s in found}
    assert kept(tmp_path) == sorted(f"{shard.sha256}.tar" for shard in found)


def test_a_job_killed_in_a_download_leaves_nothing_that_is_taken_for_a_shard(
    server: Faulty, data: Path, tmp_path: Path
) -> None:
    one, two = listed(server)[:2]
    server.fault = lambda name, number: "stall"
    job = process(_fetch_all, tmp_path, server.address, plain([one]))
    until = time.monotonic() + 60
    while server.gets < 1:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert kept(tmp_path) == [f"{one.sha256}.part"]
    assert (tmp_path / "shards" / f"{one.sha256}.part").stat().st_size == one.size  # its room is taken
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    server.fault = None
    ours = Cache(tmp_path)
    assert ours.find(one) is None
    ours.fetch(two)  # sweeps
    assert kept(tmp_path) == [f"{two.sha256}.tar"]
    path = ours.fetch(one)
    assert path is not None and path.read_bytes() == (data / one.name).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "written to", "rotten"])
def test_a_damaged_file_is_found_and_fetched_again(server: Faulty, data: Path, tmp_path: Path, damage: str) -> None:
    shard, ours = listed(server)[0], Cache(tmp_path)
    path = ours.fetch(shard)
    assert path is not None
    if damage == "cut":
        os.truncate(path, shard.size - 1)
    else:
        stamp = path.stat().st_mtime_ns
        patch(path, 5000)
        if damage == "rotten":  # as a disk does it: nobody wrote
            os.utime(path, ns=(stamp, stamp))
            assert ours.find(shard) == path  # its checksum counts for a day
            os.utime(path, ns=(stamp, stamp - 2 * 86400 * 10**9))
    assert ours.find(shard) is None and not path.exists()
    assert ours.fetch(shard) == path and path.read_bytes() == (data / shard.name).read_bytes()
    assert server.seen[shard.name] == 2


def test_a_sound_file_is_checked_again_after_a_day_and_stays(server: Faulty, tmp_path: Path) -> None:
    shard, ours = listed(server)[0], Cache(tmp_path)
    path = ours.fetch(shard)
    assert path is not None
    old = time.time_ns() - 2 * 86400 * 10**9
    os.utime(path, ns=(old, old))
    assert not ours.have(shard) and ours.find(shard) == path and ours.have(shard)
    assert server.seen[shard.name] == 1


@pytest.mark.parametrize(("fault", "said"), [("replaced", "its sha256 is"), ("longer", "bytes, the index says")])
def test_a_shard_that_is_not_the_indexed_one_is_refused(server: Faulty, tmp_path: Path, fault: str, said: str) -> None:
    shard, ours = listed(server)[0], Cache(tmp_path)
    server.fault = lambda name, number: fault
    with pytest.raises(ValueError, match=said) as caught:
        ours.fetch(shard)
    assert shard.address in str(caught.value) and "\n" not in str(caught.value) and kept(tmp_path) == []


def test_a_transfer_that_went_wrong_once_is_repeated(server: Faulty, data: Path, tmp_path: Path) -> None:
    shard, ours = listed(server)[0], Cache(tmp_path)
    server.fault = lambda name, number: "cut" if number == 0 else None
    path = ours.fetch(shard)
    assert path is not None and path.read_bytes() == (data / shard.name).read_bytes()


# Room


def test_what_nobody_claims_goes_first_the_old_then_the_latest(server: Faulty, tmp_path: Path) -> None:
    found = listed(server)[:8]
    size = max(shard.size for shard in found)
    before = Cache(tmp_path)
    for shard in found[:3]:
        before.fetch(shard)
    for age, shard in zip((30, 90, 60), found[:3], strict=True):
        path = before.path(shard)
        os.utime(path, ns=(time.time_ns() - age * 10**9, path.stat().st_mtime_ns))
    claims, ours = Claims(tmp_path / "claims"), Cache(tmp_path, limit=4 * size)
    claims.hold([found[1].sha256])

    def there() -> set[int]:
        return {number for number, shard in enumerate(found) if ours.have(shard)}

    ours.fetch(found[3])
    assert there() == {0, 1, 2, 3}
    ours.fetch(found[4])
    assert there() == {0, 1, 3, 4}  # 2 was unused for a minute, 1 is claimed
    ours.fetch(found[5])
    assert there() == {1, 3, 4, 5}
    ours.fetch(found[6])
    assert there() == {1, 3, 4, 6}  # all of this job's pass: the latest
    claims.hold([shard.sha256 for shard in found])
    with pytest.raises(Full, match=r"no room for s-07.tar .*data.cache_gb"):
        ours.fetch(found[7])
    assert there() == {1, 3, 4, 6} and len(kept(tmp_path)) == 4
    claims.close()
    assert ours.fetch(found[7]) is not None


def _claim_and_wait(folder: Path, names: list[str], ready: Path) -> None:
    claims = Claims(folder)
    claims.hold(names)
    ready.touch()
    time.sleep(600)


def test_claims_end_with_their_process(tmp_path: Path) -> None:
    claims = tmp_path / "claims"
    job = process(_claim_and_wait, claims, ["a", "b"], tmp_path / "ready")
    while not (tmp_path / "ready").exists():
        assert job.is_alive()
        time.sleep(0.01)
    ours = Claims(claims)
    ours.hold(["c"])
    assert held(claims) == {"a", "b", "c"}
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    assert held(claims) == {"c"}
    ours.close()
    assert list(claims.iterdir()) == []


# Reading


def configured(server: Faulty | Bucket, home: Path, *more: str) -> Config:
    home.mkdir(parents=True, exist_ok=True)
    fixed = ("data.eval_folds=[]", "run.timeout=60", f"data.cache_dir={home / 'cache'}")
    return settings(home, f"data.shards=[{server.address}]", *fixed, *more)


def place(rank: int, size: int, local: int = 1) -> World:
    return World(Place(rank, size, rank % local, local), torch.device("cpu"), "gloo", 1)


class Host:
    """A rank's reading of some epochs, through its cache, without a model."""

    def __init__(self, config: Config, world: World, epoch: int = 0, epochs: int = 1, wait: float = 30.0) -> None:
        self.config, self.notes = config, list[str]()
        self.view = choose(opened(config, config.data.shards))
        batch = config.data.batch_size
        where = world, -(-epoch * len(self.view) // batch) * batch, (epoch + epochs) * len(self.view)
        plan = ahead(self.view, config, *where)
        far = source.of_view(self.view, config)
        made = cached.of_view(self.view, far, config, plan, self.notes.append)
        assert isinstance(made, cached.Cached)
        made.wait, self.source = wait, made
        self.requests = windows(self.view, config, *where)
        self.ids: list[tuple[int, int]] = []

    def read(self) -> list[tuple[int, int]]:
        """(position, id) of all that this rank reads, its bytes compared with the shards on the server's disk."""
        depth = self.config.data.ahead
        true = shards_of(self.view)
        with Reader(self.source, self.source.follow(self.requests, depth), 1, depth) as reader:
            for raw in reader:
                assert raw.bad == []
                for row, one in enumerate(raw.plan):
                    count = int(min(one["first"] + one["count"], one["frames"]) - max(one["first"], 0)) * 2
                    begin = int(one["offset"] + max(one["first"], 0) * 2)
                    low = int(max(-one["first"], 0)) * 2
                    assert bytes(raw.data[row, low : low + count].numpy()) == true[one["file"]][begin : begin + count]
                    self.ids.append((int(one["position"]), int(one["id"])))
        self.source.close()
        return self.ids


def shards_of(view: View) -> list[bytes]:
    return [(FOLDER[0] / str(file).rpartition("/")[2]).read_bytes() for file in view.files]


FOLDER: list[Path] = []


@pytest.fixture(autouse=True)
def _folder(data: Path) -> None:
    FOLDER[:] = [data]


def total(data: Path) -> int:
    return sum(path.stat().st_size for path in data.glob("*.tar"))


LANES = [
    ("data.lanes=4", "data.batch_size=16", "data.micro_batch=4", "data.shuffle_window=20"),
    ("data.lanes=10", "data.batch_size=20", "data.micro_batch=2"),
    ("data.lanes=4", "data.batch_size=28", "data.micro_batch=7", "data.shuffle_window=30"),  # 240 = 8 * 28 + 16
]


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("lanes", LANES)
def test_with_lanes_hosts_fetch_the_data_once_in_all(
    server: Faulty, data: Path, tmp_path: Path, lanes: tuple[str, ...], epoch: int
) -> None:
    hosts = [Host(configured(server, tmp_path / str(rank), *lanes), place(rank, 2), epoch) for rank in range(2)]
    before, index = server.sent, sum(hosts[0].source.traffic())
    found = sorted(pair for host in hosts for pair in host.read())
    samples, batch = len(hosts[0].view), hosts[0].config.data.batch_size
    assert [position for position, _ in found] == list(
        range(-(-epoch * samples // batch) * batch, (epoch + 1) * samples)
    )
    sent = server.sent - before
    assert index == 0 and sent == sum(host.source.traffic()[0] for host in hosts)
    assert 0.75 * total(data) < sent <= 1.1 * total(data)
    assert [host.notes for host in hosts] == [[], []]


def test_the_same_from_an_s3_store(seaweed: Seaweed, data: Path, tmp_path: Path) -> None:
    bucket = Bucket(upload(data, tmp_path.name))
    for lanes, least, most in ((LANES[0], 0.9, 1.1), ((), 1.0, 2.0)):
        there = (*lanes, f"data.shards=[{bucket.address}]")
        home = tmp_path / f"{most}"
        hosts = [Host(configured(bucket, home / str(rank), *there), place(rank, 2)) for rank in range(2)]
        assert len({position for host in hosts for position, _ in host.read()}) == COUNT * CLIPS
        # A shard of which a host reads nothing this epoch may be on its way when the epoch ends.
        read = sum(len({number // CLIPS for _, number in host.ids}) for host in hosts) / COUNT
        assert read >= 1 and least * read <= sum(host.source.traffic()[0] for host in hosts) / total(data) <= most


def test_without_lanes_each_host_fetches_all_once(server: Faulty, data: Path, tmp_path: Path) -> None:
    hosts = [Host(configured(server, tmp_path / str(rank)), place(rank, 2), 0, epochs=3) for rank in range(2)]
    before = server.sent
    for host in hosts:
        host.read()
    assert server.sent - before == 2 * total(data)
    assert len(kept(tmp_path / "0" / "cache")) == COUNT


def test_ranks_of_one_host_share_its_cache(server: Faulty, data: Path, tmp_path: Path) -> None:
    ranks = [Host(configured(server, tmp_path), place(rank, 2, local=2)) for rank in range(2)]
    before = server.sent
    threads = [threading.Thread(target=rank.read) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(position for rank in ranks for position, _ in rank.ids) == list(range(COUNT * CLIPS))
    assert server.sent - before == total(data)


def test_lanes_that_do_not_fit_the_groups_are_told(server: Faulty, tmp_path: Path) -> None:
    lanes = ("data.lanes=3", "data.batch_size=16", "data.micro_batch=4")
    host = Host(configured(server, tmp_path, *lanes), place(0, 2))
    assert len(host.notes) == 1 and "data.lanes=4" in host.notes[0]
    host.source.close()
    alone = Host(configured(server, tmp_path, *lanes), place(0, 1))
    assert alone.notes == []
    alone.source.close()


def test_a_bounded_cache_stays_in_its_bound_and_reads_on(server: Faulty, data: Path, tmp_path: Path) -> None:
    bound = total(data) / 2
    lanes = ("data.lanes=2", "data.batch_size=8", "data.micro_batch=4", "data.shuffle_window=20", "data.ahead=2")
    host = Host(configured(server, tmp_path, *lanes, f"data.cache_gb={bound / 1e9}"), place(0, 1), 0, epochs=3)
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            there = kept(tmp_path / "cache")
            sizes = [cache._size(tmp_path / "cache" / "shards" / name) for name in there]
            if kept(tmp_path / "cache") == there:  # else one that went and one that came may both have been counted
                most = max(most, sum(sizes))

    thread = threading.Thread(target=watch)
    thread.start()
    host.read()
    done.set()
    thread.join()
    assert 0 < most <= bound and host.notes == []


def test_no_name_changes_while_another_counts(server: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that got its name between the listing and the look at its size would count as nothing."""
    kind, (shard, *_) = Cache(tmp_path), listed(server)
    loaded, counted, load = threading.Event(), threading.Event(), Cache._load

    def slow(kind: Cache, shard: Shard, part: Path, stopped: Callable[[], bool]) -> str | None:
        digest = load(kind, shard, part, stopped)
        loaded.set()
        assert counted.wait(60)
        return digest

    monkeypatch.setattr(Cache, "_load", slow)
    thread = threading.Thread(target=kind.fetch, args=(shard,))
    thread.start()
    assert loaded.wait(60)
    with kind._room():
        counted.set()
        thread.join(0.3)
        assert kept(tmp_path) == [f"{shard.sha256}.part"]
    thread.join(60)
    assert kept(tmp_path) == [f"{shard.sha256}.tar"]


def test_a_bound_below_a_window_reads_the_rest_as_ranges_with_one_note(
    server: Faulty, data: Path, tmp_path: Path
) -> None:
    bound = 5 * (total(data) // COUNT)
    host = Host(configured(server, tmp_path, f"data.cache_gb={bound / 1e9}"), place(0, 1), 0, epochs=2)
    host.read()
    assert len(host.notes) == 1 and "data.cache_gb" in host.notes[0] and "ranges are read instead" in host.notes[0]
    assert len(kept(tmp_path / "cache")) == 5


def test_eviction_and_damage_under_a_reader_do_no_harm(server: Faulty, tmp_path: Path) -> None:
    host = Host(configured(server, tmp_path), place(0, 1), 0, epochs=4)
    shards_folder = tmp_path / "cache" / "shards"
    done = threading.Event()

    def vandal() -> None:
        turn = 0
        while not done.wait(0.01):
            for path in sorted(shards_folder.glob("*.tar"))[turn % 3 :: 3]:
                if turn % 2:
                    path.unlink(missing_ok=True)
                elif path.exists():
                    os.truncate(path, 3000)
            turn += 1

    thread = threading.Thread(target=vandal)
    thread.start()
    found = host.read()
    done.set()
    thread.join()
    assert [position for position, _ in sorted(found)] == list(range(4 * COUNT * CLIPS))


def test_shards_that_come_too_late_are_read_as_ranges(server: Faulty, tmp_path: Path) -> None:
    host = Host(configured(server, tmp_path), place(0, 1), wait=0.2)
    late = listed(server)[7]
    with FileLock(tmp_path / "cache" / "locks" / f"{late.sha256}.lock"):  # somebody else fetches it and does not end
        found = host.read()
    assert len(found) == COUNT * CLIPS and len(host.notes) == 1 and "too late" in host.notes[0]
    assert not (tmp_path / "cache" / "shards" / f"{late.sha256}.tar").exists() and server.seen[late.name] > 1


@pytest.mark.parametrize(("fault", "said"), [("404", "is not there"), ("403", "access denied"), ("replaced", "sha256")])
def test_what_is_wrong_in_the_store_stops_the_reading(server: Faulty, tmp_path: Path, fault: str, said: str) -> None:
    host = Host(configured(server, tmp_path), place(0, 1))
    server.fault = lambda name, number: fault if name == "s-07.tar" else None
    with pytest.raises(ValueError, match=f"s-07.tar: .*{said}"):
        host.read()
    host.source.close()


def test_a_pass_takes_whole_shards_only_where_it_reads_most_of_them(server: Faulty, tmp_path: Path) -> None:
    config = configured(server, tmp_path)
    sets = opened(config, config.data.shards)
    everything, fold = choose(sets), choose(sets, folds=[1])
    assert Pass(everything, np.arange(65)).move(0, 0) == [0, 1, 2, 3, 4, 5]  # the seventh shard to a half
    assert Pass(fold, np.arange(40)).move(0, 0) == []
    reversed_ = Pass(everything, np.arange(239, 199, -1))
    assert reversed_.move(0, 0) == [23, 22, 21, 20] and reversed_.move(0, 0) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 600 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("this machine mounts no tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("left", [300_000, 0])
def test_a_full_disk_is_one_warning_and_ranges(server: Faulty, tmp_path: Path, small_disk: Path, left: int) -> None:
    config = configured(server, tmp_path, f"data.cache_dir={small_disk / 'cache'}")
    host = Host(config, place(0, 1))
    with (small_disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(small_disk).free - left)
    assert len(host.read()) == COUNT * CLIPS
    assert len(host.notes) == 1 and "no room for" in host.notes[0] and "the disk is full" in host.notes[0]
    assert "ranges are read instead" in host.notes[0]
    assert len(kept(small_disk / "cache")) == left // 110_000


# Training


def test_a_cached_run_is_the_local_run_bit_for_bit(server: Faulty, data: Path, tmp_path: Path) -> None:
    lanes = ("data.lanes=4", "data.batch_size=16", "data.micro_batch=4", "data.shuffle_window=20", "run.epochs=1")
    local = train(tmp_path / "local", data, *lanes, ranks=2)
    there = (f"data.shards=[{server.address}]", f"data.cache_dir={tmp_path}/cache-$RANK")
    far = train(tmp_path / "far", data, *lanes, *there, ranks=2)
    assert_same_end(far, local)
    assert kept(tmp_path / "cache-0") and kept(tmp_path / "cache-1")
    assert sum(far.column("fetched_bytes")) > 0


def test_a_shard_replaced_in_the_store_is_one_line_and_exit_2(server: Faulty, data: Path, tmp_path: Path) -> None:
    server.fault = lambda name, number: "replaced" if name == "s-07.tar" else None
    there = (f"data.shards=[{server.address}]", f"data.cache_dir={tmp_path}/cache")
    job = Job(arguments(tmp_path / "far", data, *there), tmp_path / "far")
    assert job.wait() == [2]
    errors = [line for line in job.text().splitlines() if "error" in line]
    assert len(errors) == 1 and "s-07.tar: its sha256 is" in errors[0] and "Traceback" not in job.text()


def test_a_cache_that_cannot_be_is_refused_at_the_start(server: Faulty, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = (
        (f"{tmp_path}/file/x", "Not a directory"),
        ("/x/$NOT_SET_HERE", "is not set on this host"),
        ("s3://clips/cache", "must be a folder on this host's disk"),
    )
    with pytest.raises(ValueError, match=r"data: cache_gb has no effect without cache_dir"):
        settings(data, "data.cache_gb=1")
    for folder, said in refused:
        with pytest.raises(ValueError, match=said):
            Host(configured(server, tmp_path / "home", f"data.cache_dir={folder}"), place(0, 1))
