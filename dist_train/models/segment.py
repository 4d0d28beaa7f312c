"""Frames (B, C, T) -> embedding (B, E): what TDNN, ResNetSE and Res2Net do after their last convolution.

pooling over time -> BatchNorm -> linear -> BatchNorm
"""

from collections.abc import Callable

from torch import Tensor, nn

from dist_train.models.pooling import ASP, SAP, tap, tsp

Pooling = Callable[[Tensor, Tensor | None], Tensor]


class Segment(nn.Module):
    """Embedding of a clip. `pooling`: asp, sap, tsp or tap; ValueError, naming the `model`, for another one."""

    def __init__(self, model: str, pooling: str, channels: int, embedding: int, attention: int = 128) -> None:
        super().__init__()
        poolings: dict[str, Callable[[], tuple[Pooling, int]]] = {
            "asp": lambda: (ASP(channels, attention), 2 * channels),
            "sap": lambda: (SAP(channels, attention), channels),
            "tsp": lambda: (tsp, 2 * channels),
            "tap": lambda: (tap, channels),
        }
        if pooling not in poolings:
            raise ValueError(f"model.pooling of {model} is {pooling!r}: take one of {', '.join(poolings)}")
        self.pooling, pooled = poolings[pooling]()
        self.norm1 = nn.BatchNorm1d(pooled)
        self.linear = nn.Linear(pooled, embedding)
        self.norm2 = nn.BatchNorm1d(embedding)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        vector_BE: Tensor = self.norm2(self.linear(self.norm1(self.pooling(x_BCT, pad))))
        return vector_BE
