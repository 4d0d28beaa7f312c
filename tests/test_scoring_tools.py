"""tools/evaluate.py, average.py and compare.py on finished runs: the same figures by any number of ranks."""

import csv
import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from launches import CLASSES, CLIPS, FOLDS, Job, Run, fork, settings, train

from dist_train import checkpoint, feed, flat, optim, saved, scored
from dist_train.feed import Feed
from dist_train.frontend import FrontEnd
from dist_train.scored import Scored
from dist_train.scoring import averaged, compared, figures, history, unknown
from dist_train.settings import Config
from dist_train.world import Place, World

ROOT = Path(__file__).parents[1]
WORLD = World(Place(), torch.device("cpu"), "gloo", 1)

Script = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def parts(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of which three checkpoints stayed, with a validation set."""
    given = ("run.epochs=3", "checkpoint.every_epochs=1", "checkpoint.keep=3", "data.valid_folds=[2]", "optim.lr=3e-3")
    return train(tmp_path_factory.mktemp("parts"), shards, *given)


def told(tool: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert tool.main([*map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _evaluate(arguments: list[str]) -> int:
    """As one of several ranks."""
    spec = importlib.util.spec_from_file_location("evaluate", ROOT / "tools/evaluate.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return int(tool.main(arguments))


def test_ranks_give_the_same_bit_for_bit(finished: Run, tmp_path: Path) -> None:
    for ranks in (1, 3):
        outputs = [tmp_path / f"{ranks}-{rank}.txt" for rank in range(ranks)]
        words = [str(finished.folder), "--json", "--npz", str(tmp_path / f"{ranks}.npz"), "--draws", "100"]
        jobs = fork(_evaluate, [[words]] * ranks, outputs)
        for job in jobs:
            job.join(200)
        assert [job.exitcode for job in jobs] == [0] * ranks, [path.read_text() for path in outputs]
        assert all("{" not in path.read_text() for path in outputs[1:])  # rank 0 alone tells
    whole = scored.read(finished.folder)
    for ranks in (1, 3):
        found = scored.read(tmp_path / f"{ranks}.npz")
        assert found.probability_NC.tobytes() == whole.probability_NC.tobytes()
        assert found.keys.tolist() == whole.keys.tolist() and found.truth.tolist() == whole.truth.tolist()
        text = (tmp_path / f"{ranks}-0.txt").read_text()
        assert text[text.index("{") :] == (tmp_path / "1-0.txt").read_text()[text.index("{") :]


def test_what_evaluate_tells_and_writes(
    finished: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    tool, result = script("evaluate"), finished.result()
    files = ("--csv", tmp_path / "s.csv", "--picture", tmp_path / "c.png", "--draws", 100)
    found = told(tool, capsys, run, *files)
    assert found["set"] == "evaluation" and found["clips"] == 20 and found["runs"][0]["chosen_by"] == "last"
    for name, value in found["scores"].items():
        assert value["value"] == pytest.approx(result[name], abs=1e-9)
        assert value["low"] <= value["high"]
    assert found["confusion"] == result["confusion"] and found["calibration"]["temperature"] is None
    assert [row["class"] for row in found["classes"]] == list(CLASSES) and not found["notes"]
    for row in found["classes"]:
        assert row["intervals"]["recall"][0] <= row["recall"] <= row["intervals"]["recall"][1]
    with (tmp_path / "s.csv").open(newline="") as file:
        assert np.mean([row["right"] == "true" for row in csv.DictReader(file)]) == result["accuracy"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert before == {
        path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()
    }  # the run is as it was

    assert tool.main([str(run), "--unknown-precision", "0.3", "--draws", "0"]) == 0
    out = capsys.readouterr().out
    assert "the threshold was chosen on the very clips that are scored here" in out and "macro_f1" in out
    assert "95 %" not in out.partition("classes")[2]
    assert tool.main([str(run), "--draws", "100"]) == 0
    assert "95 %" in capsys.readouterr().out.partition("classes")[2]
    assert unknown.read(run) is not None

    twice = told(tool, capsys, run, finished.folder, "--draws", 0, "--average", "logits")
    assert twice["scores"]["accuracy"]["value"] == result["accuracy"] and len(twice["runs"]) == 2
    trained = told(tool, capsys, run, "--folds", 1, 2, "--draws", 0)
    assert trained["clips"] == 40 and "was trained on 20 of the 40 clips" in trained["notes"][0]


def test_a_validation_set_has_its_uses(
    parts: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(parts.folder, run)
    found = told(script("evaluate"), capsys, run, "--draws", 0, "--unknown-precision", 0.3)
    best = json.loads((run / "checkpoints/best.json").read_text())
    assert found["runs"][0]["chosen_by"] == "valid" and found["runs"][0]["checkpoint"].endswith(best["file"])
    assert found["unknown"]["set"] == "valid" and not found["unknown"]["optimistic"]
    assert found["calibration"]["temperature"] > 0
    assert found["calibration"]["loss_before"] == pytest.approx(found["scores"]["loss"]["value"])
    own = told(script("evaluate"), capsys, run, "--draws", 0, "--folds", 2)  # on the validation set itself
    assert own["calibration"]["temperature"] is None  # nothing is fitted on what is scored


def test_a_terminal_may_lack_the_letters(
    finished: Run, tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "犬", io.TextIOWrapper(io.BytesIO(), "ascii")
    shutil.copytree(finished.folder, run)
    monkeypatch.setattr(sys, "stdout", out)
    assert script("evaluate").main([str(run), "--draws", "0"]) == 0
    out.flush()
    assert "\\u72ac: " in out.buffer.getvalue().decode()  # type: ignore[attr-defined]


def test_what_evaluate_refuses(
    finished: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    tool, run = script("evaluate"), finished.folder
    for arguments, said in (
        ([tmp_path], "no run there"),
        (["data.threads=1"], "no run is named"),
        ([run, "--draws", "5"], "--draws 5"),
        ([run, "--level", "95"], "--level 95"),
        ([run, "--unknown-precision", "95"], "--unknown-precision 95"),
        ([run, run, "--unknown-precision", "0.9"], "name one run"),
        ([run, "--folds", "9"], "no sample is in fold 9"),
        ([run, "--shards", tmp_path], "no .tar in it"),
        ([run, "model.channels=16"], "another model"),
        ([run, "model.chanels=16"], "unknown key"),
        ([run, "--csv", run / "config.yaml/s.csv"], "cannot be written"),
        ([run, "--draws", "0", "--unknown-precision", "1"], "no threshold has precision 1"),
    ):
        assert tool.main([str(argument) for argument in arguments]) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("evaluate: ") and said in error
    assert not (run / unknown.FILE).exists()


def test_an_average_is_a_run(
    parts: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str], shards: Path
) -> None:
    tool, out = script("average"), tmp_path / "tiny"
    assert tool.main([str(parts.folder), "--out", str(out), "--score"]) == 0, capsys.readouterr().err
    table = capsys.readouterr().out
    assert "average" in table and all(path.name in table for path in parts.saved())
    payload, each = Run(out).last(), [checkpoint.load(path)["step"]["model"] for path in parts.saved()]
    trained = saved.restored(saved.read(out, []), out, payload, WORLD).model
    buffers = {name for name, _ in trained.named_buffers()}
    moved = 0
    for name, tensor in payload["step"]["model"].items():
        mean = torch.stack([one[name].double() for one in each]).mean(0)
        if name not in buffers:
            assert torch.equal(tensor, mean.to(tensor.dtype)), name
        elif tensor.is_floating_point():
            moved += not torch.allclose(tensor, mean.to(tensor.dtype))
        else:
            assert torch.equal(tensor, each[-1][name])  # a counter
    assert moved  # statistics are of the mean's own activations
    _same_statistics(trained, shards)
    result, rows = json.loads((out / "result.json").read_text()), scored.read(out)
    assert figures.of(rows).values["accuracy"] == result["accuracy"] == result["value"]
    found = told(script("evaluate"), capsys, out, "--draws", 0)
    assert found["scores"]["loss"]["value"] == pytest.approx(result["loss"], abs=1e-12)
    assert tool.main([str(parts.folder), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err

    job = Job([str(out / "config.yaml"), f"run.dir={tmp_path}", "run.epochs=5"], tmp_path)
    assert job.wait() == [2] and "is an average of checkpoints" in job.text()
    assert (out / "result.json").exists()


def _same_statistics(model: torch.nn.Module, shards: Path) -> None:
    """Those of torch.optim.swa_utils.update_bn on the same batches."""
    config = settings(shards, "data.valid_folds=[2]", "optim.lr=3e-3")
    train_view = feed.views(config).train
    front = _front(config)
    batches = Feed(train_view, feed.windows(train_view, config, WORLD, 0, len(train_view)), front, config, True)
    loader = []
    for _ in range(-(-len(train_view) // 4)):
        loader.append((batches.take()[1].feat_BTF,))
    batches.close()
    ours = [one.clone() for one in flat.statistics(model)]
    torch.optim.swa_utils.update_bn(loader, model)
    for one, two in zip(ours, flat.statistics(model), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def _front(config: Config) -> FrontEnd:
    return FrontEnd(config.audio, config.augment, config.features, seed=config.run.seed, device="cpu")


def test_measured_statistics_go_where_the_weights_are(parts: Run) -> None:
    """With a moving average of the weights they are its statistics, and the same ones for the same weights."""
    config, path = saved.read(parts.folder, []), parts.saved()[-1]
    payload = averaged.mean(parts.saved(), _never)
    plain = averaged.measured(payload, path, config, WORLD, _never)
    weights = list(optim.floating(saved.restored(config, path, payload, WORLD).model))
    smooth = payload | {"step": payload["step"] | {"ema": [one.clone() for one in weights]}}
    found = averaged.measured(smooth, path, config, WORLD, _never)
    assert found["step"]["model"] is payload["step"]["model"]
    states = [saved.restored(config, path, one, WORLD).model.state_dict() for one in (plain, found)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    name = next(name for name in states[0] if name.endswith("running_mean"))
    assert not torch.equal(plain["step"]["model"][name], payload["step"]["model"][name])


def _never(stage: str, done: int, total: int) -> None:
    assert stage and 0 < done <= total


def test_averages_that_are_none(
    finished: Run, parts: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = script("average")
    for arguments, said in (
        ([finished.folder], "an average takes two checkpoints or more"),
        ([parts.folder, "7"], "no checkpoint of step 7"),
        ([parts.folder, "--last", "9"], "--last 9, and there are 3"),
        ([parts.folder, "--last", "1"], "two checkpoints or more"),
        ([parts.folder, "1", "--last", "2"], "exclude each other"),
        ([parts.folder, "x"], "`x` is no step"),
        ([tmp_path], "no run there"),
    ):
        assert tool.main([*map(str, arguments), "--out", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
    assert not (tmp_path / "new").exists()


def test_an_average_of_averages_of_weights(tmp_path: Path) -> None:
    """Where there are moving averages of the weights it is they that are averaged, in float64."""
    paths = []
    for step in (1, 2, 3):
        model = {"w": torch.tensor([float(step)]), "n": torch.tensor(step)}
        ema = [torch.tensor([1e8 + step], dtype=torch.float32)]
        rest = {name: None for name in ("statistics", "packed")} | {"config": {}, "classes": [], "progress": {}}
        data = checkpoint.encode({"step": {"model": model, "ema": ema, "optimizer": {}}, **rest})
        paths.append(tmp_path / f"step-{step:08d}.pt")
        paths[-1].write_bytes(data)
    found = averaged.mean(paths, _never)
    assert found["step"]["model"]["w"].item() == 2 and found["step"]["model"]["n"].item() == 3
    wanted = torch.stack([torch.tensor([1e8 + step], dtype=torch.float32).double() for step in (1, 2, 3)]).mean(0)
    assert found["step"]["ema"][0].item() == wanted.float().item() and "optimizer" not in found["step"]


def test_what_compare_tells(finished: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished.folder, other)
    config = (other / "config.yaml").read_text()
    assert "\n  lr: 0.003\n" in config
    (other / "config.yaml").write_text(config.replace("\n  lr: 0.003\n", "\n  lr: 0.5\n"))
    whole = scored.read(finished.folder)
    kept = np.random.default_rng(0).permutation(20)[:15]
    probability_NC = np.random.default_rng(1).dirichlet(np.ones(4), 15)
    scored.write(
        other / "scores.npz",
        Scored(whole.keys[kept], whole.classes, whole.truth[kept], probability_NC, whole.bad[kept]),
    )
    tool = script("compare")
    files = ("--png", tmp_path / "c.png", "--csv", tmp_path / "d.csv")
    found = told(tool, capsys, finished.folder, other, *files)
    assert found["settings"] == {"optim.lr": [0.003, 0.5]} and found["metric"] == "accuracy"
    pair, test = found["pairs"][0], found["pairs"][0]["mcnemar"]
    assert pair["clips"] == 15 == test["both"] + test["first"] + test["second"] + test["neither"]
    one, two = figures.right(whole)[kept], probability_NC.argmax(1) == whole.truth[kept]
    assert (test["first"], test["second"]) == ((one & ~two).sum(), (two & ~one).sum())
    gain = pair["differences"]["accuracy"]
    assert gain["value"] == pytest.approx(two.mean() - one.mean()) and gain["low"] <= gain["value"] <= gain["high"]
    differing = {
        str(whole.keys[kept][n])
        for n in range(15)
        if whole.probability_NC[kept][n].argmax() != probability_NC[n].argmax()
    }
    assert {clip["key"] for clip in pair["clips_that_differ"]} == differing
    with (tmp_path / "d.csv").open(newline="") as file:
        assert {row["key"] for row in csv.DictReader(file)} == differing
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert tool.main([str(finished.folder), str(other), "--clips", "2", "--draws", "0"]) == 0
    out = capsys.readouterr().out
    assert "optim.lr" in out and "clips where they differ, 2 of" in out and "McNemar" in out


def test_cross_validations_and_bare_scores_are_compared(finished: Run, tmp_path: Path) -> None:
    folder = tmp_path / "crossed"
    (folder / "seed-0/fold-1").mkdir(parents=True)
    shutil.copy(finished.folder / "config.yaml", folder / "seed-0/fold-1/config.yaml")
    whole = scored.read(finished.folder)
    scored.write(folder / "scores.npz", whole)
    bare = tmp_path / "bare.npz"
    scored.write(
        bare, Scored(np.char.add("x", whole.keys), whole.classes, whole.truth, whole.probability_NC, whole.bad)
    )
    runs = history.read([finished.folder, folder, bare])
    assert [one.name for one in runs] == ["tiny", "crossed", "bare.npz"] and runs[1].pooled
    found = compared.of(runs, 100, 0.95)
    assert found["pairs"][0]["clips"] == 20 and found["pairs"][0]["mcnemar"]["p"] == 1
    assert found["pairs"][1]["clips"] == 0  # other clips: scores only
    assert found["settings"] == {}  # what each of its runs holds out is no setting of the whole
    assert len(runs[1].groups) == CLIPS and len(runs[0].groups) == CLIPS // FOLDS


def test_what_compare_refuses(
    finished: Run, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = script("compare")
    whole = scored.read(finished.folder)
    strange = Scored(whole.keys, ("a", "b", "c", "d"), whole.truth, whole.probability_NC, whole.bad)
    scored.write(tmp_path / "strange.npz", strange)
    for arguments, said in (
        ([finished.folder], "two runs or more"),
        ([finished.folder, tmp_path / "none"], "no run there"),
        ([finished.folder, tmp_path], "no scores there"),
        ([finished.folder, tmp_path / "strange.npz"], "different classes"),
    ):
        assert tool.main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


def test_clips_of_several_labels(
    shards: Path, tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path, shards, "objective.name=bce", "run.epochs=2", "optim.lr=3e-3")
    result, whole = run.result(), scored.read(run.folder)
    picture = tmp_path / "ap.png"
    found = told(
        script("evaluate"), capsys, run.folder, "--draws", 100, "--picture", picture, "--csv", tmp_path / "s.csv"
    )
    assert found["metric"] == "map" and found["confusion"] is None and picture.read_bytes().startswith(b"\x89PNG")
    for name, value in found["scores"].items():
        assert value["value"] == pytest.approx(result[name], abs=1e-9)
        assert value["low"] <= value["value"] <= value["high"] or name == "accuracy"
    chosen = found["thresholds"]
    assert chosen["optimistic"] and len(chosen["classes"]) == len(CLASSES)
    for number, one in enumerate(chosen["classes"]):
        truth_N, said_N = whole.truth[:, number] > 0, whole.probability_NC[:, number] >= one["threshold"]
        assert one["f1"] == pytest.approx(2 * (truth_N & said_N).sum() / (truth_N.sum() + said_N.sum()))
    assert script("evaluate").main([str(run.folder), "--draws", "0"]) == 0
    assert "thresholds of the greatest F1 (chosen on these clips: optimistic)" in capsys.readouterr().out
    same = told(script("compare"), capsys, run.folder, run.folder, "--draws", 100)
    assert same["metric"] == "map" and same["pairs"][0]["differences"]["map"] == {"value": 0, "low": 0, "high": 0}
    assert len({one["name"] for one in same["runs"]}) == 2
