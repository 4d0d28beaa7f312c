"""X-vector of 3D-Speaker: Snyder 2018, ICASSP. Features (B, T, bins) -> embedding (B, E) -> logits.

    conv k5 -> conv k3 d2 -> conv k3 d3 -> 1x1 -> 1x1, 1500 wide -> pooling -> linear -> head

No convolution is padded: 14 frames fewer come out than went in. ReLU and a BatchNorm without weights follow each one.
Beside `tdnn` (macls): wide before the pooling, no BatchNorm around the embedding.
"""

from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, check_sizes, padding
from dist_train.models.pooling import ASTP, choose
from dist_train.models.tdnn import LAYERS, REACH, Frame

POOLINGS = ("tstp", "tap", "tsdp", "astp")


class Xvector(nn.Module):
    """X-vector. `channels`: width of the first four layers (512), `wide`: of the fifth (1500).

    `pooling`: tstp, tap, tsdp or astp; `attention`, `context`: of astp.
    """

    BLOCKS = (Frame, ASTP)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 512,
        wide: int = 1500,
        embedding: int = 512,
        pooling: str = "tstp",
        attention: int = 128,
        context: bool = False,
    ) -> None:
        super().__init__()
        check_sizes("xvector", channels=([channels], 1), wide=([wide], 1))
        self.bins = bins
        widths = [bins, *[channels] * (len(LAYERS) - 1), wide]
        self.frames = nn.ModuleDict()
        for i, (kernel, dilation) in enumerate(LAYERS):
            self.frames[str(i + 1)] = Frame(widths[i], widths[i + 1], kernel, dilation, affine=False)
        chosen = choose("xvector", pooling, POOLINGS, wide, attention=attention, context=context)
        self.pool, self.least = chosen.pool, REACH + chosen.least
        self.linear = nn.Linear(chosen.size, embedding)
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under `least` frames (16)."""
        check_input("xvector", feat_BTF, self.bins, self.least)
        x_BCT = feat_BTF.transpose(1, 2)
        # no kernel sees past a clip's end, but a BatchNorm in training does
        x_BCT = blank(x_BCT, padding(frames_B, x_BCT))
        for frame in self.frames.values():
            x_BCT = frame(x_BCT)
        pad = padding(None if frames_B is None else (frames_B - REACH).clamp(min=1), x_BCT)
        vector_BE: Tensor = self.linear(self.pool(x_BCT, pad))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
