"""Clips of several labels from shards to report, on one rank and on two; margin losses and speed classes likewise."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from launches import CLASSES, Job, Run, arguments, make_shards, settings, train
from tars import pack, wav

from dist_train import config, demo, objective, parts, progress, shards
from dist_train.feed import views
from dist_train.view import choose

NAMES = ("bell", "hiss", "hum")
CLIPS = 48


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 clips of one to three of three sounds in two shards, folds 1 to 3; labels are not in the order of classes."""
    folder = tmp_path_factory.mktemp("several")
    for part in range(2):
        members: list[tuple[str, bytes]] = []
        for number in range(part, CLIPS, 2):
            random = np.random.default_rng(number)
            time = np.arange(int(random.uniform(0.35, 0.7) * 16000)) / 16000
            sounds = [np.sin(2 * np.pi * 1900 * time), random.normal(size=len(time)), np.sin(2 * np.pi * 160 * time)]
            wave = sum((sounds[one] for one in _labels(number)), np.zeros(len(time))) + 0.01 * random.normal(
                size=len(time)
            )
            record = {"label": [NAMES[one] for one in _labels(number)], "fold": number // 2 % 3 + 1}
            members += [(f"k{number:02d}.wav", wav((wave * 4000).astype("<i2")))]
            members += [(f"k{number:02d}.json", json.dumps(record).encode())]
        pack(folder / f"several-{part}.tar", members)
    shards.build(folder, workers=1)
    return folder


def _labels(number: int) -> list[int]:
    chosen = number % 7 + 1  # 1 to 7: every set of the three but the empty one
    return [one for one in (2, 0, 1) if chosen >> one & 1]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("single"))


def _truth(keys: list[str], names: tuple[str, ...] = NAMES) -> list[list[int]]:
    return [[int(NAMES.index(name) in _labels(int(key[1:]))) for name in names] for key in keys]


def test_targets_of_a_view(several: Path, single: Path) -> None:
    one = shards.open_set(several)
    view = choose([one], folds=[2, 3])
    ids = np.array([5, 0, 5, len(view) - 1])
    assert view.targets(ids).tolist() == _truth([view.key(number) for number in ids])
    whole = view.targets(np.arange(len(view)))
    assert view.counts().tolist() == whole.sum(0).tolist()
    assert view.several == next(view.key(n) for n in range(len(view)) if whole[n].sum() > 1)
    plain = choose([shards.open_set(single)])
    assert (
        plain.several is None and (plain.targets(np.arange(60)).argmax(1) == plain.rows(np.arange(60))["label"]).all()
    )


def test_targets_of_joined_sets(several: Path, single: Path) -> None:
    """By class name, in the training's order; a set with one label a clip beside one with several."""
    view = choose([shards.open_set(single), shards.open_set(several)], classes=("hum", *CLASSES, "hiss", "bell"))
    ids = np.array([70, 3, 107])
    found = view.targets(ids)
    assert found[:, [6, 5, 0]][[0, 2]].tolist() == _truth([view.key(70), view.key(107)])
    assert found[1].tolist() == [0, *(int(name == CLASSES[int(view.key(3)[4:]) % 4]) for name in CLASSES), 0, 0]
    with pytest.raises(ValueError, match="class 'hiss' is not among the 2 classes"):
        choose([shards.open_set(several)], classes=("bell", "hum"))


def test_balance_goes_by_the_rarest_label(several: Path) -> None:
    one = shards.open_set(several)
    view = choose([one], balance="class", folds=[1])
    keys = [view.key(number) for number in range(len(view))]
    plain = choose([one], folds=[1])
    count = plain.counts()
    for number in range(len(plain)):
        times = [max(1, round(max(count) / count[label])) for label in _labels(int(plain.key(number)[1:]))]
        assert keys.count(plain.key(number)) == max(times)


def test_softmax_refuses_several_labels(several: Path) -> None:
    with pytest.raises(
        ValueError, match=r"k\d\d has several labels, objective.name=softmax takes one; set .*bce"
    ) as error:
        views(settings(several))
    assert "\n" not in str(error.value)
    assert len(views(settings(several, "objective.name=bce")).train) == 32


