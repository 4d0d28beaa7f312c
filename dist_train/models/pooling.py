"""Poolings over time: (B, C, T) or (B, C, F, T) and the mask of padded frames -> (B, size of the pooled vector).

    TAP   mean                                                C
    TSP   mean, unbiased variance (macls; the paper: std)     2C     Snyder 2018, x-vectors
    TSTP  mean, sqrt(unbiased variance + 1e-8)                2C
    stats mean, unbiased standard deviation                   2C     CAM++
    SAP   mean weighted by attention, per channel             C      Cai 2018, arXiv 1804.05160
    ASP   mean and deviation weighted by attention            2C     Okabe 2018, arXiv 1803.10963

An image (C, F) is flattened channel-major. Padded frames take no part. Statistics are taken in float32 or wider.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models.blocks import ConvReluNorm, blank


def _wide(x: Tensor) -> Tensor:
    """X in float32 at least: differences of squares do not survive 8 bits of mantissa."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def valid(pad: Tensor) -> Tensor:
    """Valid frames of each row, at least 1: (B, 1, 1) or (B, 1, 1, 1)."""
    return (~pad).sum(-1, keepdim=True).clamp(min=1)


def time_mean(x: Tensor, pad: Tensor | None = None) -> Tensor:
    """Mean over the valid frames, (..., T) -> (..., 1)."""
    if pad is None:
        return x.mean(-1, keepdim=True)
    return (_wide(blank(x, pad)).sum(-1, keepdim=True) / valid(pad)).to(x.dtype)


def moments(x: Tensor, pad: Tensor | None = None, correction: int = 1) -> tuple[Tensor, Tensor]:
    """Mean and variance over the valid frames, each (..., 1); `correction` 1 is the unbiased variance."""
    x = _wide(x)
    if pad is None:
        variance, mean = torch.var_mean(x, -1, correction=correction, keepdim=True)
        return mean, variance
    mean = time_mean(x, pad)
    square = blank((x - mean).square(), pad).sum(-1, keepdim=True)
    return mean, square / (valid(pad) - correction).clamp(min=1)


def tap(x: Tensor, pad: Tensor | None = None) -> Tensor:
    """Mean."""
    return time_mean(x, pad).flatten(1)


def tsp(x: Tensor, pad: Tensor | None = None) -> Tensor:
    """Mean and unbiased variance (not the deviation: as macls has it)."""
    mean, variance = moments(x, pad)
    return torch.cat([mean.flatten(1), variance.flatten(1)], 1)


def tstp(x: Tensor, pad: Tensor | None = None) -> Tensor:
    """Mean and unbiased standard deviation, sqrt(variance + 1e-8)."""
    mean, variance = moments(x, pad)
    return torch.cat([mean.flatten(1), (variance + 1e-8).sqrt().flatten(1)], 1)


def stats(x: Tensor, pad: Tensor | None = None) -> Tensor:
    """Mean and unbiased standard deviation without an epsilon; the deviation of a constant has gradient zero."""
    mean, variance = moments(x, pad)
    # the clamp is far below any deviation that counts, and stops the infinite slope of the root at 0
    return torch.cat([mean.flatten(1), variance.clamp(min=1e-20).sqrt().flatten(1)], 1)


class SAP(nn.Module):
    """Mean weighted by softmax over time of W2 tanh(W1 x), a weight for each channel and frame. (B, C, T) -> (B, C)."""

    def __init__(self, channels: int, attention: int = 128) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, attention, 1)
        self.linear2 = nn.Conv1d(attention, channels, 1)

    def forward(self, x_BCT: Tensor, pad: Tensor | None = None) -> Tensor:
        score_BCT = self.linear2(self.linear1(x_BCT).tanh())
        return (_attention(score_BCT, pad) * x_BCT).sum(-1)


class ASP(nn.Module):
    """Mean and deviation weighted by attention that sees each frame and, if `context`, the clip's mean and deviation.

    (B, C, T) -> (B, 2C). The deviations are sqrt(clamp(variance, 1e-12)), so a dead channel has gradient zero.
    """

    def __init__(self, channels: int, attention: int = 128, context: bool = True) -> None:
        super().__init__()
        self.tdnn = ConvReluNorm(channels * 3 if context else channels, attention)
        self.conv = nn.Conv1d(attention, channels, 1)
        self.context = context

    def _hidden(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        """First layer over [x, mean, deviation]; the part of the constant two is computed once, not at each frame."""
        conv, channels = self.tdnn.conv, x_BCT.shape[1]
        if not self.context:
            return self.tdnn(x_BCT)  # type: ignore[no-any-return]
        mean, variance = moments(x_BCT, pad, correction=0)
        constant_B2C1 = torch.cat([mean, _root(variance)], 1)
        constant = functional.conv1d(constant_B2C1, conv.weight[:, channels:], conv.bias)
        hidden = functional.conv1d(x_BCT, conv.weight[:, :channels]) + constant
        return self.tdnn.norm(hidden.relu_())  # type: ignore[no-any-return]

    def forward(self, x_BCT: Tensor, pad: Tensor | None = None) -> Tensor:
        x_BCT = _wide(x_BCT)
        weight_BCT = _attention(self.conv(self._hidden(x_BCT, pad).tanh()), pad)
        mean = (weight_BCT * x_BCT).sum(-1, keepdim=True)
        variance = (weight_BCT * (x_BCT - mean).square()).sum(-1, keepdim=True)
        return torch.cat([mean, _root(variance)], 1).flatten(1)


def _root(variance: Tensor) -> Tensor:
    return variance.clamp(min=1e-12).sqrt()


def _attention(score_BCT: Tensor, pad: Tensor | None) -> Tensor:
    score_BCT = _wide(score_BCT)
    return (score_BCT if pad is None else score_BCT.masked_fill(pad, -torch.inf)).softmax(-1)
