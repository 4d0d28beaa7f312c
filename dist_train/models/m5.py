"""M5: four convolutions of the waveform itself; Dai 2016, arXiv 1610.00087. Samples (B, T, 1) -> logits (B, classes).

    [conv (k80 /4, then k3) -> BatchNorm -> ReLU -> max-pool 4] x 4: 128, 128, 256, 512 channels -> mean -> head

The mean is over all that is left of the clip. torchaudio's tutorial averages the first 30 frames, 31,468 samples, and
that is the same for its clips of 32,000. Made for 8 kHz. A linear head follows, which the paper does without.
"""

from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import blank, check_input, padding
from dist_train.models.pooling import time_mean

SAMPLES = 1772  # a last frame sees (((4 + 2) * 4 + 2) * 4 + 2) * 4 = 424 frames of the first convolution
SOURCES = 8  # more are surely mel bins


class Block(nn.Module):
    """Convolution without padding, BatchNorm, ReLU, maximum of each 4 frames. (B, C, T) -> (B, D, T')."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)
        self.norm = nn.BatchNorm1d(outputs)
        self.kernel, self.stride = kernel, stride

    def frames(self, count_B: Tensor) -> Tensor:
        """Frames that it makes of so many."""
        return ((count_B - self.kernel) // self.stride + 1) // 4

    def forward(self, x_BCT: Tensor) -> Tensor:
        return functional.max_pool1d(self.norm(self.conv(x_BCT)).relu_(), 4)


class M5(nn.Module):
    """M5. `bins`: channels of the audio; `channels`: of the first two blocks (128), of the others twice and 4 times.

    `frames_B` are samples. In a batch a clip under 1772 samples is scored as if zeros followed it.
    """

    BLOCKS = (Block,)  # compiled one by one

    def __init__(self, bins: int, classes: int, *, channels: int = 128) -> None:
        super().__init__()
        if bins > SOURCES:
            raise ValueError(
                f"m5 hears waveforms, one value a channel, and got {bins} bins: set features.name=waveform"
            )
        if channels < 1:
            raise ValueError(f"model.channels of m5 is {channels}: take at least 1 (128)")
        self.bins = bins
        self.block1 = Block(bins, channels, 80, 4)
        self.block2 = Block(channels, channels, 3)
        self.block3 = Block(channels, 2 * channels, 3)
        self.block4 = Block(2 * channels, 4 * channels, 3)
        self.head = nn.Linear(4 * channels, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid samples of each row. ValueError under 1772 samples."""
        check_input("m5", feat_BTF, self.bins, SAMPLES)
        x_BCT = feat_BTF.transpose(1, 2)
        x_BCT = blank(x_BCT, padding(frames_B, x_BCT))
        frames_B = None if frames_B is None else frames_B.clamp(min=SAMPLES)
        for block in (self.block1, self.block2, self.block3, self.block4):
            x_BCT = block(x_BCT)
            frames_B = None if frames_B is None else block.frames(frames_B)
        vector_BE: Tensor = time_mean(x_BCT, padding(frames_B, x_BCT)).squeeze(-1)
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