def test_weights_reach_the_outputs(several: Path, single: Path) -> None:
    chosen = settings(several, "objective.name=bce", "objective.class_weights=balanced")
    view = views(chosen).train
    count = view.counts()
    np.testing.assert_allclose(parts.class_weights(chosen, view), (len(view) - count) / count)
    chosen = settings(single, "objective.class_weights={rain: 2}", "objective.speed_classes=true")
    assert parts.class_weights(chosen, views(chosen).train).tolist() == [1, 1, 1, 2] * 3  # type: ignore[union-attr]


BCE = ("objective.name=bce", "audio.min_seconds=0", "augment.mixup.probability=0.5", "run.epochs=4", "precision=fp64")


def _losses(run: Run) -> tuple[list[float], list[str]]:
    return run.column("loss"), run.column("stream")


def test_a_run_of_several_labels(several: Path, tmp_path: Path) -> None:
    """Ranks agree; what the run reports is what scikit-learn makes of the saved probabilities."""
    metrics = pytest.importorskip("sklearn.metrics")
    one = train(tmp_path / "one", several, *BCE)
    two = train(tmp_path / "two", several, *BCE, ranks=2)
    assert _losses(two)[0] == pytest.approx(_losses(one)[0], rel=1e-9) and _losses(two)[1] == _losses(one)[1]
    result = two.result()
    assert result["map"] == pytest.approx(one.result()["map"], abs=1e-9)
    with np.load(two.folder / "scores.npz", allow_pickle=False) as saved:
        keys, truth_NC, p_NC = saved["keys"].tolist(), saved["truth"], saved["probability"]
        assert tuple(saved["classes"]) == NAMES and not saved["bad"].any()
    assert truth_NC.tolist() == _truth(keys) and len(keys) == result["clips"] == 16
    assert (result["metric"], result["value"], result["set"]) == ("map", result["map"], "eval")
    assert result["map"] == pytest.approx(metrics.average_precision_score(truth_NC, p_NC), abs=1e-12)
    assert result["auc"] == pytest.approx(metrics.roc_auc_score(truth_NC, p_NC), abs=1e-12)
    loss = np.mean([metrics.log_loss(truth_NC[:, c], p_NC[:, c]) for c in range(3)])
    assert result["loss"] == pytest.approx(loss, abs=1e-12)
    for number, name in enumerate(NAMES):
        figures = result["per_class"][name]
        assert figures["positives"] == truth_NC[:, number].sum()
        precision = metrics.average_precision_score(truth_NC[:, number], p_NC[:, number])
        assert figures["average_precision"] == pytest.approx(precision, abs=1e-12)
    assert "confusion" not in result and not (two.folder / "confusion.png").exists()
    assert (two.folder / "precision.png").read_bytes().startswith(b"\x89PNG")
    assert two.metrics("eval")[-1]["map"] == result["map"]
    assert min(one.column("loss")[-3:]) < one.column("loss")[0]


AAM = ("objective.name=aam", "objective.subcenters=2", "objective.speed_classes=true", "objective.scale=16")
RISE = ("objective.margin_epochs=[0, 2]", "augment.mixup.probability=0.3", "run.epochs=2", "precision=fp64")
EVEN = ("optim.schedule=constant", "optim.warmup_epochs=0")  # the rate does not depend on the run's length


def test_a_run_with_margins(single: Path, tmp_path: Path) -> None:
    """One rank, resumed in the rise of the margin, has the losses of two."""
    half = train(tmp_path / "one", single, *AAM, *RISE, *EVEN, "run.max_steps=3")
    assert half.steps() == 3
    one = train(tmp_path / "one", single, *AAM, *RISE, *EVEN)
    two = train(tmp_path / "two", single, *AAM, *RISE, *EVEN, ranks=2)
    assert two.steps() == 4 and _losses(two)[1] == _losses(one)[1]
    assert _losses(two)[0] == pytest.approx(_losses(one)[0], rel=1e-8)
    rise = config.check({"objective": {"name": "aam", "margin_epochs": [0, 2]}}, "test").objective
    margins = [objective.margin(20 * step, 40, rise) for step in range(4)]
    assert one.column("margin") == two.column("margin") == margins and margins == sorted(set(margins))
    assert len(one.result()["confusion"]) == len(CLASSES)
    assert one.last()["step"]["model"]["head.weight"].shape == (4 * 2 * 3, 16)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ((), ("objective.name=aam",), "objective.name"),
        (("objective.name=am",), ("objective.name=aam", "objective.subcenters=2"), "objective.subcenters"),
        ((), ("objective.speed_classes=true",), "objective.speed_classes"),
        (("objective.name=am",), ("objective.name=aam",), ""),
        ((), ("objective.name=focal",), ""),
    ],
)
def test_a_checkpoint_of_another_head_is_refused(
    single: Path, then: tuple[str, ...], now: tuple[str, ...], said: str
) -> None:
    before = config.plain(settings(single, *then))
    if not said:
        progress.refuse_model(before, settings(single, *now), "step-1.pt")
        return
    with pytest.raises(ValueError, match=f"another model .*{said}"):
        progress.refuse_model(before, settings(single, *now), "step-1.pt")


