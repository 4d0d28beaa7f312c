"""Random changes of training windows: what is drawn for each row, and the CPU's way to apply it, row by row.

In: PLAN rows; waveforms (B, C, T) or features (B, T, F). Out: draws; the same, changed in place.

Every draw is `uniform(seed, position, name)` on the host, so it does not depend on rank, thread or batch. `batched`
takes the same draws to an accelerator, as a few numbers a row.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.acoustics import loudness
from dist_train.decode import Rows
from dist_train.order import uniform
from dist_train.settings import Audio, Augment, Mixup, SpecAugment

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


def shift(wave_BCT: Tensor, filled: Ints, share: Floats) -> Tensor:
    """Circular shift, in place, of the first `filled` samples of each row by `share` of them (-1 to 1)."""
    for row, step, end in zip(wave_BCT, shift_steps(filled, share).tolist(), filled.tolist(), strict=True):
        row[:, :end] = row[:, :end].roll(step, 1)
    return wave_BCT


def shift_steps(filled: Ints, share: Floats) -> Ints:
    """(B,) samples by which each row is shifted, from 0 on and under `filled`."""
    return np.asarray(np.rint(share * filled).astype(np.int64) % np.maximum(filled, 1))


def gains(
    plan: Rows, target_db: float | None, range_db: tuple[float, float] | None, seed: int, probability: float = 1.0
) -> Floats | None:
    """(B,) factors: each clip's RMS brought to `target_db` (silent clips stay), then a gain drawn from `range_db`.

    `probability`: the share of rows that get the drawn gain.
    """
    level = np.zeros(len(plan))
    if target_db is not None:
        rms = plan["rms"].astype(np.float64)
        known = np.isfinite(rms) & (rms > 0)
        level += np.where(known, target_db - 20 * np.log10(np.where(known, rms, 1.0)), 0.0)
    if range_db is not None:
        low, high = range_db
        chosen = uniform(seed, plan["position"], "gain chosen") < probability
        level += np.where(chosen, low + (high - low) * uniform(seed, plan["position"], "gain"), 0.0)
    return 10 ** (level / 20) if target_db is not None or range_db is not None else None


def levels(
    plan: Rows, audio: Audio, augment: Augment, seed: int, training: bool
) -> tuple[Floats | None, Floats | None]:
    """(B,) factors before reverb and noise, and after them; None: all are 1.

    The random gain comes first where the level is the clip's (reverb and noise at a ratio keep it), and last where it
    is the window's, which would undo it.
    """
    drawn = augment.gain_db if training else None
    if audio.target_db is not None and audio.level == "crop":
        return None, gains(plan, None, drawn, seed, augment.gain_probability)
    return gains(plan, audio.target_db, drawn, seed, augment.gain_probability), None


def shifts(plan: Rows, augment: Augment, seed: int) -> Floats:
    """(B,) share of each window by which it is shifted, -1 to 1."""
    position = plan["position"]
    share = augment.shift * (2 * uniform(seed, position, "shift").astype(np.float64) - 1)
    if augment.shift_probability < 1:
        share *= uniform(seed, position, "shift chosen") < augment.shift_probability
    return share


def mix_pairs(plan: Rows, settings: Mixup, seed: int) -> tuple[Ints, Floats]:
    """(B,) the row that each row is mixed with, and (B,) the row's own weight, 1 where it is not mixed.

    The partner is another row of the same group. A bad sample is nobody's partner: its sound is not its label's.
    """
    rows, position = np.arange(len(plan)), plan["position"]
    alone = (rows, np.ones(len(plan), np.float32))
    if settings.probability == 0 or len(plan) < 2:
        return alone
    step = (uniform(seed, position, "mixup partner") * (len(plan) - 1)).astype(np.int64).clip(0, len(plan) - 2)
    partner = (rows + 1 + step) % len(plan)
    chosen = uniform(seed, position, "mixup") < settings.probability
    chosen &= (plan["weight"] > 0) & (plan["weight"][partner] > 0)
    weight = _beta(uniform(seed, position, "mixup weight"), settings.alpha)
    return np.where(chosen, partner, rows), np.where(chosen, weight, 1.0).astype(np.float32)


def _beta(draw: Floats, alpha: float) -> Floats:
    """Beta(alpha, alpha) by its inverse distribution function, a table of the lower half, mirrored."""
    chance, value = _beta_table(alpha)
    lower = np.interp(np.minimum(draw, 1 - draw), chance, value) ** (1 / alpha)
    return np.asarray(np.where(draw < 0.5, lower, 1 - lower))


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> tuple[Floats, Floats]:
    """P(X < v ** (1 / alpha)) on a grid of v up to the median. With v = x ** alpha the density at 0 is finite."""
    value = np.linspace(0, 0.5**alpha, 4097)
    density = (1 - value ** (1 / alpha)) ** (alpha - 1)
    chance = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return 0.5 * chance / chance[-1], value


def mix(wave_BCT: Tensor, partner: Ints, weight: Floats, kind: str = "linear", rate: int = 16000) -> Tensor:
    """Mixup of the rows whose weight r is under 1 with their partners, all partners as they were before.

    linear          r x1 + (1 - r) x2
    between_class   (p x1 + (1 - p) x2) / sqrt(p^2 + (1 - p)^2), p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r)

    So r is a ratio of sound pressures: G is the loudest frame's A-weighted level, dB, at `rate` Hz, and sounds of equal
    energy keep it (Tokozume, Ushiku, Harada 2018, arXiv 1711.10282). Labels keep r either way.
    """
    rows = np.flatnonzero(weight < 1)
    if not len(rows):
        return wave_BCT
    share = torch.from_numpy(weight[rows]).to(wave_BCT.dtype)
    own, rest = share, 1 - share
    if kind == "between_class":
        own, rest = _by_pressure(wave_BCT, rows, partner[rows], share, rate)
    # Row by row: copies of the whole batch would cost three times as much.
    pairs = zip(rows.tolist(), partner[rows].tolist(), own, rest, strict=True)
    mixed = [wave_BCT[row] * mine + wave_BCT[mate] * theirs for row, mate, mine, theirs in pairs]
    for row, mixed_CT in zip(rows.tolist(), mixed, strict=True):
        wave_BCT[row] = mixed_CT
    return wave_BCT


def _by_pressure(wave_BCT: Tensor, rows: Ints, others: Ints, share_R: Tensor, rate: int) -> tuple[Tensor, Tensor]:
    """The factors of the rows and of their partners in between-class mixing; each row is measured once."""
    heard, places = np.unique(np.concatenate([rows, others]), return_inverse=True)
    loud = loudness(wave_BCT[torch.from_numpy(heard)], rate)
    first, second = loud[torch.from_numpy(places)].view(2, -1)
    return pressures(first, second, share_R)


def pressures(own: Tensor, other: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Factors on two sounds of `loudness` own and other, mixed between classes as `share` to 1 - share; 1, 0 at 1."""
    part = share * other / (share * other + (1 - share) * own)  # p, without a division by r, which may be 0
    norm = (part.square() + (1 - part).square()).sqrt()
    return part / norm, (1 - part) / norm


def bands(plan: Rows, frames: Ints, bins: int, settings: SpecAugment, seed: int) -> tuple[Ints, Ints]:
    """(2, B, freq_masks) and (2, B, time_masks): first and end of each row's masked bins and frames; empty ones alike.

    Widths are uniform from 0 to the widest, time masks within the row's own frames.
    """
    position = plan["position"]
    masked = uniform(seed, position, "spec") < settings.probability
    wide = np.minimum(settings.freq_width, bins) * masked
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
    """SpecAugment, in place: masked bins (in each channel) and frames become `fill`, a number or (B, 1, 1)."""
    levels = [fill] * len(feat_BTF) if isinstance(fill, float) else fill.flatten().tolist()
    spans = zip(feat_BTF, freq.swapaxes(0, 1).tolist(), time.swapaxes(0, 1).tolist(), levels, strict=True)
    for row_TF, bins, frames, value in spans:
        for first, end in zip(*bins, strict=True):
            if first < end:
                row_TF[:, first:end] = value
        for first, end in zip(*frames, strict=True):
            if first < end:
                row_TF[first:end] = value
    return feat_BTF
