"""CNN4: four strided convolutions, their mean. Features (B, T, bins) -> embedding (B, 64) -> logits (B, classes).

    [conv /2 (5x5, then 3x3) -> ReLU -> BatchNorm] x 4: 8, 16, 32, 64 channels -> mean over bins and frames -> head

A network of 25,602 parameters for sounds of a few seconds, in stereo; any number of bins and frames.
"""

from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, halve, padding
from dist_train.models.pooling import time_mean


class Block(nn.Module):
    """Convolution of stride 2, ReLU, BatchNorm, in this order. (B, C, F, T) -> (B, D, ceil(F / 2), ceil(T / 2))."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2)
        nn.init.kaiming_normal_(self.conv.weight, a=0.1)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x_BCFT: Tensor, pad: Tensor | None) -> Tensor:
        x_BCFT = self.conv(blank(x_BCFT, pad))
        x_BCFT = self.norm(x_BCFT.relu_())
        return x_BCFT


class Cnn4(nn.Module):
    """CNN4. `channels`: of the first block (8), doubled by each other one; `sources`: channels of the audio.

    The bins of the sources lie side by side in the features, and are images of their own here.
    """

    BLOCKS = (Block,)  # compiled one by one

    def __init__(self, bins: int, classes: int, *, channels: int = 8, sources: int = 1) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"model.channels of cnn4 is {channels}: take at least 1 (8)")
        if sources < 1 or bins % sources:
            raise ValueError(f"cnn4 got {bins} bins of {sources} channels side by side: let sources divide bins")
        self.bins, self.sources, self.least = bins, sources, 1
        self.block1 = Block(sources, channels, 5)
        self.block2 = Block(channels, 2 * channels, 3)
        self.block3 = Block(2 * channels, 4 * channels, 3)
        self.block4 = Block(4 * channels, 8 * channels, 3)
        self.head = nn.Linear(8 * channels, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row."""
        check_input("cnn4", feat_BTF, self.bins, 1)
        x_BCFT = feat_BTF.reshape(*feat_BTF.shape[:2], self.sources, -1).permute(0, 2, 3, 1)
        for block in (self.block1, self.block2, self.block3, self.block4):
            x_BCFT = block(x_BCFT, padding(frames_B, x_BCFT))
            frames_B = halve(frames_B)
        vector_BE: Tensor = time_mean(x_BCFT.mean(2), padding(frames_B, x_BCFT[:, :, 0])).squeeze(-1)
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