def test_a_weight_that_goes_is_a_change(single: Path) -> None:
    before = config.plain(settings(single, "objective.class_weights={on: 2, no: 3}"))
    after = settings(single, "objective.class_weights={on: 2}")
    assert progress.changes(before, after) == ["objective.class_weights.no: 3.0 -> None"]


def test_a_metric_of_the_other_task_is_one_line(single: Path, tmp_path: Path) -> None:
    job = Job(arguments(tmp_path, single, "evaluation.metric=map"), tmp_path)
    assert job.wait() == [2] and job.text().startswith("error: evaluation.metric=map is not a score of")


def test_the_lowest_loss_is_the_best(single: Path, tmp_path: Path) -> None:
    often = ("data.valid_folds=[2]", "evaluation.every_epochs=1", "evaluation.metric=loss", "run.epochs=5")
    run = train(tmp_path, single, *often, "optim.lr=0.05", "optim.warmup_epochs=0")
    losses = {record["step"]: record["loss"] for record in run.metrics("valid")}
    assert run.result()["best"]["step"] == min(losses, key=losses.get)  # type: ignore[arg-type]
    assert run.result()["best"]["valid"] == min(losses.values())


def test_mixtures_are_what_they_claim(tmp_path: Path, environment: dict[str, str], root: Path) -> None:
    command = [
        sys.executable,
        str(root / "tools/make_demo.py"),
        str(tmp_path / "a"),
        "--mixtures",
        "--recordings",
        "50",
    ]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    with (tmp_path / "a/table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folds: dict[str, set[str]] = {}
    for row in rows:
        folds.setdefault(row["group"], set()).add(row["fold"])
        names = row["label"].split(";")
        assert 1 <= len(names) <= 3 and set(names) <= set(demo.SOURCES) and len(set(names)) == len(names)
    assert len(rows) == 100 and len(folds) == 5 and all(len(held) == 1 for held in folds.values())
    assert {name for row in rows for name in row["label"].split(";")} == set(demo.SOURCES)
    waves = [soundfile.read(tmp_path / "a" / row["path"])[0] for row in rows[:5]]
    assert all(len(wave) == 48000 and 0.001 < np.abs(wave).max() < 1 for wave in waves)
    demo.mixtures.scene(_empty(tmp_path / "b"), 3, 0)
    same = sorted((tmp_path / "b/audio").iterdir())
    assert len(same) == 20 and all(
        path.read_bytes() == (tmp_path / "a/audio" / path.name).read_bytes() for path in same
    )


def _empty(folder: Path) -> Path:
    (folder / "audio").mkdir(parents=True)
    return folder


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_recipe_of_mixtures(tmp_path: Path, environment: dict[str, str], root: Path) -> None:
    """From nothing to mean average precision over .9 on a held-out fold, as scikit-learn computes it too."""
    metrics = pytest.importorskip("sklearn.metrics")
    demo.ensure(tmp_path / "shards", make=demo.mixtures.generate)
    chosen: list[Any] = [str(root / "configs/demo_multilabel.yaml"), f"data.shards=[{tmp_path / 'shards'}]"]
    config.load(chosen[0])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "dist_train"]
    run = subprocess.run(
        [*command, *chosen, f"run.dir={tmp_path}", "run.name=run"], cwd=root, env=environment, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    result = Run(tmp_path / "run").result()
    with np.load(tmp_path / "run/scores.npz", allow_pickle=False) as saved:
        expected = metrics.average_precision_score(saved["truth"], saved["probability"])
    assert result["map"] == pytest.approx(expected, abs=1e-12) and result["map"] > 0.9
