"""A trained network and a view -> an embedding of each clip: the mean over its windows, in the way clips are scored."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dist_train.evaluate import Sums, clip_windows
from dist_train.feed import Feed
from dist_train.frontend import FrontEnd
from dist_train.settings import Config
from dist_train.view import View


@dataclass(frozen=True)
class Embeddings:
    """keys (N,), vectors (N, E) float32, NaN for a clip that could not be read; `bad` says why: (id, reason)."""

    keys: NDArray[np.str_]
    vectors_NE: NDArray[np.float32]
    bad: list[tuple[int, str]]


@torch.no_grad()
def embed(
    model: nn.Module, view: View, config: Config, front: FrontEnd, progress: Callable[[int, int], None]
) -> Embeddings:
    """Embeddings of a view's clips. `model` has `embed` and `head`; progress: batches done and to do."""
    requests = list(clip_windows(view, np.arange(len(view)), config))
    summed = Sums(len(view), 0, int(model.head.in_features))  # type: ignore[union-attr, arg-type]
    feed = Feed(view, iter(requests), front, config, training=False)
    model.eval()
    try:
        for done in range(1, len(requests) + 1):
            summed.take(feed, model.embed, config.evaluation.batch_size)  # type: ignore[arg-type]
            progress(done, len(requests))
    finally:
        feed.close()
    vectors_NE = summed.mean().float().numpy()
    bad = sorted(summed.bad.items())
    vectors_NE[[number for number, _ in bad]] = np.nan
    return Embeddings(np.array([view.key(number) for number in range(len(view))]), vectors_NE, bad)
