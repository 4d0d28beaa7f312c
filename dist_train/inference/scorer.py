"""A loaded run -> probabilities and embeddings of clips, computed as evaluation computes them, a thread at a time."""

import threading
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import saved
from dist_train.evaluate import Sums, Values, clip_logits, window_values
from dist_train.inference.clips import Clip, summed
from dist_train.precision import exact
from dist_train.settings import Evaluation

_TURN = threading.Lock()  # of all models: the precision of matrix products is a switch of the process


class Scorer:
    """Any thread may call; the calls take turns, since the front end uses its memory again. `padded`: batches have one
    size, so what is beside a clip changes no bit of its values."""

    def __init__(self, found: saved.Saved, padded: bool) -> None:
        self.found, self.padded = found, padded
        self.width = int(found.model.head.in_features)  # type: ignore[union-attr, arg-type]

    def probabilities(
        self, clips: Sequence[Clip], settings: Evaluation | None = None, padded: bool | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(N, C) as scores.npz has them, and (N,) whether there is any sound in a clip. `settings`: in the place of the
        run's."""
        classes = len(self.found.classes)
        values = partial(window_values, self.found.model, self.found.config, classes)
        sums = self._sums(clips, values, classes, settings, padded)
        logits_NC = clip_logits(sums.mean(), self.found.config)
        several = self.found.config.objective.name == "bce"
        heard_N = sums.counts_N2[:, 1] > 0
        return (logits_NC.sigmoid() if several else logits_NC.softmax(1)).numpy(), heard_N.numpy()

    def embeddings(self, clips: Sequence[Clip]) -> NDArray[np.float32]:
        """(N, E)."""

        def embed(feat_BTF: Tensor, frames_B: Tensor | None) -> Tensor:
            found: Tensor = self.found.model.embed(feat_BTF, frames_B)  # type: ignore[operator]
            return found

        vectors_NE: NDArray[np.float32] = self._sums(clips, embed, self.width, None, None).mean().float().numpy()
        return vectors_NE

    def _sums(
        self, clips: Sequence[Clip], values: Values, width: int, settings: Evaluation | None, padded: bool | None
    ) -> Sums:
        settings, front = settings or self.found.config.evaluation, self.found.front
        with _TURN, torch.no_grad(), exact(front.device):
            return summed(clips, front, settings, values, width, self.padded if padded is None else padded)
