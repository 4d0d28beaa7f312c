"""Poolings over time: (B, C, T) or (B, C, F, T) and the mask of padded frames -> (B, size of the pooled vector).

    TAP   mean                                                C
    TSP   mean, unbiased variance (macls; the paper: std)     2C     Snyder 2018, x-vectors
    TSTP  mean, sqrt(unbiased variance + 1e-8)                2C
    TSDP  sqrt(unbiased variance + 1e-8)                      C      Wang 2021, arXiv 2104.02571
    stats mean, unbiased standard deviation                   2C     CAM++
    SAP   mean weighted by attention, per channel             C      Cai 2018, arXiv 1804.05160
    ASP   mean and deviation weighted by attention            2C     Okabe 2018, arXiv 1803.10963; macls, SpeechBrain
    ASTP  the same without ReLU and BatchNorm in it           2C     3D-Speaker, WeSpeaker

An image (C, F) is flattened channel-major. Padded frames take no part. Statistics are taken in float32 or wider.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

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


def tstp(x: Tensor, pad: Tensor | None = None, epsilon: float = 1e-8) -> Tensor:
    """Mean and unbiased standard deviation, sqrt(variance + epsilon)."""
    mean, variance = moments(x, pad)
    return torch.cat([mean.flatten(1), (variance + epsilon).sqrt().flatten(1)], 1)


def tsdp(x: Tensor, pad: Tensor | None = None, epsilon: float = 1e-8) -> Tensor:
    """Unbiased standard deviation, sqrt(variance + epsilon)."""
    return (moments(x, pad)[1] + epsilon).sqrt().flatten(1)


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
        if not self.context:
            return self.tdnn(x_BCT)  # type: ignore[no-any-return]
        mean, variance = moments(x_BCT, pad, correction=0)
        hidden = _beside(self.tdnn.conv, x_BCT, mean, variance.clamp(min=1e-12).sqrt())
        return self.tdnn.norm(hidden.relu_())  # type: ignore[no-any-return]

    def forward(self, x_BCT: Tensor, pad: Tensor | None = None) -> Tensor:
        x_BCT = _wide(x_BCT)
        return _weighted(_attention(self.conv(self._hidden(x_BCT, pad).tanh()), pad), x_BCT, 1e-12)


class ASTP(nn.Module):
    """Mean and deviation weighted by softmax over time of W2 tanh(W1 x). (B, C, T) or (B, C, F, T) -> (B, 2 C F).

    `context`: W1 sees the clip's mean and unbiased deviation, sqrt(variance + epsilon), beside each frame. Given is
    the deviation sqrt(max(variance, epsilon)). The references take the variance as E[x^2] - E[x]^2, which in float32
    is off by 2e-4 where a channel hardly varies; this is the same number without that loss.
    """

    def __init__(self, channels: int, attention: int = 128, context: bool = False, epsilon: float = 1e-10) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels * 3 if context else channels, attention, 1)
        self.linear2 = nn.Conv1d(attention, channels, 1)
        self.context, self.epsilon = context, epsilon

    def _hidden(self, x_BCT: Tensor, pad: Tensor | None) -> Tensor:
        """First layer over [x, mean, deviation]; the part of the constant two is computed once, not at each frame."""
        if not self.context:
            return self.linear1(x_BCT)  # type: ignore[no-any-return]
        mean, variance = moments(x_BCT, pad)
        return _beside(self.linear1, x_BCT, mean, (variance + self.epsilon).sqrt())

    def forward(self, x: Tensor, pad: Tensor | None = None) -> Tensor:
        x_BCT = _wide(x.flatten(1, -2))
        pad = pad if pad is None else pad.flatten(1, -2)
        weight_BCT = _attention(self.linear2(self._hidden(x_BCT, pad).tanh()), pad)
        return _weighted(weight_BCT, x_BCT, self.epsilon)


class Pooled(NamedTuple):
    """A pooling, the size of what it gives, and the frames that it needs."""

    pool: Callable[[Tensor, Tensor | None], Tensor]
    size: int
    least: int


ATTENTIVE = ("asp", "astp")  # whose attention has a width and may see the clip's mean and deviation


def choose(
    model: str,
    name: str,
    allowed: Sequence[str],
    channels: int,
    *,
    attention: int = 128,
    context: bool = True,
    epsilon: float | None = None,
) -> Pooled:
    """The pooling of that name over `channels`. ValueError, naming the `model`, if it is not one of `allowed`.

    `attention`, `context`: of asp and astp. `epsilon` (WeSpeaker 1e-7): of tstp and tsdp (1e-8) and astp (1e-10).
    """
    if name not in allowed:
        raise ValueError(f"model.pooling of {model} is {name!r}: take one of {', '.join(allowed)}")
    if attention < 1:
        raise ValueError(f"model.attention of {model} is {attention}: take a positive number (128)")
    small, smaller = (1e-8, 1e-10) if epsilon is None else (epsilon, epsilon)
    poolings: dict[str, Callable[[], Pooled]] = {
        "asp": lambda: Pooled(ASP(channels, attention, context), 2 * channels, 1),
        "sap": lambda: Pooled(SAP(channels), channels, 1),
        "tsp": lambda: Pooled(tsp, 2 * channels, 2),
        "tap": lambda: Pooled(tap, channels, 1),
        "tstp": lambda: Pooled(partial(tstp, epsilon=small), 2 * channels, 2),
        "tsdp": lambda: Pooled(partial(tsdp, epsilon=small), channels, 2),
        "astp": lambda: Pooled(ASTP(channels, attention, context, smaller), 2 * channels, 2 if context else 1),
    }
    return poolings[name]()


def _beside(conv: nn.Conv1d, x_BCT: Tensor, mean_BC1: Tensor, deviation_BC1: Tensor) -> Tensor:
    """A 1x1 convolution of [x, mean, deviation], (B, 3C, T), of which only x varies over time."""
    channels = x_BCT.shape[1]
    constant_B2C1 = torch.cat([mean_BC1, deviation_BC1], 1)
    constant = functional.conv1d(constant_B2C1, conv.weight[:, channels:], conv.bias)
    return functional.conv1d(x_BCT, conv.weight[:, :channels]) + constant


def _weighted(weight_BCT: Tensor, x_BCT: Tensor, least: float) -> Tensor:
    """Mean and deviation under weights that sum to 1 over time, (B, 2C); a variance counts as `least` at least."""
    mean = (weight_BCT * x_BCT).sum(-1, keepdim=True)
    variance = (weight_BCT * (x_BCT - mean).square()).sum(-1, keepdim=True)
    return torch.cat([mean, variance.clamp(min=least).sqrt()], 1).flatten(1)


def _attention(score_BCT: Tensor, pad: Tensor | None) -> Tensor:
    score_BCT = _wide(score_BCT)
    return (score_BCT if pad is None else score_BCT.masked_fill(pad, -torch.inf)).softmax(-1)
