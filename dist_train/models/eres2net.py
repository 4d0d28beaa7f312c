"""ERes2Net: Chen 2023, arXiv 2305.12838. Features (B, T, bins) -> embedding (B, E) -> logits.

    3x3 stem -> stage 1 -> stage 2 -> stage 3 -> stage 4       Res2 blocks, each stage halves frequency and time
                  o1 ------- o2 ------- o3 ------- o4
                  |__ down __+__ down __+__ down __+-> pooling -> embedding -> head       + : attentive fusion (AFF)

The graph is that of 3D-Speaker, WeSpeaker and macls. Any number of bins: the last map is ceil(bins / 8) high.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_input, check_sizes, halve, padding
from dist_train.models.pooling import choose

POOLINGS = ("tstp", "tap", "tsdp", "astp")
STRIDE = 8  # of the last map, over bins and frames


def _clip(x: Tensor) -> Tensor:
    """The activation inside the blocks, min(max(x, 0), 20), in place."""
    return functional.hardtanh_(x, 0.0, 20.0)


class Fusion(nn.Module):
    """AFF: x a + y (2 - a) with a = 1 + tanh(two 1x1 convolutions of [x, y]); all (B, C, F, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = channels // 4
        self.local_att = nn.Sequential(
            nn.Conv2d(2 * channels, middle, 1),
            nn.BatchNorm2d(middle),
            nn.SiLU(inplace=True),
            nn.Conv2d(middle, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        tilt: Tensor = self.local_att(torch.cat([x, y], 1)).tanh()
        return torch.addcmul(x + y, tilt, x - y)


class Block(nn.Module):
    """1x1 (with the stride) -> `scale` groups, each 3x3 on itself and its predecessor -> 1x1, plus a shortcut.

    `fuse`: groups are joined by AFF (stages 3 and 4) instead of a sum.
    """

    def __init__(self, inputs: int, width: int, outputs: int, scale: int, stride: int, fuse: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width * scale, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width * scale)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(scale))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(scale))
        self.fuse_models = nn.ModuleList(Fusion(width) for _ in range(scale - 1) if fuse)
        self.conv3 = nn.Conv2d(width * scale, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def _join(self, i: int, last: Tensor, group: Tensor) -> Tensor:
        joined: Tensor = self.fuse_models[i](last, group) if self.fuse_models else last + group
        return joined

    def forward(self, x_BCFT: Tensor, pad: Tensor | None) -> Tensor:
        groups = _clip(self.bn1(self.conv1(x_BCFT))).chunk(len(self.convs), 1)
        done: list[Tensor] = []
        for i, (group, conv, norm) in enumerate(zip(groups, self.convs, self.bns, strict=True)):
            x = self._join(i - 1, done[-1], group) if done else group
            done.append(_clip(norm(conv(blank(x, pad)))))
        y_BCFT: Tensor = self.bn3(self.conv3(torch.cat(done, 1)))
        return _clip(y_BCFT + self.shortcut(x_BCFT))


def second(embedding: int, layers: int) -> nn.Sequential:
    """What follows the first linear layer of the embedding: nothing, or ReLU, BatchNorm and another one."""
    if layers == 1:
        return nn.Sequential()
    norm = nn.BatchNorm1d(embedding, affine=False)
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), norm=norm, linear=nn.Linear(embedding, embedding)))


def check_shape(
    model: str, channels: int, blocks: Sequence[int], expansion: int, base_width: int, scale: int, layers: int
) -> None:
    """ValueError for sizes that ERes2Net or ERes2NetV2 cannot have."""
    check_sizes(model, blocks=(blocks, 4), expansion=([expansion], 1), base_width=([base_width], 1), scale=([scale], 1))
    if channels * base_width < 64:  # a group of stage 1 has a channel, and one of stage 3 the 4 that AFF needs
        raise ValueError(
            f"model.channels of {model} is {channels}: take {-(-64 // base_width)} or more (32, 64), or "
            "a larger model.base_width"
        )
    if layers not in (1, 2):
        raise ValueError(f"model.embedding_layers of {model} is {layers}: take 1 or 2")


