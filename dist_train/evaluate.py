"""A model and a view -> scores. Every clip once; a clip's score does not depend on its batch mates or its rank.

    clips of this rank -> windows -> batches of one shape -> logits -> mean over a clip's windows -> rank 0 -> scores

fp32 (fp64 where the run is fp64), eager, never through the DDP wrapper, whose forward would wait for other ranks.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dist_train import packed
from dist_train.feed import Feed
from dist_train.frontend import FrontEnd
from dist_train.models import compiled
from dist_train.scores import Scores, several, single
from dist_train.settings import Config
from dist_train.supply.ahead import Pass
from dist_train.view import View
from dist_train.window import eval_windows, full_windows
from dist_train.world import World

Values = Callable[[Tensor, Tensor | None], Tensor]  # features, valid frames -> (B, width)
_CLIPS = 4096  # whose windows are planned at once


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
    plan = Pass(view, ids) if config.data.cache_dir is not None and len(ids) else None
    feed = Feed(view, iter(requests), front, config, training=False, plan=plan)
    summed = Sums(len(ids), int(ids[0]) if len(ids) else 0, len(view.classes))
    values = partial(_values, model, config, len(view.classes))
    was = model.training
    model.eval()
    try:
        for turn in range(max(world.collect(len(requests)))):
            if turn < len(requests):
                summed.take(feed, values, settings.batch_size)
            if stop():
                return None
    finally:
        feed.close()
        model.train(was)
    sizes = [high - low for low, high in itertools.pairwise(bounds)]
    logits_NC = world.gather_rows(_logits(summed.mean(), config), sizes)
    bad = [pair for part in world.collect(sorted(summed.bad.items())) for pair in part]
    if logits_NC is None:
        return None
    if config.objective.name == "bce":
        return several(logits_NC, torch.from_numpy(view.targets(np.arange(count))), bad)
    label_N = torch.from_numpy(view.rows(np.arange(count))["label"].astype(np.int64))
    return single(logits_NC, label_N, bad, settings.k)


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


class Sums:
    """Sums of some clips' windows, by clip: of all windows, and of those that are not silent."""

    def __init__(self, clips: int, first: int, width: int) -> None:
        """`first`: id of the first clip; `width`: values a window."""
        self.first = first
        self.all_NC = torch.zeros(clips, width, dtype=torch.float64)
        self.heard_NC = torch.zeros(clips, width, dtype=torch.float64)
        self.counts_N2 = torch.zeros(clips, 2, dtype=torch.float64)
        self.bad: dict[int, str] = {}

    def take(self, feed: Feed, values: Values, rows: int) -> None:
        """Add what `values` makes of the feed's next batch, padded to `rows`."""
        raw, batch = feed.take()
        count = len(raw.plan)
        feat_BTF, frames_B = batch.feat_BTF, batch.frames_B
        if count < rows:  # one shape for all batches: another shape may take another kernel
            feat_BTF = nn.functional.pad(feat_BTF, (0, 0, 0, 0, 0, rows - count))
            if frames_B is not None:
                frames_B = nn.functional.pad(frames_B, (0, rows - count), value=feat_BTF.shape[1])
        with torch.backends.cudnn.flags(allow_tf32=False, deterministic=True, benchmark=False):
            values_BC = values(feat_BTF, frames_B)[:count].cpu().double()
        assert batch.heard_B is not None, "the front end says so in evaluation"
        heard_B = batch.heard_B.double().cpu()
        row_B = torch.from_numpy(raw.plan["id"] - self.first)
        self.all_NC.index_add_(0, row_B, values_BC)
        self.heard_NC.index_add_(0, row_B, values_BC * heard_B[:, None])
        self.counts_N2.index_add_(0, row_B, torch.stack([torch.ones_like(heard_B), heard_B], 1))
        self.bad.update(raw.bad)

    def mean(self) -> Tensor:
        """Mean over a clip's windows that are not silent; over all where all are silent."""
        heard_N1 = self.counts_N2[:, 1:] > 0
        total_NC = torch.where(heard_N1, self.heard_NC, self.all_NC)
        return total_NC / torch.where(heard_N1, self.counts_N2[:, 1:], self.counts_N2[:, :1]).clamp(min=1)


def _values(model: nn.Module, config: Config, classes: int, feat_BTF: Tensor, frames_B: Tensor | None) -> Tensor:
    """Logits or probabilities of windows; of classes that differ by speed, those of factor 1, which come first."""
    with compiled.eager(model):
        logits_BC: Tensor = model.forward(feat_BTF, frames_B)[:, :classes].cpu().double()
    if config.evaluation.average == "logits":
        return logits_BC
    return logits_BC.sigmoid() if config.objective.name == "bce" else logits_BC.softmax(1)


def _logits(mean_NC: Tensor, config: Config) -> Tensor:
    """Logits of clips, from means of logits or of probabilities."""
    if config.evaluation.average == "logits":
        return mean_NC
    if config.objective.name == "bce":
        return mean_NC.logit(eps=1e-15)
    return mean_NC.clamp(min=1e-30).log()
