"""Embeddings are the network's own, averaged over windows; error rates of trials are those that counting gives."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from launches import Run, make_shards, train

from dist_train import saved, trials
from dist_train import shards as shard_sets
from dist_train.assembly import packlist
from dist_train.embeddings import embed
from dist_train.sources.samples import Sample
from dist_train.view import VIEW_ROW, choose
from dist_train.world import Place, World

WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
SCORES = st.lists(st.tuples(st.sampled_from([-1.0, -0.25, 0.0, 0.5, 0.75]), st.booleans()), min_size=2, max_size=30)


def _counted(scored: list[tuple[float, bool]]) -> list[tuple[float, float]]:
    """(misses, false alarms) at every threshold, from none taken to all, by counting."""
    same = [score for score, target in scored if target]
    other = [score for score, target in scored if not target]
    points = []
    for limit in [np.inf, *sorted({score for score, _ in scored}, reverse=True)]:
        miss = sum(score < limit for score in same) / len(same)
        points.append((miss, sum(score >= limit for score in other) / len(other)))
    return points


def _crossing(points: list[tuple[float, float]]) -> float:
    """Where misses equal false alarms on the line through the points, by halving."""

    def at(place: float) -> tuple[float, float]:
        number = min(int(place), len(points) - 2)
        (miss, alarm), (next_miss, next_alarm) = points[number : number + 2]
        return miss + (place - number) * (next_miss - miss), alarm + (place - number) * (next_alarm - alarm)

    low, high = 0.0, len(points) - 1.0
    for _ in range(100):
        middle = (low + high) / 2
        miss, alarm = at(middle)
        low, high = (middle, high) if miss > alarm else (low, middle)
    return at(high)[1]


@limits(max_examples=200, deadline=None)
@given(SCORES, st.sampled_from([0.01, 0.05, 0.5]))
def test_error_rates_by_counting(scored: list[tuple[float, bool]], target: float) -> None:
    if len({same for _, same in scored}) < 2:
        return
    score_T, same_T = np.array([score for score, _ in scored]), np.array([same for _, same in scored])
    points = _counted(scored)
    assert trials.equal_error_rate(score_T, same_T) == pytest.approx(_crossing(points), abs=1e-9)
    cost = min(target * miss + (1 - target) * alarm for miss, alarm in points) / min(target, 1 - target)
    assert trials.least_cost(score_T, same_T, target) == pytest.approx(cost, abs=1e-12)


def test_error_rates_of_plain_cases() -> None:
    same_T = np.array([True, True, False, False])
    assert trials.equal_error_rate(np.array([0.9, 0.8, 0.1, 0.0]), same_T) == 0
    assert trials.equal_error_rate(np.array([0.0, 0.1, 0.8, 0.9]), same_T) == 1
    assert trials.equal_error_rate(np.full(4, 0.5), same_T) == 0.5
    assert trials.equal_error_rate(np.array([0.9, 0.1, 0.8, 0.0]), same_T) == 0.5
    assert trials.least_cost(np.full(4, 0.5), same_T) == 1


def test_trials_in_both_forms(tmp_path: Path) -> None:
    packed = packlist.key(Sample(Path("id1/two.flac"), "id1/two.flac", ()))
    keys = ["id1/one", packed, "id2/three"]
    path = tmp_path / "trials.txt"
    path.write_text("1 id1/one.wav id1/two.flac\n\n0 id1/one id2/three.wav\n")
    voxceleb = trials.read(path, keys)
    path.write_text("id1/one id1/two.flac target\nid1/one id2/three nontarget\n")
    kaldi = trials.read(path, keys)
    path.write_text("1 id1/one.wav id3/three/00001.wav\n0 id1/one id2/three.wav\n")
    whole = packlist.key(Sample(Path("wav/id3/three/00001.wav"), "wav/id3/three/00001.wav", ()))
    below = trials.read(path, ["id1/one", whole, "id2/three"])  # the folder that VoxCeleb's lists leave out
    for found in (voxceleb, kaldi, below):
        assert found.first_T.tolist() == [0, 0] and found.second_T.tolist() == [1, 2]
        assert found.same_T.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no trial"),
        ("1 a b\n1 a\n", "line 2: is no trial"),
        ("1 a b\n2 a b\n", "line 2: is no trial"),
        ("1 a b\na b target\n", "line 2: is no trial"),
        ("1 a b\n0 a missing.wav\n", "line 2: clip `missing.wav` is not in the shards"),
        ("1 a b\n1 b a\n", "all trials have the same answer"),
    ],
)
def test_trials_that_are_none(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "trials.txt").write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        trials.read(tmp_path / "trials.txt", ["a", "b"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("center", [False, True])
def test_cosines(center: bool) -> None:
    random = np.random.default_rng(0)
    vectors_NE = random.normal(size=(6, 3)) + 1
    pairs = np.array(list(itertools.product(range(6), repeat=2)))
    found = trials.cosine(vectors_NE, trials.Trials(pairs[:, 0], pairs[:, 1], np.ones(36, bool)), center)
    moved = vectors_NE - vectors_NE.mean(0) * center
    for (one, two), score in zip(pairs, found, strict=True):
        norms = np.linalg.norm(moved[one]) * np.linalg.norm(moved[two])
        assert score == pytest.approx(moved[one] @ moved[two] / norms, abs=1e-12)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short run with a margin, an average of weights, and statistics of its features."""
    given = ("objective.name=aam", "objective.speed_classes=true", "optim.ema=0.5", "features.norm=dataset")
    return train(tmp_path_factory.mktemp("run"), clips, *given, "run.max_steps=3", "checkpoint.every_epochs=1")


