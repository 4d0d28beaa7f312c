"""A linear probe: mean of the features over time, one or two linear layers. (B, T, bins) -> logits (B, classes).

    mean over valid frames [-> linear] -> head

With `embedding` it is the classifier that transformers puts on wav2vec 2.0, HuBERT and WavLM: a projection of each
frame, whose mean is the projection of the mean.
"""

from torch import Tensor, nn

from dist_train.models.blocks import check_input, padding
from dist_train.models.pooling import time_mean


class Linear(nn.Module):
    """Linear probe. `embedding`: size of a projection before the head; None: no projection."""

    def __init__(self, bins: int, classes: int, *, embedding: int | None = None) -> None:
        super().__init__()
        self.bins, self.least = bins, 1
        self.projection = nn.Linear(bins, embedding) if embedding is not None else nn.Identity()
        self.head = nn.Linear(embedding or bins, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row."""
        check_input("linear", feat_BTF, self.bins, self.least)
        x_BCT = feat_BTF.transpose(1, 2)
        vector_BE: Tensor = self.projection(time_mean(x_BCT, padding(frames_B, x_BCT)).squeeze(-1))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
