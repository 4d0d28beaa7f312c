"""ERes2NetV2: Chen 2024, arXiv 2406.02167. Features (B, T, bins) -> embedding (B, E) -> logits.

    3x3 stem -> stage 1 -> stage 2 -> stage 3 -> stage 4       Res2 blocks, stages 2 to 4 halve frequency and time
                                         |__ down __+-> pooling -> embedding -> head       + : attentive fusion (AFF)

The blocks are those of ERes2Net with groups 26/64 as wide as the planes. The graph is that of 3D-Speaker and macls.
Any number of bins: the last map is ceil(bins / 8) high.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, halve, padding
from dist_train.models.eres2net import POOLINGS, STRIDE, Block, Fusion, check_shape, second
from dist_train.models.pooling import choose


class ERes2NetV2(nn.Module):
    """ERes2NetV2. `channels`: planes of the first stage (64, or macls' 32); `pooling`: tstp, tap, tsdp or astp.

    3D-Speaker's w24s4ep4 is base_width 24, scale 4, expansion 4. `embedding_layers`: 1 or 2; `attention`, `context`: of
    astp; `epsilon`: of the pooling.
    """

    BLOCKS = (Block, Fusion)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 64,
        embedding: int = 192,
        pooling: str = "tstp",
        blocks: Sequence[int] = (3, 4, 6, 3),
        expansion: int = 2,
        base_width: int = 26,
        scale: int = 2,
        embedding_layers: int = 1,
        attention: int = 128,
        context: bool = False,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        check_shape("eres2netv2", channels, blocks, expansion, base_width, scale, embedding_layers)
        self.bins = bins
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        inputs = channels
        for stage, count in enumerate(blocks, 1):
            planes, layers = channels << stage - 1, []
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                width, outputs = planes * base_width // 64, planes * expansion
                layers.append(Block(inputs, width, outputs, scale, stride, stage > 2))
                inputs = outputs
            self.add_module(f"layer{stage}", nn.ModuleList(layers))
        self.layer3_ds = nn.Conv2d(inputs // 2, inputs, 3, 2, 1, bias=False)
        self.fuse34 = Fusion(inputs)
        pooled = inputs * -(-bins // STRIDE)
        chosen = choose("eres2netv2", pooling, POOLINGS, pooled, attention=attention, context=context, epsilon=epsilon)
        self.pool, self.least = chosen.pool, (chosen.least - 1) * STRIDE + 1
        self.seg_1 = nn.Linear(chosen.size, embedding)
        self.seg_2 = second(embedding, embedding_layers)
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under `least` frames (9)."""
        check_input("eres2netv2", feat_BTF, self.bins, self.least)
        x_BCFT = feat_BTF.transpose(1, 2)[:, None]
        pad = padding(frames_B, x_BCFT)
        x_BCFT = self.bn1(self.conv1(blank(x_BCFT, pad))).relu_()
        for stage in range(1, 5):
            before_BCFT, pad_before = x_BCFT, pad
            if stage > 1:
                frames_B = halve(frames_B)
                pad = padding(frames_B, x_BCFT[..., ::2])
            for block in self.get_submodule(f"layer{stage}").children():
                x_BCFT = block(x_BCFT, pad)
        fused_BCFT = self.fuse34(x_BCFT, self.layer3_ds(blank(before_BCFT, pad_before)))
        vector_BE: Tensor = self.seg_2(self.seg_1(self.pool(fused_BCFT, pad)))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