def _never(done: int, total: int) -> None:
    assert 0 < done <= total


def test_embeddings_are_means_over_windows(run: Run, clips: Path) -> None:
    network = saved.load(run.folder, [], WORLD)
    average = network.model.state_dict()["fc.weight"]
    live = run.last()["step"]["model"]["fc.weight"]
    assert not torch.equal(average, live)  # the average is what was scored
    assert any(torch.equal(average, tensor) for tensor in run.last()["step"]["ema"])
    view = choose([shard_sets.open_set(clips)], folds=[1])
    found = embed(network.model, view, network.config, network.front, _never)
    assert found.keys.tolist() == [view.key(number) for number in range(len(view))] and not found.bad
    seen: list[torch.Tensor] = []
    original: Callable[..., torch.Tensor] = network.model.embed  # type: ignore[assignment]

    class Noted(torch.nn.Module):
        head = network.model.head

        def embed(self, feat_BTF: torch.Tensor, frames_B: torch.Tensor | None) -> torch.Tensor:
            seen.append(original(feat_BTF, frames_B))
            return seen[-1]

    one = network.config.model_copy(
        update={"evaluation": network.config.evaluation.model_copy(update={"batch_size": 1})}
    )
    alone = embed(Noted(), view, one, network.front, _never)
    np.testing.assert_allclose(alone.vectors_NE, found.vectors_NE, rtol=1e-4, atol=1e-5)
    rows = view.rows(np.arange(len(view))).tolist()
    names = dict(zip(VIEW_ROW.names or (), zip(*rows, strict=True), strict=True))
    lengths = [-(-frames * 16000 // rate) for frames, rate in zip(names["frames"], names["rate"], strict=True)]
    parts = torch.split(torch.cat(seen), [-(-max(0, length - 6400) // 6400) + 1 for length in lengths])
    means = np.stack([part.double().mean(0).float().numpy() for part in parts])
    np.testing.assert_allclose(alone.vectors_NE, means, rtol=1e-6, atol=1e-7)


def _tool(root: Path, environment: dict[str, str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools/embed.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_tool(run: Run, clips: Path, tmp_path: Path, root: Path, environment: dict[str, str]) -> None:
    view = choose([shard_sets.open_set(clips)], folds=[1])
    keys, label = [view.key(number) for number in range(20)], view.rows(np.arange(20))["label"]
    lines = [f"{int(label[a] == label[b])} {keys[a]} {keys[b]}" for a, b in itertools.combinations(range(20), 2)]
    (tmp_path / "trials.txt").write_text("\n".join(lines))
    asked = (run.folder, tmp_path / "e.npz", "--trials", tmp_path / "trials.txt", "--center", "--normalise")
    done = _tool(root, environment, *asked)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "e.npz", allow_pickle=False) as written:
        assert written["keys"].tolist() == keys and written["embeddings"].shape == (20, 16)
        vectors = written["embeddings"].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    listed = trials.read(tmp_path / "trials.txt", keys)
    scored = trials.cosine(vectors, listed, center=True)
    rate = _crossing(_counted(list(zip(scored.tolist(), listed.same_T.tolist(), strict=True))))
    assert f"EER {100 * rate:.4f} %" in done.stdout and "190 trials" in done.stdout


def test_what_is_refused(
    run: Run, tmp_path: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    tool = script("embed")
    for arguments, said in (
        ([tmp_path, tmp_path / "e.npz"], "no run there"),
        ([run.folder, tmp_path / "e.csv"], "written as .npz"),
        ([run.folder, tmp_path / "e.npz", "--center"], "--center changes the scores of trials only"),
        ([run.folder, tmp_path / "e.npz", "--trials", tmp_path / "none.txt"], "none.txt: cannot be read"),
        ([run.folder, run.folder / "config.yaml/e.npz"], "config.yaml: cannot be written (File exists)"),
        ([run.folder, tmp_path / "e.npz", "model.chanels=8"], "unknown key `model.chanels`"),
    ):
        assert tool.main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
    with pytest.raises(ValueError, match=r"another model .*; leave these settings as the run has them"):
        saved.load(run.folder, ["model.channels=16"], WORLD)
    assert not list(tmp_path.iterdir())