def stages(
    channels: int, blocks: Sequence[int], expansion: int, base_width: int, scale: int
) -> Iterator[nn.ModuleList]:
    """The four stages' blocks: planes double, and from the second on frequency and time are halved."""
    inputs = channels
    for stage, count in enumerate(blocks, 1):
        planes, layers = channels << stage - 1, []
        width, outputs = planes * base_width // 64, planes * expansion
        for number in range(count):
            stride = 2 if stage > 1 and number == 0 else 1
            layers.append(Block(inputs, width, outputs, scale, stride, stage > 2))
            inputs = outputs
        yield nn.ModuleList(layers)


def maps(model: nn.Module, x_BCFT: Tensor, frames_B: Tensor | None) -> tuple[list[Tensor], list[Tensor | None]]:
    """What each of a model's four stages gives, and the masks of its padded frames."""
    found, pads = [], []
    for stage in range(1, 5):
        if stage > 1:
            frames_B = halve(frames_B)
        pad = padding(frames_B, x_BCFT if stage == 1 else x_BCFT[..., ::2])
        for block in model.get_submodule(f"layer{stage}").children():
            x_BCFT = block(x_BCFT, pad)
        found.append(x_BCFT)
        pads.append(pad)
    return found, pads


class ERes2Net(nn.Module):
    """ERes2Net. `channels`: planes of the first stage (32 base, 64 large); `pooling`: tstp, tap, tsdp or astp.

    3D-Speaker's "huge" (the released `aug` model) is channels 64, expansion 4, base_width 24, scale 3. macls'
    `mul_channel` is half of `expansion`, as its graph demands. `embedding_layers`: 1 or 2;
    `attention`, `context`: of astp; `epsilon`: of the pooling, 1e-7 for WeSpeaker's.
    """

    BLOCKS = (Block, Fusion)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 32,
        embedding: int = 192,
        pooling: str = "tstp",
        blocks: Sequence[int] = (3, 4, 6, 3),
        expansion: int = 2,
        base_width: int = 32,
        scale: int = 2,
        embedding_layers: int = 1,
        attention: int = 128,
        context: bool = False,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        check_shape("eres2net", channels, blocks, expansion, base_width, scale, embedding_layers)
        self.bins = bins
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for number, stage in enumerate(stages(channels, blocks, expansion, base_width, scale), 1):
            self.add_module(f"layer{number}", stage)
        widths = [channels * expansion << stage for stage in range(4)]
        self.layer1_downsample, self.layer2_downsample, self.layer3_downsample = (
            nn.Conv2d(narrow, wide, 3, 2, 1, bias=False) for narrow, wide in pairwise(widths)
        )
        self.fuse_mode12, self.fuse_mode123, self.fuse_mode1234 = (Fusion(width) for width in widths[1:])
        pooled = widths[-1] * -(-bins // STRIDE)
        chosen = choose("eres2net", pooling, POOLINGS, pooled, attention=attention, context=context, epsilon=epsilon)
        self.pool, self.least = chosen.pool, (chosen.least - 1) * STRIDE + 1
        self.seg_1 = nn.Linear(chosen.size, embedding)
        self.seg_2 = second(embedding, embedding_layers)
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under `least` frames (9)."""
        check_input("eres2net", feat_BTF, self.bins, self.least)
        image_B1FT = feat_BTF.transpose(1, 2)[:, None]
        stem = self.bn1(self.conv1(blank(image_B1FT, padding(frames_B, image_B1FT)))).relu_()
        (o1, o2, o3, o4), (pad1, pad2, pad3, pad4) = maps(self, stem, frames_B)
        f12 = self.fuse_mode12(o2, self.layer1_downsample(blank(o1, pad1)))
        f123 = self.fuse_mode123(o3, self.layer2_downsample(blank(f12, pad2)))
        f1234 = self.fuse_mode1234(o4, self.layer3_downsample(blank(f123, pad3)))
        vector_BE: Tensor = self.seg_2(self.seg_1(self.pool(f1234, pad4)))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
