"""What lies past a clip's ends: waveforms with each row continued beyond its own first and last sample.

In: (B, T) and how many samples of each row count. Out: (B, left + T + right or as said), by one gather, on any device.
"""

import torch
from torch import Tensor


def extended(wave_BT: Tensor, left: int, samples: int, filled_B: Tensor | None, mode: str) -> Tensor:
    """(B, samples), beginning `left` before the first sample (under 0: behind it). `filled_B` (B,), None: all count.

    reflect: the ends mirrored, the last sample once; mirror: the last sample twice (Kaldi); replicate: the last sample
    again; circular: from the other end; constant: zeros. What the row is too short for has no meaning, but is finite.
    """
    total = wave_BT.shape[1]
    place = torch.arange(samples, device=wave_BT.device) - left
    end = torch.full((1, 1), total, device=wave_BT.device) if filled_B is None else filled_B[:, None]
    if mode == "constant":
        inside = (place >= 0) & (place < end)
        picked = wave_BT.gather(1, place.clamp(0, total - 1).expand(len(wave_BT), -1))
        return torch.where(inside, picked, 0)
    edge = {"reflect": 0, "mirror": 1}.get(mode)
    if edge is not None:
        place = torch.where(place < 0, -place - edge, place)
        place = torch.where(place >= end, 2 * end - 2 + edge - place, place)
    place = place % end if mode == "circular" else place.clamp(min=0).minimum(end - 1)
    return wave_BT.gather(1, place.clamp(0, total - 1).expand(len(wave_BT), -1))


def silenced(wave_BT: Tensor, filled_B: Tensor | None) -> Tensor:
    """Zeros past each row's end: what lies there may be anything, NaN included."""
    if filled_B is None:
        return wave_BT
    return torch.where(torch.arange(wave_BT.shape[1], device=wave_BT.device) < filled_B[:, None], wave_BT, 0)


def padded(wave_BT: Tensor, margin: int, filled_B: Tensor | None, mode: str) -> Tensor:
    """(B, T) -> (B, margin + T + margin), `mode` as in `extended`; the usual one by little arithmetic."""
    if mode != "reflect":
        return extended(wave_BT, margin, wave_BT.shape[1] + 2 * margin, filled_B, mode)
    wide = torch.nn.functional.pad(wave_BT, (margin, margin), mode="reflect")
    if filled_B is None:
        return wide
    step = torch.arange(margin, device=wave_BT.device)
    tail = wave_BT.gather(1, filled_B[:, None] - 2 - step)
    return wide.scatter(1, margin + filled_B[:, None] + step, tail)


def pad_row(wave_T: Tensor, margin: int, mode: str) -> Tensor:
    """(margin + n + margin,): the ends of one row, in place; what lies between is the clip."""
    end = len(wave_T) - margin
    if mode == "reflect":
        wave_T[:margin] = wave_T[margin + 1 : 2 * margin + 1].flip(0)
        wave_T[end:] = wave_T[end - margin - 1 : end - 1].flip(0)
    elif mode == "circular":
        wave_T[:margin], wave_T[end:] = wave_T[end - margin : end], wave_T[margin : 2 * margin]
    else:
        wave_T[:margin] = wave_T[margin] if mode == "replicate" else 0
        wave_T[end:] = wave_T[end - 1] if mode == "replicate" else 0
    return wave_T
