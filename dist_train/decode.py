"""Raw audio bytes -> waveforms at one sample rate, on the device.

In: bytes (B, row_bytes) as the reader leaves them, and their PLAN rows, alike in codec, channels, rate and factor.
Out: (B, channels kept, samples at audio.sample_rate), silence outside the clip.

    bytes --PCM--> float --channels--> mono | first | N --stage 1--> sample_rate --drop--> what the window needs

PCM is exact: equal, bit for bit, to what soundfile reads as float32 (or float64).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.resample import Resamplers, rate_ratio
from dist_train.row import CODECS
from dist_train.settings import Audio

Rows = NDArray[Any]  # of window.PLAN

_DIRECT = {  # codec -> (type that the bytes are read as, full scale)
    CODECS.S16: (torch.int16, 2.0**-15),
    CODECS.S32: (torch.int32, 2.0**-31),
    CODECS.F32: (torch.float32, 1.0),
    CODECS.F64: (torch.float64, 1.0),
}


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A host array on the device; from pinned memory, so that the host does not wait for the copy."""
    host = torch.from_numpy(np.ascontiguousarray(array))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def decode(data: Tensor, plan: Rows, audio: Audio, resamplers: Resamplers) -> Tensor:
    """(R, row_bytes) uint8 on the device and R alike PLAN rows -> (R, C, samples).

    Sample 0 is sample `begin(plan, audio)` of the clip at audio.sample_rate. Within the clip all is as if the whole of
    it had been converted; before its start and after its end lies silence.
    """
    first, frames = plan["first"], plan["frames"].astype(np.int64)
    channels = int(plan["channels"][0])
    samples = pcm(data, CODECS(int(plan["codec"][0])), channels, int(plan["count"].max()), resamplers.dtype)
    wave_RCT = silence(mix(samples, audio.channels), -first, np.minimum(frames - first, plan["count"]))
    ratio = rate_ratio(int(plan["rate"][0]), audio.sample_rate)
    if ratio.same:
        return wave_RCT
    blocks = (wave_RCT.shape[2] - 2 * ratio.width) // ratio.orig
    wave_RCT = drop(resamplers.convert(wave_RCT, ratio, blocks * ratio.new), plan["drop"])
    start = begin(plan, audio)
    return silence(wave_RCT, -start, -(-frames * ratio.new // ratio.orig) - start)


def begin(plan: Rows, audio: Audio) -> NDArray[np.int64]:
    """The place in the clip, at audio.sample_rate, of the first sample that `decode` returns; may be negative."""
    ratio = rate_ratio(int(plan["rate"][0]), audio.sample_rate)
    block = (plan["first"] + ratio.width) // ratio.orig
    return np.asarray(block * ratio.new + plan["drop"], dtype=np.int64)


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
    kept = [channel % wave_RCT.shape[1] for channel in range(channels)]
    return torch.stack([wave_RCT[:, channel] for channel in kept], 1)


def silence(wave_RCT: Tensor, low: NDArray[np.int64], high: NDArray[np.int64]) -> Tensor:
    """Zeros, in place, outside [low, high) of each row. What lies there may be anything, NaN included."""
    samples = wave_RCT.shape[2]
    touched = np.flatnonzero((low > 0) | (high < samples))
    if not len(touched):
        return wave_RCT
    if wave_RCT.device.type == "cpu":  # a few short slices; masks would touch every sample
        for row in touched:
            wave_RCT[row, :, : max(int(low[row]), 0)] = 0
            wave_RCT[row, :, max(int(high[row]), 0) :] = 0
        return wave_RCT
    edges = to_device(np.stack([low, high])[:, :, None, None], wave_RCT.device)
    place = torch.arange(samples, device=wave_RCT.device)
    return wave_RCT.masked_fill_((place < edges[0]) | (place >= edges[1]), 0)


def drop(wave_RCT: Tensor, counts: NDArray[Any]) -> Tensor:
    """Each row without its first `counts` samples, zeros moved in at the end."""
    samples = wave_RCT.shape[2]
    if not counts.any():
        return wave_RCT
    shift = to_device(counts.astype(np.int64), wave_RCT.device)[:, None]
    index = torch.arange(samples, device=wave_RCT.device) + shift
    padded = torch.nn.functional.pad(wave_RCT, (0, int(counts.max())))
    return padded.gather(2, index[:, None].expand(-1, wave_RCT.shape[1], -1))
