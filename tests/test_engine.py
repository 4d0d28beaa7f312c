"""A run's numbers are the same on any number of ranks: samples, losses, statistics, scores."""

from pathlib import Path

import pytest
import torch
from launches import TRAINED, Run, train

RANKS = (1, 2, 3)
EXACT = ("precision=fp64", "run.max_steps=60", "augment.mixup.probability=0.2")


@pytest.fixture(scope="module")
def single(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """Five steps in single precision, by ranks."""
    home = tmp_path_factory.mktemp("single")
    return {ranks: train(home / f"{ranks}", shards, "run.max_steps=5", ranks=ranks) for ranks in RANKS}


@pytest.fixture(scope="module")
def double(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """Sixty steps in double precision, by ranks."""
    home = tmp_path_factory.mktemp("double")
    return {ranks: train(home / f"{ranks}", shards, *EXACT, ranks=ranks) for ranks in RANKS}


def test_every_number_of_ranks_trains_on_the_same_samples(single: dict[int, Run], double: dict[int, Run]) -> None:
    for runs in (single, double):
        streams = [run.column("stream") for run in runs.values()]
        assert streams[0] == streams[1] == streams[2]
        assert len(set(streams[0])) == len(streams[0]) in (5, 60)


def test_first_losses_in_single_precision(single: dict[int, Run]) -> None:
    for ranks in (2, 3):
        assert single[ranks].column("loss") == pytest.approx(single[1].column("loss"), rel=0, abs=1e-5)


def test_sixty_losses_in_double_precision(double: dict[int, Run]) -> None:
    for ranks in (2, 3):
        for name, within in (("loss", 1e-9), ("accuracy", 1e-9), ("lr", 0), ("grad_norm", 1e-7)):
            assert double[ranks].column(name) == pytest.approx(double[1].column(name), rel=0, abs=within)
    losses = double[1].column("loss")
    assert sum(losses[-10:]) < sum(losses[:10])  # it learns


def test_records_say_how_fast_it_is(single: dict[int, Run]) -> None:
    for ranks, run in single.items():
        for record in run.metrics():
            assert record["tflops"] > 0 and record["peak_memory"] > 0.01 and "peak_share" not in record
            per_clip = record["tflops"] / record["clips_per_second"]
            assert per_clip == pytest.approx(single[1].metrics()[0]["tflops"] / single[1].column("clips_per_second")[0])
            if ranks == 1:
                assert "rank_seconds" not in record
                continue
            seconds = record["rank_seconds"]
            assert len(seconds) == ranks and min(seconds) > 0
            assert seconds[record["slowest_rank"]] == max(seconds) and record["slowest_by"] >= 0


def test_weights_statistics_and_scores_at_the_end(double: dict[int, Run]) -> None:
    states = {ranks: run.last()["step"]["model"] for ranks, run in double.items()}
    for ranks in (2, 3):
        for name, tensor in states[1].items():
            torch.testing.assert_close(states[ranks][name], tensor, rtol=1e-7, atol=1e-9, msg=name)
        assert double[ranks].result()["confusion"] == double[1].result()["confusion"]
        assert double[ranks].result()["loss"] == pytest.approx(double[1].result()["loss"], rel=1e-7)


def test_an_epoch_holds_every_sample_once(double: dict[int, Run]) -> None:
    records = double[3].metrics()
    assert [record["epoch"] for record in records] == [20 * step / TRAINED for step in range(1, 61)]
    assert {record["bad_samples"] for record in records} == {0}


def test_ranks_without_a_group(shards: Path, tmp_path: Path) -> None:
    few = (
        "data.batch_size=7",
        "features.norm=dataset",
        "precision=fp64",
        "run.max_steps=6",
    )  # groups of three and four
    one, three = (train(tmp_path / f"{ranks}", shards, *few, ranks=ranks) for ranks in (1, 3))
    assert three.column("stream") == one.column("stream")
    for name in ("loss", "grad_norm"):
        assert three.column(name) == pytest.approx(one.column(name), rel=1e-9)
    before, after = one.last(), three.last()
    assert torch.equal(after["statistics"], before["statistics"])  # of features, counted in integers
    for name, tensor in before["step"]["model"].items():
        torch.testing.assert_close(after["step"]["model"][name], tensor, rtol=1e-8, atol=1e-10, msg=name)
