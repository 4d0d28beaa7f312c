"""Settings that meet a store together: each run is the one of local disk, bit for bit, by ranges and by a cache."""

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from launches import Job, arguments, clip, make_shards, train
from same import assert_same_end
from servers import BUCKET, Seaweed
from stores import upload

from dist_train.assembly.options import Options
from dist_train.packing import pack

pytestmark = pytest.mark.full

Place = Callable[[Path], Path | str]
"""Where a folder of shards is named: on disk, or in the store."""
LENGTH = ("run.epochs=2", "data.ahead=1", "optim.ema=0.9")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same clips as WAV, FLAC and OGG, and features of some."""
    home = tmp_path_factory.mktemp("sets")
    found = {form: make_shards(home / form, form) for form in ("WAV", "FLAC", "OGG")}
    for number in range(24):
        wave, rate = clip(number)
        path = home / "source" / ("on" if number % 2 else "off") / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, rate)
    (home / "features.yaml").write_text("{audio: {seconds: 0.4}, features: {norm: none, bins: 20}}")
    options = Options(folds=3, workers=1, features=home / "features.yaml", min_seconds=0.2)
    assert pack(home / "source", home / "features", options).indexed
    return found | {"features": home / "features"}


@pytest.fixture
def far(seaweed: Seaweed, tmp_path: Path) -> Place:
    return lambda folder: upload(folder, f"{tmp_path.name}-{folder.name}")


def _compressed(sets: dict[str, Path], place: Place) -> list[str]:
    few = ("data.balance=class", "audio.crop=active", "features.norm=dataset", "evaluation.clip=full")
    return [f"data.shards=[{place(sets['FLAC'])}]", *few]


def _mixed(sets: dict[str, Path], place: Place) -> list[str]:
    """A local and a remote set, another to score, noise of a fourth place."""
    noise = f"augment.noise={{shards: ['{place(sets['FLAC'])}'], probability: 0.5}}"
    shards = f"data.shards=[{sets['WAV']},{place(sets['OGG'])}]"
    return [shards, "data.eval_folds=[]", f"data.eval_shards=[{place(sets['FLAC'])}]", noise, "objective.name=bce"]


def _features(sets: dict[str, Path], place: Place) -> list[str]:
    kept = ("features.name=packed", "features.bins=80", "features.norm=cmvn", "augment.speed=[1]")
    return [f"data.shards=[{place(sets['features'])}]", *kept, "run.max_steps=5"]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("given", [_compressed, _mixed, _features], ids=["compressed", "mixed", "features"])
def test_a_run_from_a_store_is_the_local_one(
    given: Callable[[dict[str, Path], Place], list[str]], ranks: int, sets: dict[str, Path], far: Place, tmp_path: Path
) -> None:
    local = train(tmp_path / "local", sets["WAV"], *LENGTH, *given(sets, lambda folder: folder), ranks=ranks)
    there = given(sets, far)
    for name, how in (("ranges", ()), ("cache", (f"data.cache_dir={tmp_path}/kept",))):
        run = train(tmp_path / name, sets["WAV"], *LENGTH, *there, *how, ranks=ranks)
        assert run.column("stream") == local.column("stream")
        assert_same_end(run, local)
        assert sum(run.column("fetched_bytes")) > 0 if name == "ranges" else (tmp_path / "kept/shards").is_dir()


def cut_short(job: Job, after: int) -> None:
    job.until(lambda: job.run.steps() >= after)
    job.kill()


def test_each_start_may_read_and_save_elsewhere(sets: dict[str, Path], far: Place, tmp_path: Path) -> None:
    """Killed in mid-run, and on with a cache, another store for checkpoints, then local shards and neither."""
    data, saves = sets["WAV"], "checkpoint.every_minutes=1e-6"
    undisturbed = train(tmp_path / "local", data, *LENGTH, ranks=2)
    home, address = tmp_path / "moved", far(data)
    stores = [f"checkpoint.store=s3://{BUCKET}/{tmp_path.name}-{number}" for number in range(2)]
    starts = [
        (address, stores[0]),
        (address, stores[1], f"data.cache_dir={tmp_path}/kept"),
    ]
    for number, (shards, *how) in enumerate(starts):
        cut_short(Job(arguments(home, shards, *LENGTH, saves, *how), home, ranks=2), after=1 + number)
    run = train(home, data, *LENGTH, saves, ranks=2)
    assert_same_end(run, undisturbed)
