"""Frames (B, C, T) -> embedding (B, E): what TDNN, ResNetSE and Res2Net do after their last convolution.

pooling over time -> BatchNorm -> linear -> BatchNorm
"""

from torch import Tensor, nn

from dist_train.models.pooling import choose

POOLINGS = ("asp", "sap", "tsp", "tap")


class Segment(nn.Module):
    """Embedding of a clip. `pooling`: asp, sap, tsp or tap; ValueError, naming the `model`, for another one.

    `least`: frames that it needs. `attention`, `context`: of asp.
    """

    def __init__(
        self, model: str, pooling: str, channels: int, embedding: int, attention: int = 128, context: bool = True
    ) -> None:
        super().__init__()
        chosen = choose(model, pooling, POOLINGS, channels, attention=attention, context=context)
        self.pooling, self.least = chosen.pool, chosen.least
        self.norm1 = nn.BatchNorm1d(chosen.size)
        self.linear = nn.Linear(chosen.size, embedding)
        self.norm2 = nn.BatchNorm1d(embedding)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        vector_BE: Tensor = self.norm2(self.linear(self.norm1(self.pooling(x_BCT, pad))))
        return vector_BE
