"""ResNetish: Hershey 2017, arXiv 1609.09430; ResNet: He 2015, arXiv 1512.03385. Features (B, T, bins) -> logits.

    7x7 stem -> maximum of 3x3, halved -> stages 1 to 4 of residual blocks, stages 2 to 4 halve frequency and time
    -> means of 4 x 6 windows over the image (bins x frames), flattened: the embedding -> head

The graph is that of daisukelab's sound-clf-pytorch: torchvision's ResNet-18, 34 or 50 with a stem for one channel and
without stride. The windows scale with the clip. Any number of bins.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, check_sizes, halve, padding, stages
from dist_train.models.image import adaptive_mean, max_3x3

HIGH, WIDE = 4, 6
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # depth: blocks of each stage


class Block(nn.Module):
    """3x3, 3x3; or, if `deep`, 1x1, 3x3 and 1x1 to four times the channels; plus a shortcut. The first 3x3 strides."""

    def __init__(self, inputs: int, planes: int, stride: int, deep: bool) -> None:
        super().__init__()
        self.shapes = ((1, planes), (3, planes), (1, 4 * planes)) if deep else ((3, planes), (3, planes))
        self.downsample = nn.Sequential()
        outputs, width, left = self.shapes[-1][1], inputs, stride
        for i, (kernel, wider) in enumerate(self.shapes, 1):
            step, left = (left, 1) if kernel == 3 else (1, left)
            self.add_module(f"conv{i}", nn.Conv2d(width, wider, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(wider))
            width = wider
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x_BCFT: Tensor, pad: Tensor | None, pad_out: Tensor | None) -> Tensor:
        y_BCFT = x_BCFT
        for i, (kernel, _) in enumerate(self.shapes, 1):
            if kernel == 3:
                y_BCFT, pad = blank(y_BCFT, pad), pad_out
            y_BCFT = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y_BCFT))
            if i < len(self.shapes):
                y_BCFT = y_BCFT.relu_()
        shortcut: Tensor = self.downsample(x_BCFT)
        return (y_BCFT + shortcut).relu_()


class Resnetish(nn.Module):
    """ResNetish of `depth` 18, 34 or 50. `channels`: planes of the first stage, doubled by each next, or of all four.

    `blocks`: of each stage, in place of the depth's (50 has the deeper blocks in any case).
    The embedding is the flattened map, 24 times the last stage's channels: 12288, or 49152 for depth 50.
    """

    BLOCKS = (Block,)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        depth: int = 18,
        channels: int | Sequence[int] = 64,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"depth of resnetish is {depth}: take one of {', '.join(map(str, STAGES))}")
        planes = [channels << i for i in range(4)] if isinstance(channels, int) else list(channels)
        if len(planes) != 4 or min(planes) < 1:
            raise ValueError(f"model.channels of resnetish is {channels}: take a positive number (64), or four of them")
        counts = STAGES[depth] if blocks is None else blocks
        check_sizes("resnetish", blocks=(counts, 4))
        self.bins, self.least = bins, 1
        self.conv1 = nn.Conv2d(1, planes[0], 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        deep = depth == 50
        widening = 4 if deep else 1
        for name, stage in stages(partial(Block, deep=deep), counts, planes, widening):
            self.add_module(name, stage)
        self.head = nn.Linear(planes[-1] * widening * HIGH * WIDE, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError for clips of no frame."""
        check_input("resnetish", feat_BTF, self.bins, 1)
        image_B1FT = feat_BTF.mT[:, None]
        pad = padding(frames_B, image_B1FT)
        x_BCFT = self.bn1(self.conv1(blank(image_B1FT, pad))).relu_()
        x_BCFT = max_3x3(blank(x_BCFT, pad))
        frames_B = halve(frames_B)
        pad = padding(frames_B, x_BCFT)
        for stage in range(1, 5):
            if stage > 1:
                frames_B = halve(frames_B)
            pad_out = padding(frames_B, x_BCFT if stage == 1 else x_BCFT[..., ::2])
            for block in self.get_submodule(f"layer{stage}").children():
                x_BCFT = block(x_BCFT, pad, pad_out)
                pad = pad_out
        return torch.flatten(adaptive_mean(x_BCFT, HIGH, WIDE, frames_B), 1)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC


resnetish18, resnetish34, resnetish50 = (partial(Resnetish, depth=depth) for depth in STAGES)
