"""PLAN rows and a group's draws -> columns of numbers, one a row, on the device by one copy.

In: named host arrays (B,). Out: (I, B) int64 and (F, B) floats, and the names in their order. All draws are those of
`augment`, by the same names, so the group becomes what the row-by-row code makes of it.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import augment as change
from dist_train.decode import Rows, to_device
from dist_train.effects import masks
from dist_train.effects.gaussian import noise_keys
from dist_train.effects.mixing import Pairs
from dist_train.order import uniform
from dist_train.resample import Ratio
from dist_train.settings import Audio, Augment, CutMix

FAR = 2**30  # past any window, and within 32 bits

Ints = NDArray[np.int64]
Named = dict[str, NDArray[Any]]


def to_columns(whole: Named, part: Named, rows: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(I, rows) int64 and (F, rows) `dtype`, views of one buffer that was copied once; spare rows repeat the first."""
    number = np.float64 if dtype == torch.float64 else np.float32
    ints = _spare(np.stack(list(whole.values())).astype(np.int64), rows)
    floats = _spare(np.stack(list(part.values())).astype(number), rows)
    packed = np.concatenate([ints.reshape(-1).view(np.uint8), floats.reshape(-1).view(np.uint8)])
    data = to_device(packed, device)
    return (
        data[: ints.nbytes].view(torch.int64).view(ints.shape),
        data[ints.nbytes :].view(dtype).view(floats.shape),
    )


def _spare(table: NDArray[Any], rows: int) -> NDArray[Any]:
    count = table.shape[1]
    return np.concatenate([table, np.repeat(table[:, :1], rows - count, axis=1)], axis=1) if rows > count else table


def bytes_columns(plan: Rows, pitch: int) -> Named:
    """Where each row's bytes lie and what they are; `low` and `high` bound the frames that the clip has."""
    first, frames = plan["first"], plan["frames"].astype(np.int64)
    return {
        "byte": np.arange(len(plan)) * pitch,
        "codec": plan["codec"],
        "channels": plan["channels"],
        "low": np.maximum(-first, 0),
        "high": np.minimum(frames - first, plan["count"]).clip(0),
    }


def rate_columns(plan: Rows, ratios: list[Ratio], conversions: Ints, number: Ints) -> Named:
    """Stage 1: conversion `number` of each row, samples to drop, and the first and end sample that the clip has."""
    width = np.array([ratio.width for ratio in ratios])[number]
    orig, new, _ = columns = conversions[number].T
    start = (plan["first"] + width) // orig * new + plan["drop"]  # place in the clip of the first sample that is kept
    end = -(-plan["frames"].astype(np.int64) * new // orig)
    low, high = (np.clip(edge, -FAR, FAR) for edge in (-start, end - start))
    bounds = {"drop": plan["drop"], "rate low": low, "rate high": high}
    return bounds | {f"rate {place}": values for place, values in enumerate(columns)}


def fill_columns(plan: Rows, audio: Audio, samples: int, training: bool, seed: int) -> Named:
    """Sample t of a window comes from sample (t - offset) mod period of its clip, if that lies under `length`."""
    length, window = plan["length"].astype(np.int64), plan["window"].astype(np.int64)
    offset, period = np.zeros(len(plan), np.int64), np.full(len(plan), samples + 1)
    short = length < window
    if audio.short == "tile":
        period = np.where(short, length.clip(1), period)
    elif audio.short == "random_pad":
        place = uniform(seed, plan["position"], "place") if training else np.full(len(plan), 0.5)
        drawn = (place * (window - length + 1)).astype(np.int64).clip(0, np.maximum(window - length, 0))
        offset = np.where(short, drawn, 0)
    return {"length": length, "window": window, "offset": offset, "period": period}


def change_columns(plan: Rows, filled: Ints, augment: Augment, dither: bool, seed: int) -> Named:
    """Shift and dither."""
    steps = np.zeros(len(plan), np.int64)
    if augment.shift > 0:
        steps = change.shift_steps(filled, change.shifts(plan, augment, seed))
    columns: Named = {"steps": steps, "filled": filled}
    if dither:
        columns["key"] = noise_keys(plan["position"], seed)
    return columns


def add_cuts(whole: Named, part: Named, pairs: Pairs, settings: CutMix) -> None:
    """CutMix: what of each row is its partner's, and the row's share in mixup, which is not its label's then."""
    if settings.probability > 0:
        edges = pairs.span if settings.part == "time" else pairs.box
        whole |= {f"cut {edge}": values for edge, values in enumerate(edges)}
        part["share"] = pairs.share


def mask_columns(plan: Rows, frames: Ints, bins: int, augment: Augment, seed: int) -> Named:
    """First and end of each mask, and where the noise in it begins."""
    if augment.spec is None:
        return {}
    keys = masks.mask_keys(plan, augment.spec, seed)
    edges = zip(("freq", "time"), masks.bands(plan, frames, bins, augment.spec, seed), strict=True)
    columns: Named = {
        f"{kind} {end} {mask}": bands[side, :, mask]
        for kind, bands in edges
        for mask in range(bands.shape[2])
        for side, end in enumerate(("first", "end"))
    }
    return columns if keys is None else columns | {"mask key": keys}
