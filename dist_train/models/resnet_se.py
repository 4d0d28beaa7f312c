"""ResNetSE: He 2015, arXiv 1512.03385, with squeeze-excitation: Hu 2018, arXiv 1709.01507.

    3x3 stem -> stage 1 -> stage 2 -> stage 3 -> stage 4 -> pooling -> BatchNorm -> linear -> BatchNorm -> head

Features (B, T, bins) -> embedding (B, E) -> logits. Stages 2 to 4 halve frequency and time. The graph is that of macls
(a ResNet of 34 blocks' depth, bottlenecks that double the width). Any number of bins: the last map is ceil(bins / 8)
high.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, check_sizes, padding, stages, through
from dist_train.models.pooling import time_mean
from dist_train.models.segment import Segment

EXPANSION = 2
REDUCTION = 8
STRIDE = 8  # of the last map, over bins and frames


class SqueezeExcitation(nn.Module):
    """Scale each channel by a sigmoid of all channels' means over frequency and the valid frames. (B, C, F, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeeze = channels // REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, squeeze), nn.ReLU(inplace=True), nn.Linear(squeeze, channels), nn.Sigmoid()
        )

    def forward(self, x_BCFT: Tensor, pad: Tensor | None) -> Tensor:
        gate_BC: Tensor = self.fc(time_mean(x_BCFT, pad).mean((2, 3)))
        return x_BCFT * gate_BC[..., None, None]


class Block(nn.Module):
    """1x1 -> 3x3 (with the stride) -> 1x1 to twice the planes -> squeeze-excitation, plus a shortcut."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * EXPANSION
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.se = SqueezeExcitation(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x_BCFT: Tensor, pad_in: Tensor | None, pad: Tensor | None) -> Tensor:
        """`pad_in`, `pad`: padded frames before and after the stride."""
        y_BCFT: Tensor = self.bn1(self.conv1(x_BCFT)).relu_()
        y_BCFT = self.bn2(self.conv2(blank(y_BCFT, pad_in))).relu_()
        y_BCFT = self.se(self.bn3(self.conv3(y_BCFT)), pad)
        y_BCFT = (y_BCFT + self.downsample(x_BCFT)).relu_()
        return y_BCFT


class ResNetSE(nn.Module):
    """ResNetSE. `channels`: planes of the first stage (32), doubled by each next, or those of all four.

    `pooling`: asp, sap, tsp or tap; `blocks`: of each stage.
    """

    BLOCKS = (Block, Segment)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int | Sequence[int] = 32,
        embedding: int = 192,
        pooling: str = "asp",
        blocks: Sequence[int] = (3, 4, 6, 3),
        attention: int = 128,
        context: bool = True,
    ) -> None:
        super().__init__()
        planes = [channels << i for i in range(4)] if isinstance(channels, int) else list(channels)
        if min(planes, default=0) < REDUCTION // EXPANSION:
            raise ValueError(f"model.channels of resnet_se is {channels}: take 4 or more (32)")
        check_sizes("resnet_se", channels=(planes, 4), blocks=(blocks, 4))
        self.bins = bins
        self.conv1 = nn.Conv2d(1, planes[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        for name, stage in stages(Block, blocks, planes, EXPANSION):
            self.add_module(name, stage)
        inputs = planes[-1] * EXPANSION * -(-bins // STRIDE)
        self.segment = Segment("resnet_se", pooling, inputs, embedding, attention, context)
        self.least = (self.segment.least - 1) * STRIDE + 1
        self.head = nn.Linear(embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 1 frame (tsp: 9)."""
        check_input("resnet_se", feat_BTF, self.bins, self.least)
        x_BCFT = feat_BTF.transpose(1, 2)[:, None]
        pad = padding(frames_B, x_BCFT)
        x_BCFT = self.bn1(self.conv1(blank(x_BCFT, pad))).relu_()
        layers = [self.get_submodule(f"layer{stage}") for stage in range(1, 5)]
        x_BCFT, frames_B = through(layers, x_BCFT, frames_B)
        x_BCT = x_BCFT.flatten(1, 2)
        vector_BE: Tensor = self.segment(x_BCT, padding(frames_B, x_BCT))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
