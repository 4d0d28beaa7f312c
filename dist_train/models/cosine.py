"""The head of margin losses. Embedding (B, E) -> scaled cosines (B, classes): scale * max over a class's centres.

A class has one centre (Wang 2018, arXiv 1801.05599) or several, of which the nearest counts (sub-centres: Deng 2020,
ECCV). The margin is the loss's affair, so in evaluation these are the logits.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional


class Cosine(nn.Module):
    """`weight` (classes * centres, E), the centres of a class one after another. float32 at least, under autocast too:
    half precision leaves eight bits of a cosine near 1, which the scale then magnifies."""

    def __init__(self, embedding: int, classes: int, *, centres: int = 1, scale: float = 32.0) -> None:
        super().__init__()
        self.in_features, self.out_features, self.centres, self.scale = embedding, classes, centres, scale
        self.weight = nn.Parameter(torch.empty(classes * centres, embedding))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, vector_BE: Tensor) -> Tensor:
        """Logits (B, classes)."""
        device = vector_BE.device.type
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
            vector_BE = vector_BE if vector_BE.dtype == torch.float64 else vector_BE.float()
            cos_BD = functional.linear(functional.normalize(vector_BE), functional.normalize(self.weight))
            if self.centres > 1:
                cos_BD = cos_BD.view(len(cos_BD), -1, self.centres).amax(2)
            return cos_BD * self.scale
