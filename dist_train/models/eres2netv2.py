"""ERes2NetV2: Chen 2024, arXiv 2406.02167. Features (B, T, bins) -> embedding (B, E) -> logits.

    3x3 stem -> stage 1 -> stage 2 -> stage 3 -> stage 4       Res2 blocks, stages 2 to 4 halve frequency and time
                                         |__ down __+-> pooling -> embedding -> head       + : attentive fusion (AFF)

The blocks are those of ERes2Net with groups 26/64 as wide as the planes. The graph is that of 3D-Speaker and macls.
Any number of bins: the last map is ceil(bins / 8) high.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, padding
from dist_train.models.eres2net import POOLINGS, STRIDE, Block, Fusion, check_shape, maps, second, stages
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
        for number, stage in enumerate(stages(channels, blocks, expansion, base_width, scale), 1):
            self.add_module(f"layer{number}", stage)
        inputs = (channels << 3) * expansion
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
        image_B1FT = feat_BTF.transpose(1, 2)[:, None]
        stem = self.bn1(self.conv1(blank(image_B1FT, padding(frames_B, image_B1FT)))).relu_()
        (*_, o3, o4), (*_, pad3, pad4) = maps(self, stem, frames_B)
        fused_BCFT = self.fuse34(o4, self.layer3_ds(blank(o3, pad3)))
        vector_BE: Tensor = self.seg_2(self.seg_1(self.pool(fused_BCFT, pad4)))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
