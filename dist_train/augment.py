"""Random changes of training windows, drawn for each sample and applied to the whole batch on the device.

In: waveforms (B, C, T) or features (B, T, F) and their PLAN rows. Out: the same, changed.

Every draw is `uniform(seed, position, name)` on the host, so it does not depend on rank, thread or batch; what reaches
the device is a few numbers a row. Nothing is read back: the host knows all lengths.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import Rows, silence, to_device
from dist_train.order import uniform
from dist_train.resample import Resamplers, speed_ratio
from dist_train.settings import Mixup, SpecAugment
from dist_train.window import PLAIN

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


def speed(wave_RCT: Tensor, plan: Rows, factors: list[Fraction], resamplers: Resamplers) -> Tensor:
    """What `decode` returned for R alike rows -> (R, C, window): each at its row's speed, zeros past its length.

    Equal to `torchaudio.transforms.Speed` on the whole clip, cut afterwards. Labels stay as they are.
    """
    window, factor = int(plan["window"].max()), int(plan["factor"][0])
    if factor != PLAIN and factors[factor] != 1:
        wave_RCT = resamplers.convert(wave_RCT, speed_ratio(factors[factor]), window)
    return silence(wave_RCT[..., :window], np.zeros(len(plan), np.int64), plan["length"].astype(np.int64))


def fill(wave_BCT: Tensor, plan: Rows, short: str, place: Floats) -> Tensor:
    """Clips shorter than their window, by `audio.short`: repeated (tile), moved to a place (random_pad), or left (pad).

    `place` (B,) in [0, 1]: which share of the silence comes before the clip.
    """
    rows = np.flatnonzero(plan["length"] < plan["window"])
    if short == "pad" or not len(rows):
        return wave_BCT
    length, window = plan["length"][rows].astype(np.int64), plan["window"][rows].astype(np.int64)
    offset = (place[rows] * (window - length + 1)).astype(np.int64).clip(0, window - length)
    if wave_BCT.device.type == "cpu":  # slices: an index for every sample would cost as much as the features
        for row, size, end, first in zip(rows, length.clip(1), window, offset, strict=True):
            clip = wave_BCT[row, :, :size].clone()
            if short == "tile":
                wave_BCT[row, :, :end] = clip.repeat(1, -(-end // size))[:, :end]
            else:
                wave_BCT[row, :, :end] = torch.nn.functional.pad(clip, (int(first), int(end - first - size)))
        return wave_BCT
    return _fill_batched(wave_BCT, rows, np.stack([length.clip(1), window, offset]), short == "tile")


def _fill_batched(wave_BCT: Tensor, rows: Ints, spans: Ints, tile: bool) -> Tensor:
    """`fill` of some rows by one gather; `spans` (3, R): length, window and offset."""
    where = to_device(rows, wave_BCT.device)
    table = to_device(spans[:, :, None], wave_BCT.device)
    index = torch.arange(wave_BCT.shape[2], device=wave_BCT.device)
    if tile:
        source, inside = index % table[0], index < table[1]
    else:
        source = index - table[2]
        inside = (source >= 0) & (source < table[0])
    moved = _gather(wave_BCT[where], source.clamp(0, wave_BCT.shape[2] - 1))
    wave_BCT[where] = moved.masked_fill_(~inside[:, None], 0)
    return wave_BCT


def shift(wave_BCT: Tensor, filled: Ints, share: Floats) -> Tensor:
    """Circular shift, in place, of the first `filled` samples of each row by `share` of them (-1 to 1)."""
    steps = np.rint(share * filled).astype(np.int64) % np.maximum(filled, 1)
    if wave_BCT.device.type == "cpu":
        for row, step, end in zip(wave_BCT, steps, filled, strict=True):
            row[:, :end] = row[:, :end].roll(int(step), 1)
        return wave_BCT
    return _shift_batched(wave_BCT, steps, filled)


def _shift_batched(wave_BCT: Tensor, steps: Ints, filled: Ints) -> Tensor:
    table = to_device(np.stack([steps, filled])[:, :, None], wave_BCT.device)
    index = torch.arange(wave_BCT.shape[2], device=wave_BCT.device)
    source = index - table[0]
    source = torch.where(source < 0, source + table[1], source)
    return _gather(wave_BCT, torch.where(index < table[1], source, index))


def _gather(wave_BCT: Tensor, index_BT: Tensor) -> Tensor:
    return wave_BCT.gather(2, index_BT[:, None].expand_as(wave_BCT))


def gains(plan: Rows, target_db: float | None, range_db: tuple[float, float] | None, seed: int) -> Floats | None:
    """(B,) factors: each clip's RMS brought to `target_db` (silent clips stay), then a gain drawn from `range_db`."""
    level = np.zeros(len(plan))
    if target_db is not None:
        rms = plan["rms"].astype(np.float64)
        known = np.isfinite(rms) & (rms > 0)
        level += np.where(known, target_db - 20 * np.log10(np.where(known, rms, 1.0)), 0.0)
    if range_db is not None:
        low, high = range_db
        level += low + (high - low) * uniform(seed, plan["position"], "gain")
    return 10 ** (level / 20) if target_db is not None or range_db is not None else None


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


def mix(wave_BCT: Tensor, partner: Ints, weight: Floats) -> Tensor:
    """weight * wave + (1 - weight) * the partner's wave, all partners as they were before."""
    rows = np.flatnonzero(weight < 1)
    if not len(rows):
        return wave_BCT
    where, other = to_device(np.stack([rows, partner[rows]]), wave_BCT.device)
    share = to_device(weight[rows], wave_BCT.device).to(wave_BCT.dtype)[:, None, None]
    mixed = wave_BCT[where] * share + wave_BCT[other] * (1 - share)
    return wave_BCT.index_copy_(0, where, mixed)


def noise(position: Ints, seed: int, channels: int, samples: int, device: torch.device) -> Tensor:
    """(B, channels, samples) float32 Gaussian noise of deviation 1, a function of seed, position and place alone.

    splitmix64 counts on from each row's key; two uniforms of 24 bits give one normal number (Box and Muller, 1958).
    """
    halves = [(uniform(seed, position, name) * 2**24).astype(np.int64) for name in ("noise high", "noise low")]
    keys = to_device(halves[0] << 32 | halves[1] << 8, device)[:, None]
    z = keys + (torch.arange(channels * samples, device=device) + 1) * _signed(0x9E3779B97F4A7C15)
    for bits, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> bits & (1 << 64 - bits) - 1)) * _signed(factor)
    z = z ^ (z >> 31 & (1 << 33) - 1)
    radius = ((z >> 40 & 0xFFFFFF) + 1).float().mul_(2.0**-24).log_().mul_(-2).sqrt_()
    angle = (z & 0xFFFFFF).float().mul_(2 * np.pi * 2.0**-24)
    return (radius * angle.cos_()).view(-1, channels, samples)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


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
    """SpecAugment: masked bins (in each channel) and frames become `fill`, a number or one a row (B, 1, 1)."""
    frames, bins = feat_BTF.shape[1:]
    in_freq, in_time = _within(freq, bins, feat_BTF.device), _within(time, frames, feat_BTF.device)
    return torch.where(in_freq[:, None, :] | in_time[:, :, None], fill, feat_BTF)


def _within(edges: Ints, size: int, device: torch.device) -> Tensor:
    """(2, B, M) first and end -> (B, size): whether a place lies in any of a row's M spans."""
    first, end = to_device(edges[..., None], device)
    place = torch.arange(size, device=device)
    spans: Tensor = (place >= first) & (place < end)
    return spans.any(1)
