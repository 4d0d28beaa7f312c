"""An array or tensor of samples -> (frames, channels) float32 of full scale 1, as a decoder would give it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train.recordings import Block, Unreadable

SCALES = {"u1": 2.0**-7, "i2": 2.0**-15, "i4": 2.0**-31, "f2": 1.0, "f4": 1.0, "f8": 1.0}
LOUDEST = 64.0  # full scales; what is louder was never divided by its integers' full scale


def frames(sound: NDArray[Any] | torch.Tensor) -> Block:
    """(T,) or (T, C), as soundfile gives it: float of full scale 1, int16, int32, or uint8 around 128.

    Unreadable, the reason only, for other shapes, types and levels.
    """
    array = sound.detach().cpu() if isinstance(sound, torch.Tensor) else sound
    array = array.float().numpy() if isinstance(array, torch.Tensor) and array.dtype == torch.bfloat16 else array
    array = np.asarray(array)
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind not in SCALES:
        raise Unreadable(f"samples of type {array.dtype}; give float of full scale 1, int16, int32 or uint8")
    if array.ndim not in (1, 2):
        raise Unreadable(f"shape {array.shape}; give (frames,) or (frames, channels), and several sounds as a list")
    if array.ndim == 2 and array.shape[1] > array.shape[0] > 0:
        text = "has more channels than frames; give (frames, channels): turn it by .T"
        raise Unreadable(f"shape {array.shape} {text}, and give several sounds as a list")
    block_TC = array.reshape(len(array), -1 if array.size else 1)
    if kind[0] == "f" and block_TC.size and (peak := float(np.abs(block_TC).max())) > LOUDEST:
        raise Unreadable(f"reaches {peak:g}, and full scale is 1: divide by the integers' full scale, 32768 of int16")
    wide_TC = block_TC.astype(np.float64) - 128 if kind == "u1" else block_TC
    return np.asarray(wide_TC * np.float64(SCALES[kind]) if kind[0] != "f" else wide_TC, np.float32)


def batch(wave: NDArray[Any] | torch.Tensor, channels: int) -> NDArray[np.float32]:
    """(B, T) or (B, T, C) -> (B, T, C) float32. ValueError: another shape, or no samples."""
    array = wave.detach().cpu().float().numpy() if isinstance(wave, torch.Tensor) else np.asarray(wave)
    if array.dtype.kind != "f" or array.ndim not in (2, 3) or 0 in array.shape[1:]:
        kind = f"an array of {array.dtype} and shape {array.shape}"
        raise ValueError(f"{kind}: give waves of float, (batch, frames) or (batch, frames, {channels})")
    return np.ascontiguousarray(array.reshape(*array.shape[:2], -1), np.float32)
