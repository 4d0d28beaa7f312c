"""Vectors -> places on a plane by exact t-SNE (van der Maaten and Hinton 2008, JMLR 9), the same every time.

It begins from the first two principal components (Kobak and Berens 2019, Nature Communications 10:5416) and draws no
random number. All pairs are looked at: 2000 points take a few seconds on a core.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_EARLY, _EARLY_STEPS = 12.0, 100  # exaggeration at first, and for how long
_STEPS = 400
_TINY = 1e-12
_CACHED = 1 << 17  # values at once


def tsne(
    vectors_NE: NDArray[np.float32], perplexity: float = 30.0, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.float64]:
    """(N, 2) places of (N, E) finite vectors; under 5 vectors the principal components themselves."""
    x_NE = torch.from_numpy(np.ascontiguousarray(vectors_NE)).double()
    y_N2 = principal(x_NE)
    if len(x_NE) < 5:
        return y_N2.numpy()
    p_NN = neighbours(x_NE, min(perplexity, (len(x_NE) - 1) / 3)).float()
    y_N2 = (y_N2 / y_N2[:, 0].std().clamp(min=_TINY) * 1e-4).float()
    moved_N2, gains_N2 = torch.zeros_like(y_N2), torch.ones_like(y_N2)
    rate = max(len(x_NE) / _EARLY / 4, 50.0)
    for step in range(_STEPS):
        early = step < _EARLY_STEPS
        slope_N2 = gradient(p_NN, y_N2, _EARLY if early else 1.0)
        turned = (slope_N2 > 0) == (moved_N2 > 0)
        gains_N2 = torch.where(turned, gains_N2 * 0.8, gains_N2 + 0.2).clamp(min=0.01)
        moved_N2 = (0.5 if early else 0.8) * moved_N2 - rate * gains_N2 * slope_N2
        y_N2 = y_N2 + moved_N2
        if progress is not None:
            progress(step + 1, _STEPS)
    return (y_N2 - y_N2.mean(0)).double().numpy()


def principal(x_NE: Tensor) -> Tensor:
    """(N, 2) first two principal components, each with the sign that makes its largest weight positive."""
    centred_NE = x_NE - x_NE.mean(0)
    if x_NE.shape[1] < 2:
        centred_NE = torch.nn.functional.pad(centred_NE, (0, 2 - x_NE.shape[1]))
    _, vectors_EE = torch.linalg.eigh(centred_NE.T @ centred_NE)
    axes_E2 = vectors_EE[:, [-1, -2]]
    largest_2 = axes_E2.gather(0, axes_E2.abs().argmax(0, keepdim=True))
    places_N2: Tensor = centred_NE @ (axes_E2 * largest_2.sign())
    return places_N2


def neighbours(x_NE: Tensor, perplexity: float) -> Tensor:
    """(N, N) symmetric probabilities that sum to 1: of each point a Gaussian whose entropy is log(perplexity)."""
    square_NN = torch.cdist(x_NE, x_NE).square()
    square_NN = square_NN / square_NN.mean().clamp(min=_TINY)
    p_NN = torch.cat([_gaussians(some, start, perplexity) for start, some in _rows(square_NN)])
    return (p_NN + p_NN.T) / (2 * len(x_NE))


def gradient(p_NN: Tensor, y_N2: Tensor, exaggeration: float) -> Tensor:
    """(N, 2) slope of the divergence of Student's t on the plane from `p_NN`."""
    square_N = y_N2.square().sum(1)
    total, pull_N2, push_N2 = torch.zeros(()), torch.empty_like(y_N2), torch.empty_like(y_N2)
    for start, p_RN in _rows(p_NN):
        here_R2 = y_N2[start : start + len(p_RN)]
        own_R1 = square_N[start : start + len(p_RN), None]
        near_RN = torch.addmm(square_N + 1 + own_R1, here_R2, y_N2.T, alpha=-2).clamp_(min=1).reciprocal_()
        near_RN.diagonal(start).zero_()
        total += near_RN.sum()
        for weight_RN, out_N2 in ((p_RN * near_RN, pull_N2), (near_RN.square_(), push_N2)):
            out_N2[start : start + len(p_RN)] = weight_RN.sum(1, keepdim=True) * here_R2 - weight_RN @ y_N2
    return 4 * (exaggeration * pull_N2 - push_N2 / total.clamp(min=_TINY))


def _rows(matrix_NN: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Some rows after the other, few enough for a core's cache."""
    step = max(1, _CACHED // len(matrix_NN))
    return ((start, matrix_NN[start : start + step]) for start in range(0, len(matrix_NN), step))


def _gaussians(square_RN: Tensor, start: int, perplexity: float) -> Tensor:
    """(R, N) probabilities of the neighbours of points `start`, ..., none of the point itself."""
    square_RN = square_RN.clone()
    square_RN.diagonal(start).fill_(torch.inf)
    low_R1 = torch.full((len(square_RN), 1), -20.0, dtype=square_RN.dtype)  # log2 of the precision
    high_R1 = torch.full_like(low_R1, 40.0)
    for _ in range(32):
        middle_R1 = (low_R1 + high_R1) / 2
        p_RN = (square_RN * -(2.0**middle_R1)).softmax(1)
        wide_R1 = torch.special.entr(p_RN).sum(1, keepdim=True) > math.log(perplexity)
        low_R1, high_R1 = torch.where(wide_R1, middle_R1, low_R1), torch.where(wide_R1, high_R1, middle_R1)
    return p_RN
