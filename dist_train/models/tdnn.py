"""TDNN (x-vector): Snyder 2018, ICASSP. Features (B, T, bins) -> embedding (B, E) -> logits.

    conv k5 -> conv k3 d2 -> conv k3 d3 -> 1x1 -> 1x1 -> pooling -> BatchNorm -> linear -> BatchNorm -> head

No convolution is padded: 14 frames fewer come out than went in. The graph is that of macls, which departs from the
paper: the last 1x1 is as narrow as the others and has no BatchNorm, and there is one linear layer, not two.
"""

from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, padding
from dist_train.models.segment import Segment

REACH = 14  # frames that the convolutions take from a clip's length
LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # kernel, dilation


class Frame(nn.Module):
    """Convolution without padding, ReLU, and BatchNorm if `norm`: dilation * (kernel - 1) frames fewer come out."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, dilation: int, norm: bool = True, affine: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.norm = nn.BatchNorm1d(outputs, affine=affine) if norm else nn.Sequential()

    def forward(self, x_BCT: Tensor) -> Tensor:
        y_BCT: Tensor = self.norm(self.conv(x_BCT).relu_())
        return y_BCT


class Tdnn(nn.Module):
    """TDNN. `channels`: width of the layers (512); `pooling`: asp, sap, tsp or tap."""

    BLOCKS = (Frame, Segment)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 512,
        embedding: int = 192,
        pooling: str = "asp",
        attention: int = 128,
        context: bool = True,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"model.channels of tdnn is {channels}: take 1 or more (512)")
        self.bins = bins
        self.frames = nn.ModuleDict()
        for i, (kernel, dilation) in enumerate(LAYERS, 1):
            inputs = bins if i == 1 else channels
            self.frames[str(i)] = Frame(inputs, channels, kernel, dilation, norm=i < len(LAYERS))
        self.segment = Segment("tdnn", pooling, channels, embedding, attention, context)
        self.least = REACH + self.segment.least
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 15 frames (tsp: 16)."""
        check_input("tdnn", feat_BTF, self.bins, self.least)
        x_BCT = feat_BTF.transpose(1, 2)
        # no kernel sees past a clip's end, but a BatchNorm in training does
        x_BCT = blank(x_BCT, padding(frames_B, x_BCT))
        for frame in self.frames.values():
            x_BCT = frame(x_BCT)
        pad = padding(None if frames_B is None else (frames_B - REACH).clamp(min=1), x_BCT)
        vector_BE: Tensor = self.segment(x_BCT, pad)
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
