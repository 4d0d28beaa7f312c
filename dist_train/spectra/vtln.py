"""Vocal tract length normalisation of Kaldi's mel bank: corners of triangles, in mel, moved by a factor.

In: corners and `features.vtln_*`. Out: corners. Between two bends a frequency f becomes f / factor; on both sides
straight lines lead to the bank's own ends, which stay.
"""

import torch
from torch import Tensor

from dist_train.settings import Features


def warped(mel: Tensor, features: Features, low: float, top: float, sample_rate: int) -> Tensor:
    """(n, 1) mel values, moved. `low`, `top`: the bank's ends, Hz. ValueError where the bends do not lie within."""
    factor, first, last = features.vtln_warp, features.vtln_low, features.vtln_high
    last = last if last > 0 else 0.5 * sample_rate + last
    lower, upper = first * max(1.0, factor), last * min(1.0, factor)
    if not low < first < last < top or not low < lower < upper < top:
        raise ValueError(
            f"features.vtln_low={first:g} and vtln_high={last:g} Hz do not lie within the mel bank, {low:g} to {top:g} "
            f"Hz, with vtln_warp={factor:g}; give others"
        )
    hz = 700.0 * ((mel / 1127.0).exp() - 1.0)
    rise, fall = (lower / factor - low) / (lower - low), (top - upper / factor) / (top - upper)
    moved = torch.where(hz < upper, 1.0 / factor * hz, top + fall * (hz - top))
    moved = torch.where(hz < lower, low + rise * (hz - low), moved)
    moved = torch.where((hz < low) | (hz > top), hz, moved)
    return 1127.0 * (1.0 + moved / 700.0).log()
