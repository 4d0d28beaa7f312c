"""ECAPA-TDNN: Desplanques 2020, arXiv 2005.07143. Features (B, T, bins) -> embedding (B, E) -> logits.

    conv k5 -> SE-Res2 d2 -> SE-Res2 d3 -> SE-Res2 d4
                   |____________|____________|-> concatenate -> 1x1 conv (MFA) -> pooling -> BatchNorm -> 1x1 -> head

The graph is that of SpeechBrain, 3D-Speaker and macls (reflect padding, MFA three times as wide as the blocks, no
BatchNorm after the embedding); their state loads after `models.from_reference`. WeSpeaker's and the paper's C1024 have
an MFA of 1536: `channels` [1024, 1024, 1024, 1024, 1536].
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dist_train.models.blocks import ConvReluNorm, check_input, check_sizes, padding
from dist_train.models.pooling import ASP, SAP, choose, time_mean

POOLINGS = ("asp", "sap", "tsp", "tap")


class Res2(nn.Module):
    """Channels in `scale` groups: the first passes, each other one is convolved with its predecessor's output added."""

    def __init__(self, channels: int, kernel: int, dilation: int, scale: int) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = nn.ModuleList(ConvReluNorm(width, width, kernel, dilation) for _ in range(scale - 1))

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
    """1x1 -> Res2 -> 1x1 -> squeeze-excitation, plus the input, by a 1x1 convolution where the width changes."""

    def __init__(
        self, inputs: int, channels: int, kernel: int, dilation: int, scale: int, squeeze: int, groups: int = 1
    ) -> None:
        super().__init__()
        self.tdnn1 = ConvReluNorm(inputs, channels, groups=groups)
        self.res2net_block = Res2(channels, kernel, dilation, scale)
        self.tdnn2 = ConvReluNorm(channels, channels, groups=groups)
        self.se_block = SqueezeExcitation(channels, squeeze)
        self.shortcut = nn.Conv1d(inputs, channels, 1) if inputs != channels else nn.Sequential()

    def forward(self, x_BCT: Tensor, frames_B: Tensor | None, pad: Tensor | None) -> Tensor:
        y_BCT: Tensor = self.tdnn2(self.res2net_block(self.tdnn1(x_BCT), frames_B))
        y_BCT = self.se_block(y_BCT, pad)
        y_BCT = y_BCT + self.shortcut(x_BCT)
        return y_BCT


class Ecapa(nn.Module):
    """ECAPA-TDNN. `channels`: width of the blocks, or a list: stem, blocks, MFA; `pooling`: asp, sap, tsp or tap.

    Beside a list `kernels`, `dilations` and `groups` have its length. `scale`: groups of a Res2 part; `squeeze`,
    `attention`: narrowest layers of the squeeze-excitation and of asp; `context`: asp sees the clip's statistics.
    """

    BLOCKS = (ConvReluNorm, Block, ASP, SAP)  # compiled one by one

    def __init__(
        self,
        bins: int,
        classes: int,
        *,
        channels: int | Sequence[int] = 512,
        embedding: int = 192,
        pooling: str = "asp",
        attention: int = 128,
        squeeze: int = 128,
        context: bool = True,
        scale: int = 8,
        kernels: Sequence[int] = (5, 3, 3, 3, 1),
        dilations: Sequence[int] = (1, 2, 3, 4, 1),
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        layers = len(kernels)
        width = [channels] * (layers - 1) + [channels * (layers - 2)] if isinstance(channels, int) else list(channels)
        group = [1] * layers if groups is None else list(groups)
        _check(width, kernels, dilations, group, scale, squeeze)
        self.bins = bins
        self.blocks = nn.ModuleList([ConvReluNorm(bins, width[0], kernels[0], dilations[0], groups=group[0])])
        for i in range(1, layers - 1):
            block = Block(width[i - 1], width[i], kernels[i], dilations[i], scale, squeeze, group[i])
            self.blocks.append(block)
        self.mfa = ConvReluNorm(sum(width[1:-1]), width[-1], kernels[-1], dilations[-1], groups=group[-1])
        chosen = choose("ecapa", pooling, POOLINGS, width[-1], attention=attention, context=context)
        reach = max(d * (k - 1) // 2 for k, d in zip(kernels, dilations, strict=True))
        self.least = max(reach + 1, chosen.least)  # a mirror shows what lies beside the last frame, not that frame
        self.asp = chosen.pool
        self.asp_bn = nn.BatchNorm1d(chosen.size)
        self.fc = nn.Conv1d(chosen.size, embedding, 1)
        self.head = nn.Linear(embedding, classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under `least` frames (5)."""
        check_input("ecapa", feat_BTF, self.bins, self.least)
        stem, *blocks = self.blocks
        x_BCT = stem(feat_BTF.transpose(1, 2), frames_B)
        pad, outputs = padding(frames_B, x_BCT), []
        for block in blocks:
            x_BCT = block(x_BCT, frames_B, pad)
            outputs.append(x_BCT)
        pooled_BC = self.asp(self.mfa(torch.cat(outputs, 1), frames_B), pad)
        vector_BE1: Tensor = self.fc(self.asp_bn(pooled_BC)[..., None])
        return vector_BE1.squeeze(-1)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC


def _check(
    width: Sequence[int],
    kernels: Sequence[int],
    dilations: Sequence[int],
    groups: Sequence[int],
    scale: int,
    squeeze: int,
) -> None:
    """ValueError where the layers do not fit together."""
    layers = max(3, len(kernels))
    check_sizes("ecapa", kernels=(kernels, layers))
    check_sizes("ecapa", channels=(width, layers), dilations=(dilations, layers), groups=(groups, layers))
    if scale < 1 or any(channels % scale for channels in width[1:-1]):
        raise ValueError(
            f"model.channels of ecapa is {width[1]}: take a multiple of {scale}, the model.scale (512, 1024)"
        )
    if even := [kernel for kernel in kernels if kernel % 2 == 0]:
        raise ValueError(f"model.kernels of ecapa has {even[0]}: take odd numbers")
    if squeeze < 1:
        raise ValueError(f"model.squeeze of ecapa is {squeeze}: take a positive number (128)")
