"""ECAPA-TDNN: Desplanques 2020, arXiv 2005.07143. Features (B, T, bins) -> embedding (B, E) -> logits.

    conv k5 -> SE-Res2 d2 -> SE-Res2 d3 -> SE-Res2 d4
                   |____________|____________|-> concatenate -> 1x1 conv (MFA) -> pooling -> BatchNorm -> 1x1 -> head

The graph is that of SpeechBrain, 3D-Speaker and macls (reflect padding, MFA three times as wide as the blocks, no
BatchNorm after the embedding); their state loads after `models.from_reference`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dist_train.models.blocks import ConvReluNorm, check_input, padding
from dist_train.models.pooling import ASP, SAP, tap, time_mean, tsp

Pooling = Callable[[Tensor, Tensor | None], Tensor]
FRAMES = 5  # the reflect padding of dilation 4 needs more than 4


class Res2(nn.Module):
    """Channels in `scale` groups: the first passes, each other one is convolved with its predecessor's output added."""

    def __init__(self, channels: int, dilation: int, scale: int = 8) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = nn.ModuleList(ConvReluNorm(width, width, 3, dilation) for _ in range(scale - 1))

    def forward(self, x_BCT: Tensor, frames_B: Tensor | None) -> Tensor:
        first, *rest = x_BCT.chunk(len(self.blocks) + 1, 1)
        done = [first]
        for group, block in zip(rest, self.blocks, strict=True):
            done.append(block(group if len(done) == 1 else group + done[-1], frames_B))
        return torch.cat(done, 1)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a sigmoid of all channels' means: Hu 2018, arXiv 1709.01507."""

    def __init__(self, channels: int, squeeze: int = 128) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, squeeze, 1)
        self.conv2 = nn.Conv1d(squeeze, channels, 1)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        gate: Tensor = self.conv2(self.conv1(time_mean(x_BCT, pad)).relu_())
        return x_BCT * gate.sigmoid()


class Block(nn.Module):
    """1x1 -> Res2 -> 1x1 -> squeeze-excitation, plus the input. (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, dilation: int, squeeze: int) -> None:
        super().__init__()
        self.tdnn1 = ConvReluNorm(channels, channels)
        self.res2net_block = Res2(channels, dilation)
        self.tdnn2 = ConvReluNorm(channels, channels)
        self.se_block = SqueezeExcitation(channels, squeeze)

    def forward(self, x_BCT: Tensor, frames_B: Tensor | None, pad: Tensor | None) -> Tensor:
        y_BCT: Tensor = self.tdnn2(self.res2net_block(self.tdnn1(x_BCT), frames_B))
        y_BCT = self.se_block(y_BCT, pad)
        return y_BCT + x_BCT


class Ecapa(nn.Module):
    """ECAPA-TDNN. `channels`: width of the blocks, a multiple of 8; `pooling`: asp, sap, tsp or tap."""

    BLOCKS = (ConvReluNorm, Block, ASP, SAP)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 512,
        embedding: int = 192,
        pooling: str = "asp",
        attention: int = 128,
        squeeze: int = 128,
    ) -> None:
        super().__init__()
        if channels % 8:
            raise ValueError(f"model.channels of ecapa is {channels}: take a multiple of 8 (512, 1024)")
        wide = 3 * channels
        self.bins = bins
        stem = ConvReluNorm(bins, channels, 5)
        self.blocks = nn.ModuleList([stem, *(Block(channels, dilation, squeeze) for dilation in (2, 3, 4))])
        self.mfa = ConvReluNorm(wide, wide)
        poolings: dict[str, Callable[[], tuple[Pooling, int]]] = {
            "asp": lambda: (ASP(wide, attention), 2 * wide),
            "sap": lambda: (SAP(wide), wide),
            "tsp": lambda: (tsp, 2 * wide),
            "tap": lambda: (tap, wide),
        }
        if pooling not in poolings:
            raise ValueError(f"model.pooling of ecapa is {pooling!r}: take one of {', '.join(poolings)}")
        self.asp, pooled = poolings[pooling]()
        self.asp_bn = nn.BatchNorm1d(pooled)
        self.fc = nn.Conv1d(pooled, embedding, 1)
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under 5 frames."""
        check_input("ecapa", feat_BTF, self.bins, FRAMES)
        stem, *blocks = self.blocks
        x_BCT = stem(feat_BTF.transpose(1, 2), frames_B)
        pad, outputs = padding(frames_B, x_BCT), []
        for block in blocks:
            x_BCT = block(x_BCT, frames_B, pad)
            outputs.append(x_BCT)
        pooled_BC = self.asp(self.mfa(torch.cat(outputs, 1)), pad)
        vector_BE1: Tensor = self.fc(self.asp_bn(pooled_BC)[..., None])
        return vector_BE1.squeeze(-1)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
