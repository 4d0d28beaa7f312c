"""PANNs CNN6, CNN10 and CNN14: Kong 2020, arXiv 1912.10211. Features (B, T, bins) -> embedding (B, E) -> logits.

    BatchNorm of the bins -> 4 blocks of 3x3 or 5x5 convolutions (CNN14: 6), each halves time and frequency
    -> mean over frequency -> maximum + mean over time -> embedding -> head

The graph is that of macls: the official one with biases in the convolutions. Images are (B, C, T, F), time first, as
the kernels of the released weights are. SpecAugment and mixup belong to the front end.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_bins, check_input, padding
from dist_train.models.pooling import time_mean


class Shape(NamedTuple):
    """What the three networks differ in."""

    blocks: int
    halvings: int  # the sixth block of CNN14 does not pool
    kernels: tuple[int, ...]  # of the convolutions in a block
    embedding: int


SHAPES = {
    "cnn6": Shape(4, 4, (5,), 512),
    "cnn10": Shape(4, 4, (3, 3), 512),
    "cnn14": Shape(6, 5, (3, 3), 2048),
}


def _pad(frames_B: Tensor | None, x_BCTF: Tensor) -> Tensor | None:
    """Mask of the padded frames, (B, 1, T, 1)."""
    mask = padding(frames_B, x_BCTF.mT)
    return None if mask is None else mask.mT


class Block(nn.Module):
    """Convolutions of unchanged size, each with BatchNorm and ReLU; then, if `halve`, means of 2x2.

    (B, C, T, F) -> (B, C', T // 2, F // 2): what is left over of an odd size is dropped.
    """

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int], halve: bool) -> None:
        super().__init__()
        for i, kernel in enumerate(kernels, 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
            inputs = outputs
        self.layers = len(kernels)
        self.halve = halve
        self.dropout = nn.Dropout(0.2)

    def forward(self, x_BCTF: Tensor, pad: Tensor | None) -> Tensor:
        for i in range(1, self.layers + 1):
            x_BCTF = self.get_submodule(f"conv{i}")(blank(x_BCTF, pad))
            x_BCTF = self.get_submodule(f"bn{i}")(x_BCTF).relu_()
        if self.halve:
            x_BCTF = functional.avg_pool2d(x_BCTF, 2)
        x_BCTF = self.dropout(x_BCTF)
        return x_BCTF


class Panns(nn.Module):
    """PANNs, `shape` cnn6, cnn10 or cnn14. `channels`: those of the first block, doubled by each next, or a list.

    `dropout` is that before the head; the others are the architecture's (0.2 after a block, 0.5 around the embedding).
    `audioset`: classes of the AudioSet head of the released weights. It takes no part, so it is frozen; 0: none.
    """

    BLOCKS = (Block,)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        shape: str = "cnn14",
        channels: int | Sequence[int] = 64,
        embedding: int | None = None,
        dropout: float = 0.1,
        audioset: int = 527,
    ) -> None:
        super().__init__()
        if shape not in SHAPES:
            raise ValueError(f"shape of panns is {shape!r}: take one of {', '.join(SHAPES)}")
        blocks, halvings, kernels, usual = SHAPES[shape]
        self.name, self.bins, self.least = shape, bins, 1 << halvings
        check_bins(shape, bins, self.least)
        widths = [channels << i for i in range(blocks)] if isinstance(channels, int) else list(channels)
        if len(widths) != blocks or min(widths) < 1:
            raise ValueError(
                f"model.channels of {shape} is {channels}: take a positive number (64), or {blocks} of them"
            )
        self.bn0 = nn.BatchNorm1d(bins)
        for i, (inputs, outputs) in enumerate(pairwise([1, *widths]), 1):
            self.add_module(f"conv_block{i}", Block(inputs, outputs, kernels, i <= halvings))
        self.blocks = blocks
        size = usual if embedding is None else embedding
        self.fc1 = nn.Linear(widths[-1], size)
        self.fc_audioset = nn.Linear(size, audioset).requires_grad_(False) if audioset else None
        self.dropout = nn.Dropout(0.5)
        self.dropout_head = nn.Dropout(dropout)
        self.head = nn.Linear(size, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 16 frames (cnn14: 32)."""
        check_input(self.name, feat_BTF, self.bins, self.least)
        x_BCTF: Tensor = self.bn0(feat_BTF.mT).mT[:, None]
        for i in range(1, self.blocks + 1):
            block = self.get_submodule(f"conv_block{i}")
            x_BCTF = block(x_BCTF, _pad(frames_B, x_BCTF))
            if block.halve and frames_B is not None:
                frames_B = (frames_B // 2).clamp(min=1)
        x_BCT = x_BCTF.mean(3)
        pad = padding(frames_B, x_BCT)
        peak_BC = (x_BCT if pad is None else x_BCT.masked_fill(pad, -torch.inf)).amax(2)
        pooled_BC = peak_BC + time_mean(x_BCT, pad).squeeze(2)
        vector_BE: Tensor = self.fc1(self.dropout(pooled_BC)).relu_()
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        vector_BE = self.dropout(self.embed(feat_BTF, frames_B))
        logits_BC: Tensor = self.head(self.dropout_head(vector_BE))
        return logits_BC


cnn6, cnn10, cnn14 = (partial(Panns, shape=shape) for shape in SHAPES)
