"""Res2Net: Gao 2019, arXiv 1904.01169. Features (B, T, bins) -> embedding (B, E) -> logits.

    7x7 / 3 -> max 3x3 / 2 -> stage 1 -> stage 2 -> stage 3 -> stage 4
            -> pooling -> BatchNorm -> linear -> BatchNorm -> head

Stages 2 to 4 halve frequency and time, so that a frame of the last map is 48 of the features'. The graph is that of
macls; with its 2 groups a block has one 3x3 convolution and no sum of groups. Any number of bins from 5 on: the width
of the pooled vector follows the last map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_bins, check_input, check_sizes, halve, padding, through
from dist_train.models.segment import Segment

EXPANSION = 4
FRAMES = 5  # the stem's 7 less its padding of 2; bins, too
STRIDE = 48  # of the last map over frames: 3, 2, and 2 of each stage but the first


class Block(nn.Module):
    """1x1 -> `scale` groups, all but the last 3x3 (with the stride) -> 1x1 to 4 times the planes, plus a shortcut.

    A stage's `first` block convolves each group by itself and averages the last one over 3x3, zeros at the border
    counted; the others add to each group what its predecessor gave, and pass the last one.
    """

    def __init__(self, inputs: int, planes: int, base_width: int, scale: int, stride: int, first: bool) -> None:
        super().__init__()
        width, outputs, convs = planes * base_width // 64, planes * EXPANSION, max(scale - 1, 1)
        self.conv1 = nn.Conv2d(inputs, width * scale, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * scale)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, stride, 1, bias=False) for _ in range(convs))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(convs))
        self.conv3 = nn.Conv2d(width * scale, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.scale, self.stride, self.first = scale, stride, first
        self.downsample = nn.Sequential()
        if first:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x_BCFT: Tensor, pad_in: Tensor | None, pad: Tensor | None) -> Tensor:
        """`pad_in`, `pad`: padded frames before and after the stride."""
        groups = blank(self.bn1(self.conv1(x_BCFT)).relu_(), pad_in).chunk(self.scale, 1)
        done: list[Tensor] = []
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=False):
            x = group if self.first or not done else group + blank(done[-1], pad)
            done.append(norm(conv(x)).relu_())
        for group in groups[len(done) :]:
            done.append(functional.avg_pool2d(group, 3, self.stride, 1) if self.first else group)
        y_BCFT: Tensor = self.bn3(self.conv3(torch.cat(done, 1)))
        y_BCFT = (y_BCFT + self.downsample(x_BCFT)).relu_()
        return y_BCFT


class Res2Net(nn.Module):
    """Res2Net. `channels`: planes of the first stage (32); `pooling`: asp, sap, tsp or tap.

    `blocks`: of each of the four stages; `scale`: groups of a block, each `base_width` / 64 as wide as the planes.
    """

    BLOCKS = (Block, Segment)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 32,
        embedding: int = 192,
        pooling: str = "asp",
        blocks: Sequence[int] = (3, 4, 6, 3),
        base_width: int = 32,
        scale: int = 2,
        attention: int = 128,
        context: bool = True,
    ) -> None:
        super().__init__()
        check_sizes("res2net", blocks=(blocks, 4), base_width=([base_width], 1), scale=([scale], 1))
        if channels * base_width < 64:
            raise ValueError(f"model.channels of res2net is {channels}: take {-(-64 // base_width)} or more (32)")
        check_bins("res2net", bins, FRAMES)
        self.bins = bins
        self.conv1 = nn.Conv2d(1, channels, 7, 3, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        inputs, height = channels, ((bins - 2) // 3 + 1) // 2
        for stage, count in enumerate(blocks, 1):
            planes, layers = channels << stage - 1, []
            for i in range(count):
                layers.append(Block(inputs, planes, base_width, scale, 2 if stage > 1 and i == 0 else 1, i == 0))
                inputs = planes * EXPANSION
            self.add_module(f"layer{stage}", nn.ModuleList(layers))
            height = height if stage == 1 else -(-height // 2)
        self.segment = Segment("res2net", pooling, inputs * height, embedding, attention, context)
        self.least = FRAMES + (self.segment.least - 1) * STRIDE
        self.head = nn.Linear(embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stem(self, image_B1FT: Tensor, frames_B: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """First map and its valid frames. Zeros are the least of what the maximum sees: they change nothing there."""
        x_BCFT = self.bn1(self.conv1(blank(image_B1FT, padding(frames_B, image_B1FT)))).relu_()
        if frames_B is not None:
            frames_B = ((frames_B - 2) // 3).clamp(min=1)
            x_BCFT = blank(x_BCFT, padding(frames_B, x_BCFT))
        return functional.max_pool2d(x_BCFT, 3, 2, 1), halve(frames_B)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 5 frames (tsp: 53)."""
        check_input("res2net", feat_BTF, self.bins, self.least)
        x_BCFT, frames_B = self._stem(feat_BTF.transpose(1, 2)[:, None], frames_B)
        stages = [self.get_submodule(f"layer{stage}") for stage in range(1, 5)]
        x_BCFT, frames_B = through(stages, x_BCFT, frames_B)
        x_BCT = x_BCFT.flatten(1, 2)
        vector_BE: Tensor = self.segment(x_BCT, padding(frames_B, x_BCT))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
