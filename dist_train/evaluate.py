"""A model and a view -> scores. Every clip once; a clip's score does not depend on its batch mates or its rank.

    clips of this rank -> windows -> batches of one shape -> logits -> mean over a clip's windows -> rank 0 -> scores

fp32 (fp64 where the run is fp64), eager, never through the DDP wrapper, whose forward would wait for other ranks.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dist_train import packed
from dist_train.feed import Feed
from dist_train.frontend import FrontEnd
from dist_train.models import compiled
from dist_train.settings import Config, Evaluation
from dist_train.view import View
from dist_train.window import eval_windows, full_windows
from dist_train.world import World

_CLIPS = 4096  # whose windows are planned at once


@dataclass(frozen=True)
class Scores:
    """`values` by name (accuracy, balanced_accuracy, macro_f1, loss); `confusion` (C, C): rows are the truth."""

    values: dict[str, float]
    confusion: Tensor
    clips: int
    bad: list[tuple[int, str]]


@torch.no_grad()
def evaluate(
    model: nn.Module, view: View, config: Config, front: FrontEnd, world: World, stop: Callable[[], bool]
) -> Scores | None:
    """Score every clip of a view. Scores on rank 0, None elsewhere and where `stop` said so.

    `stop` is called between batches, equally often on all ranks.
    """
    settings, count = config.evaluation, len(view)
    ranks = world.size if settings.ranks == "all" else 1
    bounds = [count * min(rank, ranks) // ranks for rank in range(world.size + 1)]
    ids = np.arange(bounds[world.rank], bounds[world.rank + 1])
    requests = list(clip_windows(view, ids, config)) if len(ids) else []
    feed = Feed(view, iter(requests), front, config.data, training=False)
    summed = _Sums(len(ids), int(ids[0]) if len(ids) else 0, len(view.classes))
    was = model.training
    model.eval()
    try:
        for turn in range(max(world.collect(len(requests)))):
            if turn < len(requests):
                _batch(model, feed, settings, summed, world)
            if stop():
                return None
    finally:
        feed.close()
        model.train(was)
    sizes = [high - low for low, high in itertools.pairwise(bounds)]
    logits_NC = world.gather_rows(summed.mean(settings), sizes)
    bad = [pair for part in world.collect(sorted(summed.bad.items())) for pair in part]
    if logits_NC is None:
        return None
    return scores(logits_NC, torch.from_numpy(view.rows(np.arange(count))["label"].astype(np.int64)), bad)


def scores(logits_NC: Tensor, label_N: Tensor, bad: list[tuple[int, str]]) -> Scores:
    """Scores of float64 log-probabilities or logits `(N, C)`; a clip in `bad` (id, reason) counts as wrong."""
    from torchmetrics.functional import classification as metrics  # a second of imports that only rank 0 needs

    classes = logits_NC.shape[1]
    good = torch.ones(len(label_N), dtype=torch.bool)
    good[[number for number, _ in bad]] = False
    guess_N = torch.where(good, logits_NC.argmax(1), (label_N + 1) % classes)
    loss_N = nn.functional.cross_entropy(logits_NC, label_N, reduction="none")
    loss_N = torch.where(good, loss_N, torch.tensor(float(np.log(classes)), dtype=loss_N.dtype))
    values = {
        "accuracy": float((guess_N == label_N).double().mean()),
        "balanced_accuracy": float(metrics.multiclass_accuracy(guess_N, label_N, classes, average="macro")),
        "macro_f1": float(metrics.multiclass_f1_score(guess_N, label_N, classes, average="macro")),
        "loss": float(loss_N.mean()),
    }
    confusion = metrics.multiclass_confusion_matrix(guess_N[good], label_N[good], classes)
    return Scores(values, confusion, len(label_N), bad)


def clip_windows(view: View, ids: NDArray[np.int64], config: Config) -> Iterator[NDArray[np.void]]:
    """The windows of clips `ids` in batches of equal length, of `evaluation.batch_size` at most."""
    settings, size = config.evaluation, config.evaluation.batch_size
    audio = packed.heard(config.audio, packed.of_view(view))
    kept: list[NDArray[np.void]] = []
    for start in range(0, len(ids), _CLIPS):
        some = ids[start : start + _CLIPS]
        if settings.clip == "windows":
            kept.append(eval_windows(view.rows(some), some, audio, settings.hop))
        else:
            kept.append(full_windows(view.rows(some), some, audio, settings.max_seconds))
    plan = np.concatenate(kept)
    if settings.clip == "windows":
        yield from (plan[start : start + size] for start in range(0, len(plan), size))
        return
    for length in np.unique(plan["length"]):
        same = plan[plan["length"] == length]
        yield from (same[start : start + size] for start in range(0, len(same), size))


class _Sums:
    """Sums of this rank's windows, by clip: of all windows, and of those that are not silent."""

    def __init__(self, clips: int, first: int, classes: int) -> None:
        self.first = first
        self.all_NC = torch.zeros(clips, classes, dtype=torch.float64)
        self.heard_NC = torch.zeros(clips, classes, dtype=torch.float64)
        self.counts_N2 = torch.zeros(clips, 2, dtype=torch.float64)
        self.bad: dict[int, str] = {}

    def add(self, ids: NDArray[np.int64], values_BC: Tensor, heard_B: Tensor) -> None:
        row_B = torch.from_numpy(ids - self.first)
        self.all_NC.index_add_(0, row_B, values_BC)
        self.heard_NC.index_add_(0, row_B, values_BC * heard_B[:, None])
        self.counts_N2.index_add_(0, row_B, torch.stack([torch.ones_like(heard_B), heard_B], 1))

    def mean(self, settings: Evaluation) -> Tensor:
        """Mean over a clip's windows that are not silent; over all where all are silent."""
        heard_N1 = self.counts_N2[:, 1:] > 0
        total_NC = torch.where(heard_N1, self.heard_NC, self.all_NC)
        mean_NC = total_NC / torch.where(heard_N1, self.counts_N2[:, 1:], self.counts_N2[:, :1]).clamp(min=1)
        return mean_NC if settings.average == "logits" else mean_NC.clamp(min=1e-30).log()


def _batch(model: nn.Module, feed: Feed, settings: Evaluation, summed: _Sums, world: World) -> None:
    raw, batch = feed.take()
    rows = len(raw.plan)
    feat_BTF, frames_B = batch.feat_BTF, batch.frames_B
    if rows < settings.batch_size:  # one shape for all batches: another shape may take another kernel
        feat_BTF = nn.functional.pad(feat_BTF, (0, 0, 0, 0, 0, settings.batch_size - rows))
        if frames_B is not None:
            frames_B = nn.functional.pad(frames_B, (0, settings.batch_size - rows), value=feat_BTF.shape[1])
    exact = torch.backends.cudnn.flags(allow_tf32=False, deterministic=True, benchmark=False)
    with exact, compiled.eager(model):
        logits_BC = model.forward(feat_BTF, frames_B)[:rows].double().cpu()
    values_BC = logits_BC if settings.average == "logits" else logits_BC.softmax(1)
    assert batch.heard_B is not None, "the front end says so in evaluation"
    summed.add(raw.plan["id"], values_BC, batch.heard_B.double().cpu())
    summed.bad.update(raw.bad)
