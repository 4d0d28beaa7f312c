"""Every fold is held out once: what is planned, refused, trained side by side, stopped, gone on with, pooled."""

import dataclasses
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from launches import CLASSES, CLIPS, Job, arguments, make_shards
from sklearn import metrics

from dist_train import scored
from dist_train.crossval import book, child, course, outcome, places, plan, sheets
from dist_train.crossval.course import Course, Standing
from dist_train.crossval.places import Place
from dist_train.crossval.plan import Plan, Wish
from dist_train.crossval.watch import Watch
from dist_train.scoring import student

LENGTH = ("run.max_steps=4",)


def _asked(home: Path, data: Path, *more: str) -> list[str]:
    """CONFIG and overrides of a cross-validation in `home`/tiny-folds."""
    return [*arguments(home, data, *LENGTH), *more]


def _planned(home: Path, data: Path, wish: Wish | None = None, *more: str) -> Plan:
    file, *overrides = _asked(home, data, *more)
    return plan.make(file, overrides, wish or Wish())


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a cross-validation whose three runs are there; they were forked, side by side. To be copied."""
    home = tmp_path_factory.mktemp("trained")
    planned = _planned(home, shards)
    jobs = []
    for turn in planned.turns():
        (home / f"fold-{turn.fold}").mkdir()
        jobs.append(Job([planned.file, *turn.overrides], home / f"fold-{turn.fold}"))
    for job in jobs:
        assert job.wait() == [0], job.text()
    return home


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A home of one's own."""
    return shutil.copytree(trained, tmp_path / "home")


def _results(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "tiny-folds/crossval.json").read_text())
    return found


def _main(script: Callable[[str], ModuleType], home: Path, data: Path, *more: str) -> int:
    code: int = script("crossval").main([*_asked(home, data), *more])
    return code


