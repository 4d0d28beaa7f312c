"""A profile of chosen steps: it lies where it is said to lie, opens, and changes nothing."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from launches import Run, make_shards, train

from dist_train.trace import Trace

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Without a profile; with one of steps 2 and 3; with one that the run's end cuts."""
    home = tmp_path_factory.mktemp("trace")
    (home / "shards").mkdir()
    shards = make_shards(home / "shards")
    profiles: tuple[tuple[str, ...], ...] = ((), ("log.profile=[2,3]",), ("log.profile=[4,99]",))
    return [train(home / str(n), shards, "run.max_steps=5", *given) for n, given in enumerate(profiles)]


def _written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("trace/*"))


def test_it_changes_no_loss(runs: list[Run]) -> None:
    for name in ("loss", "grad_norm", "stream"):
        assert runs[0].column(name) == runs[1].column(name) == runs[2].column(name)


def test_it_lies_in_the_runs_folder(runs: list[Run]) -> None:
    assert [_written(run.folder) for run in runs] == [
        [],
        ["rank0-steps-2-3.json.gz", "rank0-steps-2-3.txt"],
        ["rank0-steps-4-5.json.gz", "rank0-steps-4-5.txt"],  # the run ended
    ]
    said = (runs[1].folder.parent / "output-0.txt").read_text()
    assert said.count("rank0-steps-2-3.json.gz") == 2  # when it is written, and at the end


def test_it_opens(runs: list[Run]) -> None:
    with gzip.open(runs[1].folder / "trace" / "rank0-steps-2-3.json.gz") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert sum("optimizer_step" in name or "Optimizer.step" in name for name in names) == 2  # one a step
    assert "aten::convolution" in (runs[1].folder / "trace" / "rank0-steps-2-3.txt").read_text()


@pytest.mark.parametrize("step", [1, 5, 9])
def test_outside_its_span_it_does_nothing(step: int, tmp_path: Path) -> None:
    said: list[str] = []
    trace = Trace((2, 4), tmp_path / "trace", CPU, said.append)
    trace.before(step)
    trace.after(step)
    trace.close()
    assert not said and trace.path is None and not list(tmp_path.iterdir())


def test_resumed_inside_its_span_it_takes_what_is_left(tmp_path: Path) -> None:
    trace = Trace((2, 4), tmp_path, CPU, lambda text: None)
    for step in (4, 5):
        trace.before(step)
        torch.ones(3) + 1
        trace.after(step)
    assert trace.path == tmp_path / "rank0-steps-4-4.json.gz"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("in the way")
    said: list[str] = []
    trace = Trace((1, 1), tmp_path / "trace", CPU, said.append)
    trace.before(1)
    trace.after(1)
    assert len(said) == 1 and "no profile" in said[0] and trace.path is None


def test_other_ranks_write_none() -> None:
    trace = Trace((1, 1), None, CPU, lambda text: None)
    trace.before(1)
    trace.after(1)
    assert trace.path is None
