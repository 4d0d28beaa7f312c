"""VGGish: Hershey 2017, arXiv 1609.09430. Features (B, T, bins) -> embedding (B, E) -> logits.

    6 convolutions 3x3, each with ReLU; the maximum of 2x2 after the first, second and fourth
    -> maxima of 4 x 6 windows over the image (bins x frames) -> three linear layers with ReLU -> head

The graph is that of daisukelab's sound-clf-pytorch: without BatchNorm and dropout, for clips of any length. The windows
scale with the clip, so a clip and the same clip twice do not score the same.
"""

import torch
from torch import Tensor, nn

from dist_train.models.blocks import blank, check_bins, check_input, padding
from dist_train.models.image import adaptive_max, max_2x2

FRAMES = 8  # one is left after three halvings, of bins as of frames
HIGH, WIDE = 4, 6
LAYERS = ((0, 1, True), (3, 2, True), (6, 4, False), (8, 4, True), (11, 8, False), (13, 8, False))  # key, width, halve


class Layer(nn.Module):
    """3x3 convolution and ReLU; then, if `halve`, the maximum of 2x2. (B, C, F, T) -> (B, C', F // 2, T // 2)."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.halve = halve

    def forward(self, x_BCFT: Tensor, pad: Tensor | None) -> Tensor:
        x_BCFT = self.conv(blank(x_BCFT, pad)).relu_()
        return max_2x2(x_BCFT) if self.halve else x_BCFT


class Vggish(nn.Module):
    """VGGish. `channels`: those of the first convolution, the last has 8 times as many; `hidden`: linear layers."""

    BLOCKS = (Layer,)  # compiled one by one

    def __init__(
        self, bins: int, classes: int, *, channels: int = 64, embedding: int = 128, hidden: int = 4096
    ) -> None:
        super().__init__()
        check_bins("vggish", bins, FRAMES)
        if channels < 1:
            raise ValueError(f"model.channels of vggish is {channels}: take a positive number (64)")
        self.bins, self.least = bins, FRAMES
        self.features = nn.ModuleDict()
        inputs = 1
        for key, width, halve in LAYERS:
            self.features[str(key)] = Layer(inputs, inputs := channels * width, halve)
        self.embeddings = nn.Sequential(
            nn.Linear(inputs * HIGH * WIDE, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, embedding),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 8 frames."""
        check_input("vggish", feat_BTF, self.bins, FRAMES)
        x_BCFT = feat_BTF.mT[:, None]
        for layer in self.features.values():
            x_BCFT = layer(x_BCFT, padding(frames_B, x_BCFT))
            if layer.halve and frames_B is not None:
                frames_B = (frames_B // 2).clamp(min=1)
        pooled = adaptive_max(x_BCFT, HIGH, WIDE, frames_B)
        vector_BE: Tensor = self.embeddings(torch.flatten(pooled, 1))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
