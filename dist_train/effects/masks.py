"""SpecAugment (Park 2019, arXiv 1904.08779): which bins and frames of each row are masked, and what they become.

In: PLAN rows, features (B, T, F). Out: draws; the features with masks, which the CPU fills row by row.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import Rows
from dist_train.effects.gaussian import gaussian, noise_keys
from dist_train.order import uniform
from dist_train.settings import SpecAugment

Ints = NDArray[np.int64]


def mask_keys(plan: Rows, settings: SpecAugment, seed: int) -> Ints | None:
    """(B,) where the noise of fill=noise begins, or None."""
    return noise_keys(plan["position"], seed, "spec noise") if settings.fill == "noise" else None


def bands(plan: Rows, frames: Ints, bins: int, settings: SpecAugment, seed: int) -> tuple[Ints, Ints]:
    """(2, B, freq_masks) and (2, B, time_masks): first and end of each row's masked bins and frames; empty ones alike.

    Widths are uniform from 0 to the widest, time masks within the row's own frames.
    """
    position = plan["position"]
    masked = uniform(seed, position, "spec") < settings.probability
    widest = settings.freq_width if isinstance(settings.freq_width, int) else int(settings.freq_width * bins)
    wide = np.minimum(widest, bins) * masked
    long = (settings.time_width * frames).astype(np.int64) * masked
    freq = [_band(position, seed, f"spec freq {mask}", wide, bins) for mask in range(settings.freq_masks)]
    time = [_band(position, seed, f"spec time {mask}", long, frames) for mask in range(settings.time_masks)]
    return _stack(freq, len(plan)), _stack(time, len(plan))


def _band(position: Ints, seed: int, name: str, widest: Ints, size: Ints | int) -> Ints:
    width = np.minimum((uniform(seed, position, f"{name} width") * (widest + 1)).astype(np.int64), widest)
    room = np.asarray(size) - width
    start = np.minimum((uniform(seed, position, f"{name} start") * (room + 1)).astype(np.int64), room)
    return np.stack([start, start + width])


def _stack(masks: list[Ints], rows: int) -> Ints:
    return np.stack(masks, axis=-1) if masks else np.zeros((2, rows, 0), np.int64)


def mask(feat_BTF: Tensor, freq: Ints, time: Ints, fill: Tensor | float) -> Tensor:
    """In place: masked bins (in each channel) and frames become `fill`, a number, (B, 1, 1) or (B, T, F)."""
    whole = isinstance(fill, Tensor) and fill.dim() == 3 and fill.shape[1:].numel() > 1
    levels = [fill] * len(feat_BTF) if isinstance(fill, float) else list(fill) if whole else fill.flatten().tolist()
    spans = zip(feat_BTF, freq.swapaxes(0, 1).tolist(), time.swapaxes(0, 1).tolist(), levels, strict=True)
    for row_TF, bins, frames, value in spans:
        for first, end in zip(*bins, strict=True):
            if first < end:
                row_TF[:, first:end] = value[:, first:end] if whole else value
        for first, end in zip(*frames, strict=True):
            if first < end:
                row_TF[first:end] = value[first:end] if whole else value
    return feat_BTF


def filling(feat_BTF: Tensor, frames_B: Tensor, fill: str, key_B: Tensor | None) -> Tensor | float:
    """What masked values become: 0, the mean (B, 1, 1) over a row's `frames_B` frames, whose tail is zero, or noise
    (B, T, F) of that mean and deviation, counted from `key_B`."""
    if fill == "zero":
        return 0.0
    count = (frames_B[:, None, None] * feat_BTF.shape[2]).clamp(min=1)
    mean = feat_BTF.sum((1, 2), keepdim=True) / count
    if key_B is None:
        return mean
    spread = (feat_BTF.square().sum((1, 2), keepdim=True) / count - mean.square()).clamp(min=0).sqrt()
    return mean + spread * gaussian(key_B, *feat_BTF.shape[1:]).to(feat_BTF.dtype)
