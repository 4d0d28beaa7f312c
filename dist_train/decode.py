"""PCM bytes -> float samples, on the device; and channels.

In: bytes (R, row_bytes) as the reader leaves them. Out: (R, channels, frames). PCM is exact: equal, bit for bit, to
what soundfile reads as float32 (or float64).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.archive.row import CODECS

Rows = NDArray[Any]  # of window.PLAN

_DIRECT = {  # codec -> (type that the bytes are read as, full scale)
    CODECS.S16: (torch.int16, 2.0**-15),
    CODECS.S32: (torch.int32, 2.0**-31),
    CODECS.F16: (torch.float16, 1.0),
    CODECS.F32: (torch.float32, 1.0),
    CODECS.F64: (torch.float64, 1.0),
}


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A host array on the device; from pinned memory, so that the host does not wait for the copy."""
    host = torch.from_numpy(np.ascontiguousarray(array))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def pcm(data: Tensor, codec: CODECS, channels: int, frames: int, dtype: torch.dtype) -> Tensor:
    """(R, row_bytes) uint8, interleaved little-endian PCM -> (R, channels, frames) in [-1, 1), a view of (R, T, C)."""
    width = frames * channels
    if codec in _DIRECT:
        kind, scale = _DIRECT[codec]
        values = data.view(kind)[:, :width].to(dtype, copy=True)
        values = values if scale == 1.0 else values.mul_(scale)
    elif codec == CODECS.S24:
        low, middle, high = data[:, : width * 3].reshape(-1, width, 3).unbind(2)
        whole = high.view(torch.int8).int() * 65536 + middle.int() * 256 + low.int()
        values = whole.to(dtype).mul_(2.0**-23)
    elif codec == CODECS.U8:
        values = (data[:, :width].to(dtype) - 128.0).mul_(2.0**-7)
    else:
        table = {CODECS.MULAW: mulaw_table, CODECS.ALAW: alaw_table}[codec]()
        values = to_device(table, data.device).to(dtype)[data[:, :width].int()]
    return values.reshape(-1, frames, channels).transpose(1, 2)


def mulaw_table() -> NDArray[np.float32]:
    """(256,) values of mu-law codes (ITU-T G.711), full scale 1."""
    code = ~np.arange(256, dtype=np.uint8)
    level = ((code & 15).astype(np.int32) * 8 + 132 << (code >> 4 & 7)) - 132
    return (np.where(code & 128, -level, level) / 32768).astype(np.float32)


def alaw_table() -> NDArray[np.float32]:
    """(256,) values of A-law codes (ITU-T G.711), full scale 1."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    step, mantissa = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32) * 16
    level = np.where(step == 0, mantissa + 8, mantissa + 264 << np.maximum(step - 1, 0))
    return (np.where(code & 128, level, -level) / 32768).astype(np.float32)


def mix(wave_RCT: Tensor, channels: str | int) -> Tensor:
    """(R, C, T) -> (R, 1, T) by mean or first channel, or (R, N, T): a clip of fewer channels repeats them."""
    if channels == "first" or (channels == "mono" and wave_RCT.shape[1] == 1):
        return wave_RCT[:, :1]
    if channels == "mono":
        return wave_RCT.mean(1, keepdim=True)
    assert isinstance(channels, int)
    if channels == wave_RCT.shape[1]:
        return wave_RCT
    kept = [channel % wave_RCT.shape[1] for channel in range(channels)]
    return torch.stack([wave_RCT[:, channel] for channel in kept], 1)
