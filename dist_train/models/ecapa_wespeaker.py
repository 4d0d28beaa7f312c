"""WeSpeaker's ECAPA-TDNN, another graph than `ecapa`, for its weights. Features (B, T, bins) -> embedding -> logits.

    conv k5 -> SE-Res2 d2 -> SE-Res2 d3 -> SE-Res2 d4
                   |____________|____________|-> concatenate -> 1x1 conv, ReLU -> pooling -> BatchNorm -> linear -> head

Desplanques 2020, arXiv 2005.07143, with zeros past a clip's ends, the last of the eight groups passing through a Res2
part, 1536 channels before the pooling for any width of the blocks, no BatchNorm there nor in the attention.
"""

import torch
from torch import Tensor, nn

from dist_train.models.blocks import ConvReluNorm, blank, check_input, padding
from dist_train.models.pooling import ASTP, choose, time_mean

POOLINGS = ("astp", "tstp", "tap", "tsdp")
SCALE = 8
DILATIONS = (2, 3, 4)
EPSILON = 1e-7


class Res2(nn.Module):
    """Channels in 8 groups: each but the last is convolved with its predecessor's output added, the last passes."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        layers = (ConvReluNorm(width, width, 3, dilation, mirror=False) for _ in range(SCALE - 1))
        self.blocks = nn.ModuleList(layers)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        *groups, last = x_BCT.chunk(SCALE, 1)
        done: list[Tensor] = []
        for group, block in zip(groups, self.blocks, strict=True):
            done.append(block(blank(group + done[-1] if done else group, pad)))
        return torch.cat([*done, last], 1)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a sigmoid of all channels' means. (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, squeeze)
        self.linear2 = nn.Linear(squeeze, channels)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        gate_BC: Tensor = self.linear2(self.linear1(time_mean(x_BCT, pad).squeeze(-1)).relu_())
        return x_BCT * gate_BC.sigmoid()[..., None]


class Block(nn.Module):
    """1x1 -> Res2 -> 1x1 -> squeeze-excitation, plus the input. (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, dilation: int, squeeze: int) -> None:
        super().__init__()
        self.tdnn1 = ConvReluNorm(channels, channels)
        self.res2net_block = Res2(channels, dilation)
        self.tdnn2 = ConvReluNorm(channels, channels)
        self.se_block = SqueezeExcitation(channels, squeeze)

    def forward(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        y_BCT: Tensor = self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x_BCT), pad)), pad)
        y_BCT = y_BCT + x_BCT
        return y_BCT


class EcapaWeSpeaker(nn.Module):
    """WeSpeaker's ECAPA-TDNN. `channels`: width of the blocks (512, 1024); `pooling`: astp, tstp, tap or tsdp.

    `context`: the attention sees the clip's statistics (its GLOB models); `embedding_norm`: BatchNorm after the
    embedding (its emb_bn); `wide`: channels before the pooling.
    """

    BLOCKS = (ConvReluNorm, Block, ASTP)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int = 512,
        embedding: int = 192,
        pooling: str = "astp",
        attention: int = 128,
        squeeze: int = 128,
        context: bool = True,
        embedding_norm: bool = False,
        wide: int = 1536,
    ) -> None:
        super().__init__()
        if channels < SCALE or channels % SCALE:
            raise ValueError(f"model.channels of ecapa_wespeaker is {channels}: take a multiple of 8 (512, 1024)")
        if squeeze < 1:
            raise ValueError(f"model.squeeze of ecapa_wespeaker is {squeeze}: take a positive number (128)")
        self.bins = bins
        self.stem = ConvReluNorm(bins, channels, 5, mirror=False)
        self.blocks = nn.ModuleList(Block(channels, dilation, squeeze) for dilation in DILATIONS)
        self.mfa = nn.Conv1d(len(DILATIONS) * channels, wide, 1)
        name = "ecapa_wespeaker"
        chosen = choose(name, pooling, POOLINGS, wide, attention=attention, context=context, epsilon=EPSILON)
        self.pool, self.least = chosen.pool, chosen.least
        self.norm = nn.BatchNorm1d(chosen.size)
        self.linear = nn.Linear(chosen.size, embedding)
        self.norm2 = nn.BatchNorm1d(embedding) if embedding_norm else nn.Sequential()
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under `least` frames (2)."""
        check_input("ecapa_wespeaker", feat_BTF, self.bins, self.least)
        x_BCT = feat_BTF.transpose(1, 2)
        pad, outputs = padding(frames_B, x_BCT), []
        x_BCT = self.stem(blank(x_BCT, pad))
        for block in self.blocks:
            x_BCT = block(x_BCT, pad)
            outputs.append(x_BCT)
        pooled_BC = self.pool(self.mfa(torch.cat(outputs, 1)).relu_(), pad)
        vector_BE: Tensor = self.norm2(self.linear(self.norm(pooled_BC)))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC
