"""ResNetMini: a residual CNN for hundreds to thousands of clips, quick on CPUs. Features (B, T, bins) -> logits.

    3x3 stem, halved -> stages 1 to 4 of residual blocks (He 2015, arXiv 1512.03385), stages 2 to 4 halve again
    -> mean over bins -> maximum + mean over time (Kong 2020, arXiv 1912.10211): the embedding -> dropout -> head

Dense 3x3 convolutions only: on a CPU a depthwise one costs more time than it saves operations. Shortcuts that halve are
means of 2x2 before a 1x1 convolution (He 2018, arXiv 1812.01187). Any number of bins and frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_input, check_sizes, halve, padding, stages, through
from dist_train.models.pooling import time_mean


class Block(nn.Module):
    """3x3 (with the stride), 3x3, plus a shortcut. (B, C, F, T) -> (B, D, F, T), or half of F and T, rounded up."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.bn2.weight)  # a block begins as its shortcut: Goyal 2017, arXiv 1706.02677
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.stride = stride

    def forward(self, x_BCFT: Tensor, pad_in: Tensor | None, pad: Tensor | None) -> Tensor:
        """`pad_in`, `pad`: padded frames before and after the stride."""
        x_BCFT = blank(x_BCFT, pad_in)
        y_BCFT: Tensor = self.bn1(self.conv1(x_BCFT)).relu_()
        y_BCFT = self.bn2(self.conv2(blank(y_BCFT, pad)))
        if self.stride != 1:  # zeros beyond the end, so that a padded clip has there what it has alone
            bins, frames = x_BCFT.shape[2:]
            x_BCFT = functional.avg_pool2d(functional.pad(x_BCFT, (0, frames % 2, 0, bins % 2)), 2)
        y_BCFT = (y_BCFT + self.shortcut(x_BCFT)).relu_()
        return y_BCFT


class ResNetMini(nn.Module):
    """ResNetMini. `channels`: of the first stage (24), doubled by each next, or of all four; `blocks`: of each stage.

    `dropout` is that before the head (0.2).
    """

    BLOCKS = (Block,)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int | Sequence[int] = 24,
        blocks: Sequence[int] = (1, 1, 1, 1),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        planes = [channels << i for i in range(4)] if isinstance(channels, int) else list(channels)
        check_sizes("resnet_mini", channels=(planes, 4), blocks=(blocks, 4))
        self.bins, self.least = bins, 1
        self.conv1 = nn.Conv2d(1, planes[0], 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        for name, stage in stages(Block, blocks, planes):
            self.add_module(name, stage)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(planes[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError for clips of no frame."""
        check_input("resnet_mini", feat_BTF, self.bins, 1)
        x_BCFT = feat_BTF.mT[:, None]
        x_BCFT = self.bn1(self.conv1(blank(x_BCFT, padding(frames_B, x_BCFT)))).relu_()
        layers = [self.get_submodule(f"layer{stage}") for stage in range(1, 5)]
        x_BCFT, frames_B = through(layers, x_BCFT, halve(frames_B))
        x_BCT = x_BCFT.mean(2)
        pad = padding(frames_B, x_BCT)
        peak_BC = (x_BCT if pad is None else x_BCT.masked_fill(pad, -torch.inf)).amax(2)
        return peak_BC + time_mean(x_BCT, pad).squeeze(2)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.dropout(self.embed(feat_BTF, frames_B)))
        return logits_BC
