"""Features -> normalised features; and the statistics that norm=dataset uses.

In: features (B, T, F) and the valid frames of each row. Out: the same shape, zeros in the frames past a row's own.

`cmn` and `cmvn` are over the frames of an utterance, bin by bin; `clip` over all of it, bins and channels together, one
mean and deviation (whitening); `batch` one over the whole batch; `dataset` bin by bin with fixed statistics. The
deviation of `clip` and `batch` is the unbiased one (over n - 1 values), of `cmvn` and `dataset` the plain one.
"""

import math

import torch
from torch import Tensor

FLOOR = 1e-10  # under a variance: a constant bin becomes zeros
SHARE = 1e-12  # of a squared mean, the least variance of a clip: linear powers of a quiet one are far below FLOOR
TINY = 1e-37
POINT = 2.0**-16  # features are summed in these units, in whole numbers: exact, so in any order and on any ranks


def normalise(feat_BTF: Tensor, frames_B: Tensor | None, norm: str, statistics_2F: Tensor | None = None) -> Tensor:
    """Normalised in place. `frames_B` (B,) counts valid frames, None: all are."""
    if frames_B is None:
        return _apply(feat_BTF, None, norm, statistics_2F)
    valid = torch.arange(feat_BTF.shape[1], device=feat_BTF.device) < frames_B[:, None]
    tail = ~valid[:, :, None]
    feat_BTF.masked_fill_(tail, 0)
    return _apply(feat_BTF, valid[:, :, None], norm, statistics_2F).masked_fill_(tail, 0)


def _apply(feat_BTF: Tensor, valid: Tensor | None, norm: str, statistics_2F: Tensor | None) -> Tensor:
    if norm == "none":
        return feat_BTF
    if norm == "dataset":
        assert statistics_2F is not None
        mean, deviation = statistics_2F.to(feat_BTF.dtype)
        return feat_BTF.sub_(mean).div_(deviation)
    over = {"cmn": (1,), "cmvn": (1,), "clip": (1, 2), "batch": (0, 1, 2)}[norm]
    mean = _mean(feat_BTF, valid, over)
    feat_BTF.sub_(mean)
    if norm == "cmn":
        return feat_BTF
    squares = feat_BTF.square() if valid is None else feat_BTF.square() * valid
    if norm == "cmvn":
        return feat_BTF.div_(_mean(squares, valid, over).clamp_(min=FLOOR).sqrt_())
    variance = _mean(squares, valid, over, fewer=1)
    return feat_BTF.div_(variance.maximum(mean.square() * SHARE).clamp_(min=TINY).sqrt_())


def _mean(feat_BTF: Tensor, valid: Tensor | None, over: tuple[int, ...], fewer: int = 0) -> Tensor:
    """Sum over valid frames (all others must be zero), divided by how many values there are, less `fewer`."""
    if valid is None:
        if not fewer:
            return feat_BTF.mean(over, keepdim=True)
        return feat_BTF.sum(over, keepdim=True) / max(1, math.prod(feat_BTF.shape[axis] for axis in over) - fewer)
    count = valid.sum([axis for axis in over if axis != 2], keepdim=True)
    return feat_BTF.sum(over, keepdim=True) / (count * (feat_BTF.shape[2] if 2 in over else 1) - fewer).clamp_(min=1)


def frame_sums(feat_BTF: Tensor, frames_B: Tensor | None, weight_B: Tensor) -> Tensor:
    """(3, F) int64 of the rows with weight: frames, sum and sum of squares in units of POINT. They add up."""
    good = weight_B[:, None, None] > 0
    if frames_B is not None:
        good = good & (torch.arange(feat_BTF.shape[1], device=feat_BTF.device) < frames_B[:, None])[:, :, None]
    exact = torch.where(good, feat_BTF, 0).cpu().double()
    count = good.expand_as(feat_BTF).sum((0, 1)).cpu()
    sums = [(values / POINT).round_().long().sum((0, 1)) for values in (exact, exact.square())]
    return torch.stack([count, *sums])


def statistics(sums_3F: Tensor) -> Tensor:
    """(2, F) float64: mean and deviation of each bin, from the sums over a whole view. ValueError without a frame."""
    if not sums_3F[0].any():
        raise ValueError("features.norm=dataset: the training view has no readable frame; check its shards")
    count, total, squares = sums_3F.double()
    mean = total * POINT / count
    variance = (squares * POINT / count - mean.square()).clamp_(min=FLOOR)
    return torch.stack([mean, variance.sqrt()])
