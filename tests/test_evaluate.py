"""Every clip is scored once on any number of ranks, the same bit for bit whatever its mates, as plain sums have it."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launches import CLASSES, TRAINED, clip, settings
from tars import pack, wav
from torch import Tensor

from dist_train import shards as shard_sets
from dist_train.evaluate import evaluate
from dist_train.feed import views
from dist_train.frontend import FrontEnd
from dist_train.parts import Parts
from dist_train.scores import single
from dist_train.settings import Config
from dist_train.view import View, choose
from dist_train.world import Place, World

RATE, WINDOW = 16000, 6400


class Part(World):
    """One of several ranks, alone: keeps its rows instead of sending them."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        super().__init__(Place(rank, size), torch.device("cpu"), "gloo", 1)
        self.rows = torch.empty(0)

    def collect(self, value: Any) -> list[Any]:
        return [value]

    def gather_rows(self, rows: Tensor, sizes: list[int]) -> Tensor | None:
        assert len(rows) == sizes[self.rank]
        self.rows = rows
        return rows if self.size == 1 else None


def _never() -> bool:
    return False


@pytest.fixture(scope="module")
def network(shards: Path) -> torch.nn.Module:
    """A model whose BatchNorm statistics are not those of its start."""
    model = Parts(settings(shards), Part()).model
    torch.manual_seed(5)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.3 * torch.rand_like(tensor)).add_(0.05 * torch.rand_like(tensor))
            assert torch.isfinite(tensor).all(), name
    return model


def _front(config: Config) -> FrontEnd:
    return FrontEnd(config.audio, config.augment, config.features, seed=0, device="cpu")


def _logits(model: torch.nn.Module, view: View, config: Config, rank: int = 0, size: int = 1) -> Tensor:
    """Log-probabilities or logits of the clips of a rank."""
    part = Part(rank, size)
    evaluate(model, view, config, _front(config), part, _never)
    return part.rows


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_score_every_clip_once(shards: Path, network: torch.nn.Module, size: int) -> None:
    config = settings(shards, "evaluation.batch_size=8")
    view = views(config).train
    whole = _logits(network, view, config)
    assert whole.shape == (TRAINED, len(CLASSES))
    parts = [_logits(network, view, config, rank, size) for rank in range(size)]
    assert torch.equal(torch.cat(parts), whole)  # bit for bit, though other clips share a batch


def test_more_ranks_than_clips_and_the_first_alone(shards: Path, network: torch.nn.Module) -> None:
    view = choose([shard_sets.open_set(shards)], folds=[1])
    config = settings(shards)
    whole = _logits(network, view, config)
    assert torch.equal(torch.cat([_logits(network, view, config, rank, 30) for rank in range(30)]), whole)
    config = settings(shards, "evaluation.ranks=first")
    parts = [_logits(network, view, config, rank, 3) for rank in range(3)]
    assert [len(part) for part in parts] == [20, 0, 0] and torch.equal(parts[0], whole)


@pytest.mark.parametrize("kind", ["windows", "full"])
def test_a_score_does_not_depend_on_its_mates(shards: Path, network: torch.nn.Module, kind: str) -> None:
    """The same clips among others, in another order, by key."""
    config = settings(shards, f"evaluation.clip={kind}", "evaluation.batch_size=8")
    opened = shard_sets.open_set(shards)
    some, everything = choose([opened], folds=[2]), choose([opened])
    one, other = _logits(network, some, config), _logits(network, everything, config)
    places = {everything.key(number): number for number in range(len(everything))}
    assert torch.equal(one, other[[places[some.key(number)] for number in range(len(some))]])


