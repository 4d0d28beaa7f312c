"""CAM++: Wang 2023, arXiv 2303.00332. Features (B, T, bins) -> embedding (B, E) -> logits.

    2-D convolutions, frequency / 8 -> conv k5, time / 2 -> 12 + 24 + 16 dense layers with context-aware masks
    (a 1x1 transition that halves the channels after each group) -> mean and deviation -> embedding -> head

The graph is that of 3D-Speaker, WeSpeaker and macls, but without their activation checkpointing, which updates some
BatchNorms twice a step. Any number of bins: the image is ceil(bins / 8) high.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_input, check_sizes, halve, padding
from dist_train.models.pooling import stats, tstp, valid

FRAMES = 3  # the deviation needs 2 frames after the stride of 2
SEGMENT = 100  # frames of a context segment, 2 seconds after the stride of 2
WIDTH = 32  # channels of the 2-D part
STAGES = ((12, 1), (24, 2), (16, 2))  # dense layers, dilation


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU(inplace=True)))


class ResBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `stride` acts on frequency only."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, (stride, 1), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, (stride, 1), bias=False), nn.BatchNorm2d(WIDTH))

    def forward(self, x_BCFT: Tensor, pad: Tensor | None) -> Tensor:
        y_BCFT: Tensor = self.bn1(self.conv1(blank(x_BCFT, pad))).relu_()
        y_BCFT = self.bn2(self.conv2(blank(y_BCFT, pad)))
        y_BCFT = (y_BCFT + self.shortcut(x_BCFT)).relu_()
        return y_BCFT


class Front(nn.Module):
    """The 2-D part: (B, 1, F, T) -> (B, 32 * ceil(F / 8), T)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTH, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.layer1 = nn.ModuleList([ResBlock(2), ResBlock(1)])
        self.layer2 = nn.ModuleList([ResBlock(2), ResBlock(1)])
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, (2, 1), 1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x_BCFT: Tensor, pad: Tensor | None) -> Tensor:
        x_BCFT = self.bn1(self.conv1(blank(x_BCFT, pad))).relu_()
        for block in (*self.layer1, *self.layer2):
            x_BCFT = block(x_BCFT, pad)
        x_BCFT = self.bn2(self.conv2(blank(x_BCFT, pad))).relu_()
        return x_BCFT.flatten(1, 2)