def test_finished_folds_are_kept_and_pooled(
    copied: Path, shards: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [copied / f"tiny-folds/seed-0/fold-{fold}" for fold in (1, 2, 3)]
    before = [(run / "result.json").stat().st_mtime_ns for run in runs]
    assert _main(script, copied, shards) == 0
    told = capsys.readouterr().out
    assert [(run / "result.json").stat().st_mtime_ns for run in runs] == before
    found, values = _results(copied), [json.loads((run / "result.json").read_text())["value"] for run in runs]
    assert found["mean"] == pytest.approx(statistics.mean(values))
    assert found["deviation_over_folds"] == pytest.approx(statistics.stdev(values))
    assert found["interval_over_seeds"] is None and found["missing"] == []
    clips = scored.read(copied / "tiny-folds")
    assert len(set(clips.keys.tolist())) == CLIPS and clips.classes == CLASSES
    guess_N = clips.probability_NC.argmax(1)
    assert found["confusion"] == metrics.confusion_matrix(clips.truth, guess_N, labels=range(4)).tolist()
    (whole,) = found["pooled"]
    assert whole["accuracy"] == pytest.approx(metrics.accuracy_score(clips.truth, guess_N))
    assert whole["macro_f1"] == pytest.approx(metrics.f1_score(clips.truth, guess_N, average="macro"))
    low, high = whole["intervals"]["accuracy"]
    assert low < whole["accuracy"] < high
    worst = found["worst"][0]
    row, column = CLASSES.index(worst["truth"]), CLASSES.index(worst["guess"])
    assert found["confusion"][row][column] == worst["clips"] and row != column
    assert f"mean {found['mean']:.4f}" in told and "seed 0" in told and f"{worst['truth']} taken for" in told
    assert (copied / "tiny-folds/confusion.png").read_bytes().startswith(b"\x89PNG")


def test_several_seeds_have_an_interval(
    copied: Path, shards: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    home = copied / "tiny-folds"
    for seed in (1, 2):
        shutil.copytree(home / "seed-0", home / f"seed-{seed}")
        for fold in (1, 2, 3):
            path = home / f"seed-{seed}/fold-{fold}/result.json"
            record = json.loads(path.read_text())
            path.write_text(json.dumps(record | {"value": record["value"] + 0.01 * seed * fold}))
            clips = scored.read(path.parent)
            sure_NC = clips.probability_NC ** (seed + 1)  # as sure models say it, and not all of the same clips
            sure_NC[:: seed + 1] = np.eye(len(CLASSES))[clips.truth[:: seed + 1]]
            scored.write(path.with_name("scores.npz"), dataclasses.replace(clips, probability_NC=sure_NC))
    assert _main(script, copied, shards, "--seeds", "0,1,2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ensemble"]["clips"] == CLIPS
    seeds = [scored.read(home / f"seed-{seed}") for seed in (0, 1, 2)]
    assert all((one.keys == seeds[0].keys).all() for one in seeds)
    mean_NC = np.mean([one.probability_NC for one in seeds], 0)
    assert found["ensemble"]["accuracy"] == pytest.approx(metrics.accuracy_score(seeds[0].truth, mean_NC.argmax(1)))
    assert found["ensemble"]["accuracy"] not in [one["accuracy"] for one in found["pooled"]]
    means = list(found["seed_means"].values())
    ends = scipy.stats.t.interval(0.95, 2, statistics.mean(means), statistics.stdev(means) / 3**0.5)
    assert found["interval_over_seeds"] == pytest.approx(ends) and found == _results(copied)
    folds = [statistics.mean(one["value"] for one in found["runs"] if one["fold"] == fold) for fold in (1, 2, 3)]
    assert found["deviation_over_folds"] == pytest.approx(statistics.stdev(folds))
    assert np.sum(found["confusion"]) == 3 * CLIPS
    all_seeds, order = scored.read(home), np.argsort(seeds[0].keys)
    assert all_seeds.keys.tolist() == seeds[0].keys[order].tolist()
    np.testing.assert_allclose(all_seeds.probability_NC, mean_NC[order])


def test_some_folds_are_a_part(
    copied: Path, shards: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied / "tiny-folds/seed-0/fold-2")
    for fold, value in ((1, 0.25), (3, 0.75)):  # as if a validation set had chosen
        path = copied / f"tiny-folds/seed-0/fold-{fold}/result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"best": {"step": 3, "accuracy": value}}))
    assert _main(script, copied, shards, "--folds", "3,1") == 0
    told = capsys.readouterr().out
    assert "partial: not there are seed 0 fold 2" in told and "best checkpoints' accuracy: mean 0.5000" in told
    assert _results(copied)["best"]["deviation_over_folds"] == pytest.approx(statistics.stdev([0.25, 0.75]))
    assert _results(copied)["missing"] == [[0, 2]] and len(scored.read(copied / "tiny-folds").keys) == 40
    assert _main(script, copied, shards, "--collect") == 1  # all are asked for, one is not there
    capsys.readouterr()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["data.eval_shards=[x]"], "data.eval_shards: a cross-validation tests the folds"),
        (["data.eval_split=test"], "set data.eval_split=null"),
        (["data.valid_split=valid"], "data.valid_split: a cross-validation tests the folds"),
        (["data.valid_folds=[2]"], "fold 2 is also tested in its turn, and epochs would be chosen on it"),
        (["--folds", "4"], "--folds: no clip is in fold 4; the folds there: 1, 2, 3"),
        (["--folds", "1,1"], "--folds 1,1: one is there twice"),
        (["--seeds", "0,0"], "--seeds 0,0: one is there twice"),
        (["--seeds", "1", "run.seed=2"], "run.seed and --seeds say the same"),
        (["data.eval_folds=[2]"], "every fold is tested in its turn; for some of them give --folds"),
        (["run.resume=never"], "run.resume=never: the same command goes on"),
        (["optim.lr=0.5"], "was begun with other settings (optim.lr: 0.001 -> 0.5)"),
        (["run.epochs=7"], "(run.epochs: 30 -> 7)"),
        (["--validate"], "(--validate: False -> True);"),
        (["--collect", "--name", "other"], "other: no cross-validation there"),
        (["--name", "tiny-folds/seed-0/fold-1"], "fold-1: a run lies there; give another --name"),
        (["model.chanels=8"], "did you mean `model.channels`"),
    ],
)
def test_what_is_refused(
    given: list[str],
    said: str,
    trained: Path,
    shards: Path,
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
) -> None:
    book.agree(_planned(trained, shards))
    assert _main(script, trained, shards, *given) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("crossval: ") and error.count("\n") == 1, error


