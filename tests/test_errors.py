"""Bad input: one clear line on stderr, exit 2, no traceback, nothing half-written. Bad samples: the run goes on."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from launches import CLASSES, Job, arguments, make_shards, train
from tars import pack as pack_tar
from tars import patch, samples

from dist_train import shards as shard_sets
from dist_train.__main__ import main
from dist_train.runs import RunFolder

ONE_STEP = "run.max_steps=1"
Refusal = Callable[..., str]


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    return train(tmp_path_factory.mktemp("trained"), shards, ONE_STEP).folder


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """A run in this process leaves it as it was."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before, strict = [signal.getsignal(number) for number in numbers], torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(strict)
    for number, listener in zip(numbers, before, strict=True):
        signal.signal(number, listener)


@pytest.fixture
def refusal(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run with overrides in this process; the one line that it is refused with."""

    def refused(*overrides: str, data: Path = shards, home: Path = tmp_path / "runs") -> str:
        code = main(arguments(home, data, ONE_STEP, *overrides))
        out, err = capsys.readouterr()
        assert code == 2, out + err
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
        assert not (home / "tiny/result.json").exists()
        return err

    return refused


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("modle.name=ecapa", "unknown key `modle`; did you mean `model`?"),
        ("data.batchsize=3", "unknown key `data.batchsize`; did you mean `data.batch_size`?"),
        ("optim.lr=fast", "optim.lr"),
        ("data.batch_size=2.5", "data.batch_size"),
        ("run.epochs=yes", "run.epochs"),
        ("data.batch_size=0", "greater than or equal to 1, not 0"),
        ("model.name=resnet", "'ecapa', 'campplus', 'eres2net'"),
        ("optim", "write section.key=value"),
        ("data.shards=[", "override data.shards, line 1"),
        ("model.pooling=tstp", "model.pooling"),
        ("audio.seconds=0.001", "audio.seconds=0.001 is shorter than one frame"),
        ("data.eval_folds=[9]", "no sample is in fold 9; the folds there: 1, 2, 3"),
        ("data.eval_folds=[1,2,3]", "no samples left of 60"),
        ("data.valid_folds=[1]", "fold 1 is in data.eval_folds and data.valid_folds"),
        ("data.shards=[nowhere/at/all]", "nowhere/at/all"),
        ("data.shards=['hdfs://host/shards']", "hdfs:// is not supported"),
        ("run.resume=nowhere.pt", "nowhere.pt: checkpoint cannot be read"),
    ],
)
def test_settings_that_cannot_be(refusal: Refusal, override: str, told: str) -> None:
    assert told in refusal(override)


@pytest.mark.parametrize("override", ["data.micro_batch=1", "data.batch_size=7"])
def test_a_group_of_one_clip(refusal: Refusal, override: str) -> None:
    """Before the first step, though a run of many would come to such a group at its very end only."""
    line = refusal("data.micro_batch=2", override)
    assert "data.micro_batch and data.batch_size leave a group of one clip" in line


def test_a_network_of_frames_on_a_waveform(refusal: Refusal) -> None:
    line = refusal("features={name: waveform, norm: none}", "model={name: cnn6}")
    assert "model.name=cnn6 does not fit features.name=waveform: m5 hears samples" in line


def test_a_configuration_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "error: nowhere.yaml: no such configuration; see configs/ for the recipes\n"


def test_shards_without_an_index(refusal: Refusal, shards: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    assert str(bare) in refusal(data=bare)
    for path in shards.glob("*.tar"):
        shutil.copy(path, bare)
    assert "the shards have no index" in refusal(data=bare)


def test_an_index_that_does_not_fit(refusal: Refusal, shards: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    last = copy / "tiny-2.tar"
    payload = last.read_bytes()
    last.write_bytes(payload[:-512])
    assert f"tiny-2.tar: {len(payload) - 512} bytes, the index says {len(payload)}" in refusal(data=copy)
    last.unlink()
    assert "tiny-2.tar: in the index but not on disk" in refusal(data=copy)
    last.write_bytes(payload)
    (copy / "tiny-3.tar").write_bytes(payload)
    assert "tiny-3.tar: not in the index" in refusal(data=copy)
    (copy / "tiny-3.tar").unlink()
    rows = copy / "index.npy"
    rows.write_bytes(rows.read_bytes()[:-64])
    assert "index.npy: absent, or does not fit" in refusal(data=copy)


def test_a_class_that_training_has_not(refusal: Refusal, tmp_path: Path) -> None:
    pack_tar(tmp_path / "strange/s.tar", samples(4, labels=(CLASSES[0], "siren")))
    shard_sets.build(tmp_path / "strange", workers=1)
    line = refusal("data.eval_folds=[]", f"data.eval_shards=[{tmp_path / 'strange'}]")
    assert "class 'siren' is not among the 4 classes of the training shards" in line


def test_one_class_only(refusal: Refusal, tmp_path: Path) -> None:
    pack_tar(tmp_path / "one/s.tar", samples(4, labels=("gong",), frames=8000))
    shard_sets.build(tmp_path / "one", workers=1)
    assert "holds one class (gong)" in refusal("data.eval_folds=[]", data=tmp_path / "one")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.channels=16", "is a checkpoint of another model (model.channels: 8 -> 16)"),
        ("features.bins=24", "is a checkpoint of another model (features.bins: 20 -> 24)"),
        ("model.name=campplus", "is a checkpoint of another model (model.name: ecapa -> campplus"),
        ("optim.lr=0.5", "optim.lr: 0.001 -> 0.5"),
        ("data.eval_folds=[2]", "data.eval_folds: [1] -> [2]"),
        ("run.seed=7", "run.seed: 0 -> 7"),
    ],
)
def test_resume_with_other_settings(refusal: Refusal, trained: Path, tmp_path: Path, override: str, told: str) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "runs/tiny"))
    (copy / "result.json").unlink()
    before = (copy / "metrics.jsonl").read_bytes()
    line = refusal(override)
    assert told in line and "step-00000001.pt" in line
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_resume_on_other_data(refusal: Refusal, trained: Path, tmp_path: Path) -> None:
    """Other shards behind the same settings; and the changes of settings that a PATH cannot allow."""
    copy = Path(shutil.copytree(trained, tmp_path / "runs/tiny"))
    (copy / "result.json").unlink()
    with (copy / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"kind": "train", "step": 99}\n')  # what a resume from the checkpoint would cut
    before = (copy / "metrics.jsonl").read_bytes()
    assert "belongs to another view of the data" in refusal(data=make_shards(tmp_path / "flac", "FLAC"))
    checkpoint = copy / "checkpoints/step-00000001.pt"
    path = f"run.resume={checkpoint}"
    assert "belongs to another view of the data (40 samples then, 40 now)" in refusal(path, "data.eval_folds=[2]")
    assert "was made with micro_batch 4, now 5" in refusal(path, "data.micro_batch=5")
    assert "is a checkpoint of another model" in refusal(path, "model.channels=16")
    assert (copy / "metrics.jsonl").read_bytes() == before
    broken = tmp_path / "broken.pt"
    broken.write_bytes(checkpoint.read_bytes()[:-100])
    assert "broken.pt: broken checkpoint" in refusal(f"run.resume={broken}", home=tmp_path / "other")


def test_a_second_job_in_the_folder(refusal: Refusal, tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "runs/tiny")
    first.open()
    try:
        assert f"in use by process {os.getpid()}" in refusal()
    finally:
        first.close()


def test_a_run_folder_that_cannot_be_made(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "the run's folder cannot be written (Not a directory)" in refusal(f"run.dir={tmp_path / 'file'}")


def test_compile_without_a_compiler(refusal: Refusal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "compile=true: no C++ compiler found" in refusal("compile=true")


def test_two_ranks_are_refused_by_one_line(shards: Path, tmp_path: Path) -> None:
    """Rank 0 speaks; a launcher ends the others, who would speak only if it did not."""
    (tmp_path / "file").touch()
    job = Job(arguments(tmp_path, shards, f"run.dir={tmp_path / 'file'}"), tmp_path, 2)
    job.ranks[0].join()
    job.ranks[1].terminate()
    assert job.wait() == [2, -signal.SIGTERM]
    assert job.text().count("error: ") == 1 and "Traceback" not in job.text()


def _spoil(folder: Path, numbers: list[int]) -> list[str]:
    """Damage the FLAC payload of some samples after indexing; their keys."""
    opened = shard_sets.open_set(folder)
    for number in numbers:
        row = opened.rows[number]
        for byte in range(4):  # the magic word
            patch(folder / opened.names[row["shard"]], int(row["offset"]) + byte)
    return [opened.key(number) for number in numbers]


def test_a_few_bad_samples(tmp_path: Path) -> None:
    folder = make_shards(tmp_path / "flac", "FLAC")
    opened = shard_sets.open_set(folder)
    held_out = [number for number in range(len(opened)) if opened.rows["fold"][number] == 1]
    trained_on = [number for number in range(len(opened)) if opened.rows["fold"][number] != 1]
    bad = _spoil(folder, [trained_on[3], trained_on[30], held_out[5]])
    job = Job(arguments(tmp_path, folder, "run.max_steps=4"), tmp_path, 2)
    assert job.wait() == [0, 0], job.text()
    assert job.text().count(f"bad sample {bad[0]}:") == job.text().count(f"bad sample {bad[1]}:") == 1
    assert job.text().count(f"bad clip {bad[2]} of the eval set counts as wrong") == 1
    assert [record["bad_samples"] for record in job.run.metrics()][1:] == [2, 2, 2]  # each once, in two epochs
    assert job.run.last()["progress"]["bad"] == [3, 30]
    result = job.run.result()
    assert result["bad_samples"] == 2 and sum(map(sum, result["confusion"])) == result["clips"] - 1


def test_too_many_bad_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_shards(tmp_path / "flac", "FLAC")
    bad = _spoil(folder, list(range(0, 60, 3)))
    assert main(arguments(tmp_path, folder, "run.max_steps=8")) == 2
    *warnings, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ") and "bad samples, more than data.max_bad allows (10)" in last
    assert len(warnings) > 10 and all(any(f"bad sample {key}:" in line for key in bad) for line in warnings)
    assert not (tmp_path / "tiny/result.json").exists()