class ContextMask(nn.Module):
    """A local convolution scaled by a gate of the clip's mean plus the segment's mean. (B, C, T) -> (B, growth, T)."""

    def __init__(self, channels: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(channels, growth, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(channels, channels // 2, 1)
        self.linear2 = nn.Conv1d(channels // 2, growth, 1)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        x_BCT = blank(x_BCT, pad)
        local_BGT: Tensor = self.linear_local(x_BCT)
        # the context is the same in a whole segment: its layers run once a segment, not once a frame
        gate_BGS = self.linear2(self.linear1(context(x_BCT, pad)).relu_()).sigmoid()
        frames, segments = x_BCT.shape[-1], gate_BGS.shape[-1]
        if segments > 1:
            gate_BGS = gate_BGS[..., None].expand(-1, -1, -1, SEGMENT).flatten(2)[..., :frames]
        local_BGT = local_BGT * gate_BGS
        return local_BGT


def context(x_BCT: Tensor, pad: Tensor | None) -> Tensor:
    """Mean of the clip + mean of each segment, (B, C, T) -> (B, C, segments); padded frames of x must be zero.

    A segment is divided by its own valid frames, the last, partial one too.
    """
    frames = x_BCT.shape[-1]
    segments = -(-frames // SEGMENT)
    fill = segments * SEGMENT - frames
    whole_BCT = functional.pad(x_BCT, (0, fill))
    sum_BCS = whole_BCT.reshape(*x_BCT.shape[:2], segments, SEGMENT).sum(-1)
    total_BC1 = sum_BCS.sum(-1, keepdim=True)
    if pad is None:
        start_S = torch.arange(segments, device=x_BCT.device) * SEGMENT
        size_S = (frames - start_S).clamp(max=SEGMENT)
        return total_BC1 / frames + sum_BCS / size_S
    count_B1S = functional.pad(~pad, (0, fill)).reshape(len(pad), 1, segments, SEGMENT).sum(-1)
    return total_BC1 / valid(pad) + sum_BCS / count_B1S.clamp(min=1)


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU, context mask: (B, C, T) -> (B, growth, T), the channels to append."""

    def __init__(self, channels: int, growth: int, bottleneck: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _norm_relu(channels)
        self.linear1 = nn.Conv1d(channels, bottleneck, 1, bias=False)
        self.nonlinear2 = _norm_relu(bottleneck)
        self.cam_layer = ContextMask(bottleneck, growth, dilation)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        hidden = self.nonlinear2(self.linear1(self.nonlinear1(x_BCT)))
        y_BGT: Tensor = self.cam_layer(hidden, pad)
        return y_BGT


class Dense(nn.ModuleDict):
    """Dense layers, each appending to the channels of all before it: (B, C, T) -> (B, C + layers growth, T)."""

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        for layer in self.values():
            x_BCT = torch.cat([x_BCT, layer(x_BCT, pad)], 1)
        return x_BCT


class Trunk(nn.Module):
    """The 1-D part: (B, inputs, T) -> (B, E), with time halved by its first convolution."""

    def __init__(
        self, inputs: int, channels: int, embedding: int, growth: int, bottleneck: int, epsilon: float
    ) -> None:
        super().__init__()
        self.pool = partial(tstp, epsilon=epsilon) if epsilon else stats
        conv = nn.Conv1d(inputs, channels, 5, 2, 2, bias=False)
        self.tdnn = nn.Sequential(OrderedDict(linear=conv, nonlinear=_norm_relu(channels)))
        for stage, (layers, dilation) in enumerate(STAGES, 1):
            dense = (DenseLayer(channels + i * growth, growth, bottleneck, dilation) for i in range(layers))
            self.add_module(f"block{stage}", Dense({f"tdnnd{i}": layer for i, layer in enumerate(dense, 1)}))
            channels += layers * growth
            narrow = nn.Conv1d(channels, channels // 2, 1, bias=False)
            transit = nn.Sequential(OrderedDict(nonlinear=_norm_relu(channels), linear=narrow))
            self.add_module(f"transit{stage}", transit)
            channels //= 2
        self.out_nonlinear = _norm_relu(channels)
        out = nn.Conv1d(2 * channels, embedding, 1, bias=False)
        norm = nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(embedding, affine=False)))
        self.dense = nn.Sequential(OrderedDict(linear=out, nonlinear=norm))

    def forward(self, x_BCT: Tensor, pad: Tensor | None, pad_half: Tensor | None) -> Tensor:
        x_BCT = self.tdnn(blank(x_BCT, pad))
        for stage in range(1, len(STAGES) + 1):
            x_BCT = self.get_submodule(f"block{stage}")(x_BCT, pad_half)
            x_BCT = self.get_submodule(f"transit{stage}")(x_BCT)
        pooled_BC = self.pool(self.out_nonlinear(x_BCT), pad_half)
        vector_BE1: Tensor = self.dense(pooled_BC[..., None])
        return vector_BE1.squeeze(-1)


class CamPlus(nn.Module):
    """CAM++. `channels`: channels before the dense layers (128); `growth`: channels that each of them appends.

    `bottleneck`: channels inside a dense layer, in multiples of `growth`; `epsilon`: of the variance in the pooling,
    1e-7 in WeSpeaker's.
    """

    BLOCKS = (Front, Dense, nn.Sequential)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 128,
        embedding: int = 512,
        growth: int = 32,
        bottleneck: int = 4,
        epsilon: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes("campplus", growth=([growth], 1), bottleneck=([bottleneck], 1))
        if channels < 8 or channels % 8:
            raise ValueError(f"model.channels of campplus is {channels}: take a multiple of 8 (128)")
        if bottleneck * growth < 2:
            raise ValueError("model.bottleneck times model.growth of campplus is 1: take 2 or more (128)")
        self.bins, self.least = bins, FRAMES
        self.front = Front()
        self.xvector = Trunk(WIDTH * -(-bins // 8), channels, embedding, growth, bottleneck * growth, epsilon)
        self.head = nn.Linear(embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 3 frames."""
        check_input("campplus", feat_BTF, self.bins, FRAMES)
        image_B1FT = feat_BTF.transpose(1, 2)[:, None]
        x_BCT = self.front(image_B1FT, padding(frames_B, image_B1FT))
        pad_half = padding(halve(frames_B), x_BCT[..., ::2])
        vector_BE: Tensor = self.xvector(x_BCT, padding(frames_B, x_BCT), pad_half)
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