def test_a_fixed_fold_may_choose_where_it_is_not_tested(shards: Path, tmp_path: Path) -> None:
    planned = _planned(tmp_path, shards, Wish(folds=(1, 3)), "data.valid_folds=[2]")
    assert [turn.config.data.valid_folds for turn in planned.turns()] == [[2], [2]]


def test_the_next_fold_chooses(shards: Path, tmp_path: Path) -> None:
    planned = _planned(tmp_path, shards, Wish(validate=True))
    pairs = [(turn.config.data.eval_folds, turn.config.data.valid_folds) for turn in planned.turns()]
    assert pairs == [([1], [2]), ([2], [3]), ([3], [1])]


def test_shards_of_other_clips_are_refused(copied: Path, shards: Path, tmp_path: Path) -> None:
    book.agree(_planned(copied, shards))
    (tmp_path / "others").mkdir()
    others = make_shards(tmp_path / "others", "FLAC")
    with pytest.raises(ValueError, match="other clips or labels"):
        book.agree(_planned(copied, others))
    moved = shutil.copytree(shards, tmp_path / "moved")
    book.agree(_planned(copied, moved))
    with pytest.raises(ValueError, match=r"valid_shards: .* is tested too"):
        _planned(copied, shards, None, f"data.valid_shards=[{moved}]")
    with pytest.raises(ValueError, match="would be scored twice"):
        _planned(copied, shards, None, f"data.shards=[{shards},{moved}]")


def test_data_without_folds_is_told_how_to_get_some(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    from launches import pack, wav

    from dist_train import shards as sets

    for folds, said in (
        ((None, None), "has no folds, .*pack SOURCE DEST --folds 5 makes some"),
        ((1, 1), r"has one fold \(1\)"),
        ((1, 2, None), "1 of 3 clips are in no fold"),
    ):
        home = tmp_path / said[:9].replace(" ", "-")
        home.mkdir()
        members = []
        for number, fold in enumerate(folds):
            sound = wav((random.normal(size=8000) * 999).astype("<i2"), 8000, "PCM_16", "WAV")
            record = {"label": CLASSES[number % 2]} | ({"fold": fold} if fold is not None else {})
            members += [(f"c{number}.wav", sound), (f"c{number}.json", json.dumps(record).encode())]
        pack(home / "tiny.tar", members)
        sets.build(home, workers=1)
        with pytest.raises(ValueError, match=said):
            _planned(tmp_path, home)


def test_runs_of_other_settings_or_clips_are_not_pooled(copied: Path, shards: Path) -> None:
    planned = _planned(copied, shards)
    run = copied / "tiny-folds/seed-0/fold-1"
    clips = scored.read(run)
    some = scored.Scored(clips.keys[1:], clips.classes, clips.truth[1:], clips.probability_NC[1:], clips.bad[1:])
    scored.write(run / "scores.npz", some)
    with pytest.raises(ValueError, match="scores 19 clips, fold 1 has 20"):
        outcome.found(planned)
    shutil.copy(copied / "tiny-folds/seed-0/fold-2/scores.npz", run / "scores.npz")
    with pytest.raises(ValueError, match="is scored in two parts"):
        outcome.save(planned)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("channels: 8", "channels: 9"))
    with pytest.raises(ValueError, match=r"made with other settings \(model.channels: 9 -> 8\)"):
        outcome.found(planned)


