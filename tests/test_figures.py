"""ESC-10 in an object store: the run of local disk, and the bytes that docs/storage.md says. Prints them (`-s`)."""

from pathlib import Path

import pytest
from launches import Job, Run
from same import assert_same_end
from servers import Seaweed
from stores import train_through_restarts, upload, window_bytes

from dist_train import config, feed, packing
from dist_train.assembly.options import Options

pytestmark = pytest.mark.full

EPOCHS = 2
SETTINGS = (  # the recipe, but for the network: what is told here does not depend on it
    *("model.name=linear", "model.channels=null", "audio.seconds=3.0", f"run.epochs={EPOCHS}", "run.name=tiny"),
    "data.batch_size=32",  # a group for each of two ranks
    *("run.threads=1", "run.timeout=240", "data.threads=1", "data.ahead=1", "log.every=1", "log.tensorboard=false"),
    *("evaluation.every_epochs=1000", "checkpoint.every_epochs=1000"),
)


@pytest.fixture(scope="module")
def packed(esc10: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 clips of 5 s in 32 shards of 2 MB."""
    folder = tmp_path_factory.mktemp("packed")
    packing.pack(esc10, folder, Options(shard_mb=2, workers=2))
    return folder


def command(root: Path, shards: Path | str, home: Path, *more: str) -> list[str]:
    home.mkdir()
    return [str(root / "configs/esc10.yaml"), f"data.shards=[{shards}]", f"run.dir={home}", *SETTINGS, *more]


def trained(given: list[str], home: Path, ranks: int = 2) -> Run:
    job = Job(given, home, ranks)
    assert job.wait() == [0] * ranks, job.text()
    return job.run


def test_the_run_of_local_disk_though_the_server_is_killed_twice(
    packed: Path, seaweed: Seaweed, root: Path, tmp_path: Path
) -> None:
    """Two processes, by ranges: the same stream, weights and scores; the bytes of the windows and 5 % at most."""
    local = trained(command(root, packed, tmp_path / "local"), tmp_path / "local")
    far = tmp_path / "far"
    given = command(root, upload(packed, "figures"), far)
    job = Job(given, far, ranks=2)
    train_through_restarts(job, seaweed, (3, 13))  # of ten an epoch
    assert_same_end(job.run, local)
    settings = config.load(given[0], given[1:])
    windows = window_bytes(feed.views(settings).train, settings, EPOCHS)
    fetched, again = sum(job.run.column("fetched_bytes")), sum(job.run.column("store_retries"))
    print(f"\n{fetched} bytes by ranges, {fetched / windows:.4f} of the windows'; {again} requests sent again")
    assert again > 0 and windows <= fetched <= 1.05 * windows


@pytest.mark.parametrize(("lanes", "least", "most"), [(8, 0.9, 1.1), (1, 2.0, 2.0)])
def test_bytes_of_whole_shards_on_two_hosts(
    packed: Path, seaweed: Seaweed, root: Path, tmp_path: Path, lanes: int, least: float, most: float
) -> None:
    """An epoch with empty caches, a process and a folder a host: with lanes the data once in all, without them twice;
    the run of local disk either way."""
    form = ("data.eval_folds=[]", "data.micro_batch=4", f"data.lanes={lanes}", "run.epochs=1")
    local = trained(command(root, packed, tmp_path / "local", *form), tmp_path / "local")
    kept, far = f"data.cache_dir={tmp_path}/host-$RANK", tmp_path / "far"
    job = Job(command(root, upload(packed, f"lanes-{lanes}"), far, *form, kept), far, ranks=2, hosts=True)
    assert job.wait() == [0, 0], job.text()
    assert_same_end(job.run, local)
    data, fetched = sum(path.stat().st_size for path in packed.glob("*.tar")), sum(job.run.column("fetched_bytes"))
    print(f"\n{lanes} lanes: {fetched} bytes by two caches, {fetched / data:.4f} of the data")
    assert least * data <= fetched <= most * data
