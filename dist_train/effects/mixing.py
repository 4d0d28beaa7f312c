"""Mixup and CutMix of two windows of a group: what is drawn for each row, and the CPU's way to apply it, row by row.

In: PLAN rows; waveforms (B, C, T), or features (B, T, F) for CutMix of boxes. Out: draws; the same, changed in place.

A row has one of them or neither: one draw decides, as in timm. `batched` takes the same draws to an accelerator.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dist_train.decode import Rows
from dist_train.effects.acoustics import loudness
from dist_train.effects.chosen import Floats, Ints
from dist_train.order import uniform
from dist_train.settings import Augment


class Pairs(NamedTuple):
    """partner: (B,) the other row, its own where there is none. weight: (B,) of the row's own label, 1 where it is
    alone. share: (B,) of the row's own sound in mixup, else 1. span: (2, B) first and end sample that are the
    partner's. box: (4, B) first and end frame, first and end bin that are."""

    partner: Ints
    weight: Floats
    share: Floats
    span: Ints
    box: Ints

    def until(self, filled: Ints) -> Ints:
        """(B,) samples that count afterwards: of a sum, those of the longer."""
        return np.where(self.share < 1, np.maximum(filled, filled[self.partner]), filled)


def alone(rows: int) -> Pairs:
    """Nothing is mixed."""
    one, none = np.ones(rows, np.float32), np.zeros((4, rows), np.int64)
    return Pairs(np.arange(rows), one, one, none[:2], none)


def pairs(plan: Rows, augment: Augment, filled: Ints, valid: Callable[[Ints], Ints], bins: int, seed: int) -> Pairs:
    """The draws of a group. `filled`: (B,) samples of each row that count; `valid`: their frames, each of `bins`.

    The partner is another row of the same group. A bad sample is nobody's partner: its sound is not its label's.
    """
    mixup, cut = augment.mixup, augment.cutmix
    if mixup.probability + cut.probability == 0 or len(plan) < 2:
        return alone(len(plan))
    rows, position = np.arange(len(plan)), plan["position"]
    step = (uniform(seed, position, "mixup partner") * (len(plan) - 1)).astype(np.int64).clip(0, len(plan) - 2)
    partner = (rows + 1 + step) % len(plan)
    draw, good = uniform(seed, position, "mixup"), (plan["weight"] > 0) & (plan["weight"][partner] > 0)
    mixed = good & (draw < mixup.probability)
    replaced = good & (draw >= mixup.probability) & (draw < mixup.probability + cut.probability)
    share = np.where(mixed, _beta(uniform(seed, position, "mixup weight"), mixup.alpha), 1.0).astype(np.float32)
    kept = np.ones(len(plan))
    if cut.probability > 0:
        kept = np.where(replaced, _beta(uniform(seed, position, "cutmix weight"), cut.alpha), 1.0)
    span, box = alone(len(plan))[3:]
    if cut.part == "time":
        span = _span(1 - kept, np.minimum(filled, filled[partner]), uniform(seed, position, "cutmix start"))
        taken = (span[1] - span[0]) / filled.clip(1)
    else:
        frames, side = valid(filled), np.sqrt(1 - kept)  # both sides shrink alike, as in the paper
        time = _span(side, np.minimum(frames, frames[partner]), uniform(seed, position, "cutmix start"))
        line = _span(side, np.full(len(plan), bins), uniform(seed, position, "cutmix bin"))
        box = np.concatenate([time, line])
        taken = (time[1] - time[0]) * (line[1] - line[0]) / (frames * bins)
    weight = (share * (1 - taken)).astype(np.float32)
    return Pairs(np.where(mixed | (weight < 1), partner, rows), weight, share, span, box)


def _span(part: Floats, room: Ints, draw: Floats) -> Ints:
    """(2, B) first and end of `part` of the room, somewhere in it."""
    width = np.rint(part * room).astype(np.int64)
    first = np.minimum((draw.astype(np.float64) * (room - width + 1)).astype(np.int64), room - width)
    return np.stack([first, first + width])


def _beta(draw: Floats, alpha: float) -> Floats:
    """Beta(alpha, alpha) by its inverse distribution function, a table of the lower half, mirrored."""
    chance, value = _beta_table(alpha)
    lower = np.interp(np.minimum(draw, 1 - draw), chance, value) ** (1 / min(alpha, 1))
    return np.asarray(np.where(draw < 0.5, lower, 1 - lower))


@lru_cache(maxsize=8)
def _beta_table(alpha: float) -> tuple[Floats, Floats]:
    """P(X < v ** (1 / power)) on a grid of v up to the median: with power = alpha under 1 the density of v is finite at
    0, and with 1 above that it is X's own, smooth all over. Its largest value is about 1: no power of it overflows."""
    power = min(alpha, 1)
    value = np.linspace(0, 0.5**power, 4097)
    place = value ** (1 / power)
    density = (4 * place * (1 - place)) ** (alpha - power) * (1 - place) ** (power - 1)
    chance = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return 0.5 * chance / chance[-1], value


def mix(wave_BCT: Tensor, pairs: Pairs, kind: str = "linear", rate: int = 16000) -> Tensor:
    """Mixup of the rows whose share r is under 1, CutMix of those with a span, all partners as they were before.

    linear          r x1 + (1 - r) x2
    between_class   (p x1 + (1 - p) x2) / sqrt(p^2 + (1 - p)^2), p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r)

    So r is a ratio of sound pressures: G is the loudest frame's A-weighted level, dB, at `rate` Hz, and sounds of equal
    energy keep it (Tokozume, Ushiku, Harada 2018, arXiv 1711.10282). Labels keep r either way.
    """
    rows, partner = np.flatnonzero(pairs.share < 1), pairs.partner
    share = torch.from_numpy(pairs.share[rows]).to(wave_BCT.dtype)
    own, rest = share, 1 - share
    if kind == "between_class" and len(rows):
        own, rest = _by_pressure(wave_BCT, rows, partner[rows], share, rate)
    # Row by row: copies of the whole batch would cost three times as much.
    mixed = [
        wave_BCT[row] * mine + wave_BCT[mate] * theirs
        for row, mate, mine, theirs in zip(rows.tolist(), partner[rows].tolist(), own, rest, strict=True)
    ]
    pieces = [
        (row, slice(*ends), wave_BCT[mate, :, slice(*ends)].clone())
        for row, (mate, ends) in enumerate(zip(partner.tolist(), pairs.span.T.tolist(), strict=True))
        if ends[0] < ends[1]
    ]  # before any row changes
    for row, mixed_CT in zip(rows.tolist(), mixed, strict=True):
        wave_BCT[row] = mixed_CT
    for row, place, piece_CT in pieces:
        wave_BCT[row, :, place] = piece_CT
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


def cut_boxes(feat_BTF: Tensor, partner: Ints, box: Ints, bins: int) -> Tensor:
    """CutMix of boxes, in place, in each channel of `bins`, all partners as they were before."""
    parts_BTCF = feat_BTF.view(*feat_BTF.shape[:2], -1, bins)
    pieces = [
        (row, slice(*ends[:2]), slice(*ends[2:]), parts_BTCF[mate, slice(*ends[:2]), :, slice(*ends[2:])].clone())
        for row, (mate, ends) in enumerate(zip(partner.tolist(), box.T.tolist(), strict=True))
        if ends[0] < ends[1] and ends[2] < ends[3]
    ]
    for row, frames, line, piece_TCF in pieces:
        parts_BTCF[row, frames, :, line] = piece_TCF
    return feat_BTF