def test_one_owner_for_each_run(shards: Path, tmp_path: Path, script: Callable[[str], ModuleType], capsys: Any) -> None:
    planned = _planned(tmp_path, shards)
    first, *others = planned.turns()
    book.agree(planned)
    with book.claimed(planned, [first]):
        assert _main(script, tmp_path, shards, "--folds", "1") == 2
        assert "fold-1: being trained by" in capsys.readouterr().err
        with book.claimed(planned, others):  # another task of a job array
            pass
    with book.claimed(planned, [first]):
        pass


STAND_IN = """
import os, signal, sys, time
from pathlib import Path
run, source, wait, end = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
def saved(number, frame):
    Path(str(run) + ".saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, saved)
note = Path(str(run) + ".begun")
note.with_suffix(".tmp").write_text(f"{time.monotonic()} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()}")
note.with_suffix(".tmp").rename(note)
while not all(run.with_name(f"fold-{fold}.begun").exists() for fold in wait.split(",")):
    time.sleep(0.01)
print("line before\\nerror: no such thing", flush=True)
if end == 0:
    os.rename(source, run)
Path(str(run) + ".over").write_text(str(time.monotonic()))
sys.exit(end)
"""


@pytest.fixture
def stand_in(copied: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Turns whose processes are real, but train nothing: a function of (folds that must have begun before a run ends,
    exit code) by fold gives a plan; fold 9 never begins."""
    planned = _planned(copied, shards)
    done = tmp_path / "done"
    shutil.move(copied / "tiny-folds/seed-0", done)

    def prepare(ends: dict[int, tuple[str, int]]) -> Plan:
        def command(ranks: int, words: list[str]) -> list[str]:
            fold = next(int(word.partition("fold-")[2]) for word in words if word.startswith("run.name="))
            wait, code = ends[fold]
            run = copied / f"tiny-folds/seed-0/fold-{fold}"
            return [sys.executable, "-c", STAND_IN, str(run), str(done / run.name), wait, str(code)]

        monkeypatch.setattr(child, "command", command)
        return planned

    yield prepare


def _ran(planned: Plan, spots: Sequence[Place]) -> Course:
    made = Course(planned.file, planned.turns(), lambda standings: None)
    made.run(spots)
    return made


def test_runs_are_spread_over_places(stand_in: Any) -> None:
    planned = stand_in({1: ("1,2", 0), 2: ("1,2", 0), 3: ("3", 0)})
    made = _ran(planned, [Place(("4",), 1, 1), Place(("6",), 1, 1)])
    assert [one.state for one in made.standings] == ["finished"] * 3
    begun = [turn.beside(".begun").read_text().split() for turn in planned.turns()]
    over = [float(turn.beside(".over").read_text()) for turn in planned.turns()]
    assert [gpu for _, gpu, _ in begun][:2] == ["4", "6"] and begun[2][1] in ("4", "6")
    starts = [float(when) for when, _, _ in begun]
    assert max(starts[:2]) < min(over[:2]) < starts[2]  # two side by side, the third when a place came free
    assert all(child.spent(turn) > 0 for turn in planned.turns())


def test_a_failure_is_shown_and_the_others_go_on(stand_in: Any, capsys: Any, script: Any) -> None:
    planned = stand_in({1: ("1", 0), 2: ("2", 2), 3: ("3", 0)})
    made = _ran(planned, [Place((), 1, 1)])
    assert [one.state for one in made.standings] == ["finished", "failed", "finished"]
    script("crossval").failures(made.standings)
    error = capsys.readouterr().err
    assert error == f"crossval: seed 0 fold 2 failed: no such thing ({planned.turns()[1].beside('.log')})\n"


def test_where_none_has_finished_a_failure_is_the_end(stand_in: Any, capsys: Any, script: Any) -> None:
    made = _ran(stand_in({1: ("1", 2), 2: ("2", 0), 3: ("3", 0)}), [Place((), 1, 1)])
    assert [one.state for one in made.standings] == ["failed", "waiting", "waiting"]
    script("crossval").failures(made.standings)
    assert "2 more not begun" in capsys.readouterr().err


def test_a_run_that_was_killed_says_by_what(shards: Path, tmp_path: Path) -> None:
    turn = _planned(tmp_path, shards).turns()[0]
    one = Standing(turn, Watch(turn.folder, turn.config), "failed", code=-9, said=("step 7", "step 8"))
    first, *last = sheets.failure(one)
    assert "seed 0 fold 1 was killed by SIGKILL" in first and "memory" in first and last == ["    step 7", "    step 8"]
    one.code, one.said = 1, ("Traceback", "KeyError: 3")
    assert sheets.failure(one)[0].startswith("crossval: seed 0 fold 1 failed with exit code 1; ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_runs(stand_in: Any, number: signal.Signals) -> None:
    planned = stand_in({1: ("9", 0), 2: ("9", 0), 3: ("9", 0)})
    turns = planned.turns()

    def ask() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not all(turn.beside(".begun").exists() for turn in turns[:2]):
            time.sleep(0.02)
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        os.kill(os.getpid(), number)  # as `timeout` passes on what the terminal has sent to both

    threading.Thread(target=ask, daemon=True).start()
    made = _ran(planned, [Place((), 1, 1)] * 2)
    assert made.signal == number and [one.state for one in made.standings] == ["stopped", "stopped", "waiting"]
    assert [turn.beside(".saved").exists() for turn in turns] == [True, True, False]


def test_a_second_signal_does_not_wait(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.Child, "stop", lambda self: None)  # a run that does not hear
    planned = stand_in({1: ("9", 0), 2: ("9", 0), 3: ("9", 0)})
    turn = planned.turns()[0]

    def ask() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not turn.beside(".begun").exists():
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)

    threading.Thread(target=ask, daemon=True).start()
    _ran(planned, [Place((), 1, 1)])
    number = int(turn.beside(".begun").read_text().split()[2])
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30])
def test_quantiles_of_t(freedom: int) -> None:
    for level in (0.5, 0.9, 0.95, 0.999):
        expected = scipy.stats.t.ppf((1 + level) / 2, freedom)
        assert student.quantile(freedom, level) == pytest.approx(expected, rel=1e-9)


VALUES = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(1, 5)), st.floats(0, 1), min_size=1)


@given(VALUES)
def test_means_of_what_is_there(values: dict[tuple[int, int], float]) -> None:
    found = outcome.over((1, 2, 3, 4, 5), values)
    table = np.full((4, 6), np.nan)
    for (seed, fold), value in values.items():
        table[seed, fold] = value
    seeds = [np.nanmean(row) for row in table if not np.isnan(row).all()]
    folds = [np.nanmean(column) for column in table.T if not np.isnan(column).all()]
    assert found["mean"] == pytest.approx(np.mean(seeds))
    expected = np.std(folds, ddof=1) if len(folds) > 1 else None
    assert found["deviation_over_folds"] == (pytest.approx(expected, abs=1e-12) if expected is not None else None)
    assert (found["interval_over_seeds"] is None) == (len(seeds) < 2)


def test_several_labels_are_drawn_and_told_as_such(
    tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each seed's clips in an order of their own."""
    random = np.random.default_rng(0)
    truth, chance_NC = (random.random((12, 3)) < 0.5).astype(np.int64), random.random((2, 12, 3))
    keys, moved = np.array([f"clip{number:02d}" for number in range(12)]), random.permutation(12)
    first = scored.Scored(keys, ("a", "b", "c"), truth, chance_NC[0], np.zeros(12, np.bool_))
    second = scored.Scored(keys[moved], ("a", "b", "c"), truth[moved], chance_NC[1][moved], np.zeros(12, np.bool_))
    whole = outcome.together([first, second])
    assert whole.keys.tolist() == keys.tolist() and np.array_equal(whole.truth, truth)
    np.testing.assert_allclose(whole.probability_NC, chance_NC.mean(0), atol=1e-15)
    results = {"metric": "map", "seeds": [0], "folds": [1], "missing": [], "runs": [], "pooled": [], "seconds": 1.0}
    results |= {"classes": ["a", "b", "c"], "confusion": None, "best": None, **outcome.over((1,), {(0, 1): 0.5})}
    outcome._draw(tmp_path, results, {0: first, 1: second})
    planned = SimpleNamespace(root=tmp_path, seeds=(0,), wanted=(1,))
    assert script("crossval").tell(planned, results, False) == 0
    assert "precision.png" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["precision.png"]


def test_a_score_that_means_nothing_on_a_fold_leaves_the_others() -> None:
    """Such as cavg of a fold of one language, which result.json has as null."""
    values = {(seed, fold): 0.5 + fold / 10 for seed in (0, 1) for fold in (1, 2)} | {(1, 2): math.nan}
    found = outcome.over((1, 2), values)
    assert found["seed_means"]["0"] == pytest.approx(0.65) and math.isnan(found["seed_means"]["1"])
    assert math.isnan(found["deviation_over_folds"]) and np.isnan(found["interval_over_seeds"]).all()
    assert sheets.sentence("cavg", found).startswith("cavg: mean nan")


def test_a_growing_run_is_followed(shards: Path, tmp_path: Path) -> None:
    turn = _planned(tmp_path, shards, None, "run.epochs=4").turns()[0]
    turn.folder.mkdir(parents=True)
    path = turn.folder / "metrics.jsonl"
    watch = Watch(turn.folder, turn.config)
    watch.look()
    assert watch.epoch is None and watch.left is None
    lines = [json.dumps({"kind": "train", "step": step, "epoch": step / 2, "loss": 2 / step}) for step in (1, 2, 3)]
    path.write_text(lines[0] + "\n" + lines[1][:9])
    watch.look()
    assert (watch.epoch, watch.loss, watch.share) == (0.5, 2.0, 0.25) and watch.left is None
    with path.open("a") as file:
        file.write(lines[1][9:] + "\n")
    watch.look()
    time.sleep(0.01)
    assert watch.epoch == 1.0 and (left := watch.left) is not None and left > 0
    path.write_text(lines[0] + "\n")  # it goes on from an earlier checkpoint
    watch.look()
    assert watch.epoch == 0.5
    standing = Standing(turn, watch, "running", 3.0)
    assert sheets.line(standing) == "seed 0 fold 1: running, epoch 0.5/4, loss 2.0000"


SMI = "#!/bin/sh\necho '0, 100, 80000'; echo '1, 60000, 80000'; echo '2, 5, 80000'\n"


def test_places_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [place.gpus for place in places.places(5, None, 1)] == [("0",), ("2",)]
    assert [place.gpus for place in places.places(1, None, 1)] == [("0",)]
    assert [place.gpus for place in places.places(5, None, 2)] == [("0", "2")]
    assert [place.gpus for place in places.places(5, 3, 1)] == [("0",), ("2",), ("0",)]
    with pytest.raises(ValueError, match=r"--nproc 3: 2 GPUs are free \(0, 2\)"):
        places.places(5, None, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-ab")
    assert [place.gpus for place in places.places(5, None, 1)] == [("1",), ("GPU-ab",)]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, 70000, 80000'\n")
    with pytest.raises(ValueError, match="every GPU is in use"):
        places.places(5, None, 1)


def test_a_last_run_alone_has_all_threads() -> None:
    one = Place((), 1, 2)
    threads = [[course.wider(one, number, runs, 3).threads for number in range(runs)] for runs in (3, 4, 5, 6, 7)]
    assert threads == [[2] * 3, [2] * 3 + [6], [2] * 3 + [3] * 2, [2] * 6, [2] * 6 + [6]]


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name, value in (("granted", 8), ("physical", 4), ("memory", 100.0)):
        monkeypatch.setattr(places, name, lambda value=value: value)
    assert places.places(9, None, 1) == (Place((), 1, 2),) * 4
    assert places.places(9, 3, 2) == (Place((), 2, 1),) * 3
    assert places.places(2, None, 1) == (Place((), 1, 4),) * 2
    monkeypatch.setattr(places, "memory", lambda: 5.0)
    assert places.places(9, None, 1) == (Place((), 1, 4),) * 2
    monkeypatch.undo()
    assert 1 <= places.physical() <= (os.cpu_count() or 1) and places.memory() > 0


def test_a_container_is_granted_less_than_its_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GROUP", tmp_path)
    monkeypatch.setattr(places, "cores", lambda: 64)
    assert places.granted() == 64
    for text, cores in (("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert places.granted() == cores and places.physical() <= cores
    machine = places.memory()
    (tmp_path / "memory.current").write_text(f"{2**28}\n")
    (tmp_path / "memory.max").write_text(f"{2**28 + 2**27}\n")
    assert places.memory() == 0.125 < machine
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {2**27}\nactive_file 5\n")
    assert places.memory() == 0.25


def _command(root: Path, home: Path, data: Path, *more: str) -> list[str]:
    return [sys.executable, str(root / "tools/crossval.py"), *_asked(home, data), *more]


def test_the_command_trains(
    copied: Path, shards: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    """One fold of three is not there; it is trained in a process of its own."""
    shutil.rmtree(copied / "tiny-folds/seed-0/fold-2")
    assert _main(script, copied, shards, "--jobs", "1", "run.threads=1") == 0
    told = capsys.readouterr()
    assert "seed 0 fold 2: running" in told.err and "3 of 3 done" in told.err and "mean" in told.out
    assert {one["fold"] for one in _results(copied)["runs"]} == {1, 2, 3}
    assert "finished: accuracy" in (copied / "tiny-folds/seed-0/fold-2.log").read_text()


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_in_mid_fold_it_goes_on_bit_for_bit(
    ranks: int, shards: Path, tmp_path: Path, root: Path, environment: dict[str, str]
) -> None:
    more = ["run.max_steps=60", "checkpoint.every_epochs=1", "--folds", "2", "--nproc", str(ranks)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = subprocess.run(_command(root, whole, shards, *more), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    run = cut / "tiny-folds/seed-0/fold-2"
    driver = subprocess.Popen(_command(root, cut, shards, *more), env=environment)
    until = time.monotonic() + 240
    while not any((run / "checkpoints").glob("step-*.pt")) and time.monotonic() < until:
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    assert not (run / "result.json").exists()
    again = subprocess.run(_command(root, cut, shards, *more), capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert "goes on from" in (cut / "tiny-folds/seed-0/fold-2.log").read_text()
    for name in ("keys", "truth", "probability_NC"):
        one, other = (getattr(scored.read(home / "tiny-folds"), name) for home in (whole, cut))
        np.testing.assert_array_equal(one, other)


@pytest.mark.full
def test_two_command_lines_of_one_name(shards: Path, tmp_path: Path, root: Path, environment: dict[str, str]) -> None:
    """Tasks of a job array: each its fold, pooled by whoever ends last; Ctrl-C in one saves."""
    tasks = [
        subprocess.Popen(_command(root, tmp_path, shards, "--folds", str(fold)), env=environment) for fold in (1, 2, 3)
    ]
    assert [task.wait(240) for task in tasks] == [0, 0, 0]
    assert _results(tmp_path)["missing"] == []
    command = _command(root, tmp_path, shards, "--seeds", "1", "--folds", "1", "checkpoint.every_epochs=1000")
    driver = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    run, until = tmp_path / "tiny-folds/seed-1/fold-1", time.monotonic() + 240
    while not (run / "metrics.jsonl").exists() and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.005)
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=240)
    assert driver.returncode in (0, 130)  # 0: it was done before
    assert driver.returncode == 0 or "stopped; the same command goes on" in error
    assert any((run / "checkpoints").glob("step-*.pt"))