def test_shuffled_clips(shards: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    members: list[tuple[str, bytes]] = []
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            members += [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    pairs = [members[number : number + 2] for number in range(0, len(members), 2)]
    order = np.random.default_rng(0).permutation(len(pairs))
    pack(tmp_path / "all.tar", [member for number in order for member in pairs[number]])
    shuffled = choose([shard_sets.build(tmp_path, workers=1)])
    config, view = settings(shards), choose([shard_sets.open_set(shards)])
    one, other = _logits(network, view, config), _logits(network, shuffled, config)
    assert torch.equal(one[order], other)


def _window_logits(model: torch.nn.Module, wave: np.ndarray, config: Config) -> Tensor:
    """(windows, C): features and logits of each window of a clip at 16 kHz, one at a time."""
    front = _front(config)
    free = len(wave) - WINDOW
    count = -(-free // WINDOW) + 1 if free > 0 else 1
    starts = [free * number // max(count - 1, 1) for number in range(count)] if free > 0 else [0]
    logits = []
    for start in starts:
        piece = np.resize(wave, WINDOW) if free < 0 else wave[start : start + WINDOW]
        feat_TF = front.extractor(torch.from_numpy(piece.astype(np.float32) / 32768)[None])[0]
        with torch.no_grad():
            logits.append(model.eval()((feat_TF - feat_TF.mean(0))[None])[0].double())
    return torch.stack(logits)


@pytest.mark.parametrize(
    ("average", "objective"), [("logits", "softmax"), ("probabilities", "softmax"), ("probabilities", "bce")]
)
def test_scores_are_means_over_windows(shards: Path, network: torch.nn.Module, average: str, objective: str) -> None:
    config = settings(shards, f"evaluation.average={average}", f"objective.name={objective}")
    view = choose([shard_sets.open_set(shards)])
    found = _logits(network, view, config)
    rates = []
    for number in range(len(view)):
        wave, rate = clip(int(view.key(number).removeprefix("clip")))
        rates.append(rate)
        if rate == RATE:
            expected = _window_logits(network, wave, config)
            if average == "logits":
                mean = expected.mean(0)
            elif objective == "bce":
                mean = expected.sigmoid().mean(0).logit()
            else:
                mean = expected.softmax(1).mean(0).log()
            torch.testing.assert_close(found[number], mean, rtol=1e-4, atol=1e-4)
    assert rates.count(RATE) == 48


def test_silent_windows_are_left_out(shards: Path, network: torch.nn.Module, tmp_path: Path) -> None:
    sound, _ = clip(1)
    sound = np.resize(sound, WINDOW)
    silence = np.zeros(WINDOW, "<i2")
    clips = {"half": np.concatenate([silence, sound, silence]), "sound": sound, "mute": np.tile(silence, 2)}
    members = [(f"{name}.wav", wav(wave)) for name, wave in clips.items()]
    label = json.dumps({"label": CLASSES[0]}).encode()
    pack(tmp_path / "s.tar", [pair for member in members for pair in (member, (f"{member[0][:-4]}.json", label))])
    view = choose([shard_sets.build(tmp_path, workers=1)], classes=CLASSES)
    logits = {view.key(number): row for number, row in enumerate(_logits(network, view, settings(shards)))}
    assert torch.equal(logits["half"], logits["sound"])
    assert torch.isfinite(logits["mute"]).all()  # nothing else to go by


def test_scores_against_plain_arithmetic() -> None:
    random = np.random.default_rng(3)
    logits, label = random.normal(size=(200, 4)), random.integers(0, 4, 200)
    logits[np.arange(200), label] += 0.8
    bad = [(7, "torn"), (50, "not finite")]
    found = single(torch.from_numpy(logits), torch.from_numpy(label), bad)
    good = np.ones(200, bool)
    good[[7, 50]] = False
    right = (logits.argmax(1) == label) & good
    recall = [right[label == number].mean() for number in range(4)]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = np.where(good, -log_p[np.arange(200), label], np.log(4))
    assert found.values["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    assert found.values["balanced_accuracy"] == pytest.approx(np.mean(recall), abs=1e-6)
    assert found.values["loss"] == pytest.approx(loss.mean(), abs=1e-12)
    table = np.zeros((4, 4), int)
    np.add.at(table, (label[good], logits.argmax(1)[good]), 1)
    assert found.confusion.tolist() == table.tolist()
    assert (found.clips, found.bad) == (200, bad)


def test_macro_f1_against_plain_arithmetic() -> None:
    random = np.random.default_rng(4)
    guess, label = random.integers(0, 3, 90), random.integers(0, 3, 90)
    found = single(torch.eye(3, dtype=torch.float64)[guess], torch.from_numpy(label), [])
    hits = [((guess == number) & (label == number)).sum() for number in range(3)]
    sizes = [(guess == number).sum() + (label == number).sum() for number in range(3)]
    assert found.values["macro_f1"] == pytest.approx(np.mean([2 * a / b for a, b in zip(hits, sizes, strict=True)]))


def test_a_bad_clip_counts_as_wrong_even_where_the_guess_is_right() -> None:
    logits = torch.eye(3, dtype=torch.float64)
    assert single(logits, torch.arange(3), []).values["accuracy"] == 1
    assert single(logits, torch.arange(3), [(2, "torn")]).values["accuracy"] == pytest.approx(2 / 3)


def test_a_stop_ends_it_and_the_model_trains_on(shards: Path, network: torch.nn.Module) -> None:
    network.train()
    view, config = choose([shard_sets.open_set(shards)]), settings(shards, "evaluation.batch_size=8")
    asked = iter([False, True])
    assert evaluate(network, view, config, _front(config), Part(), lambda: next(asked)) is None
    assert network.training


def test_the_average_is_scored_and_the_weights_come_back(shards: Path) -> None:
    parts = Parts(settings(shards, "optim.ema=0.9"), Part())
    assert parts.views.evaluation is not None and parts.step.average is not None
    live = [tensor.clone() for tensor in parts.step.average.live]
    before = parts.score(parts.views.evaluation, _never)
    for tensor in parts.step.average.tensors:
        tensor.mul_(1.5)
    averaged = [tensor.clone() for tensor in parts.step.average.tensors]
    after = parts.score(parts.views.evaluation, _never)
    assert before is not None and after is not None and before.values["loss"] != after.values["loss"]
    assert all(torch.equal(one, other) for one, other in zip(live, parts.step.average.live, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(averaged, parts.step.average.tensors, strict=True))
