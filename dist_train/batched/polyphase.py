"""Resampling of rows that differ in their conversion, by one gather: no groups, no products of varying shapes.

In: (B, C, N) waveforms, (B, T) the outputs wanted of each row, and which conversion a row takes. Out: (B, C, T).

    phase, block = output mod new, output // new
    value        = sum over k of  taps[k, phase] * input[block * orig + first[phase] + k]

Only the taps that are not zero are kept: 13 or 14 of 23 to 25 at 9:10 and 11:10, 34 of 475 at 44.1 -> 16 kHz. Where
nothing changes the one tap is 1.0 and the copy is exact. Multiplying fewer than fifteen values for each output, read
from a cache, costs less than sorting rows for matrix products.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dist_train.resample import Ratio, _kernel

TERMS = 2**24  # products at once where they lie in memory: 64 MB in float32, twice


class Polyphase:
    """The filters of several conversions side by side, on one device.

    `rows` (conversions, 3): orig, new and the first column of its phases, what `__call__` wants of each row. `taps` is
    at least `least`, so that a bank that gains a conversion goes on summing in the same order.
    """

    def __init__(
        self, ratios: Sequence[Ratio], device: torch.device, dtype: torch.dtype = torch.float32, least: int = 1
    ) -> None:
        filters = [_used(ratio, dtype) for ratio in ratios]
        widest = max(taps.shape[1] for _, taps in filters)
        self.taps = -(-widest // least) * least
        padded = [torch.nn.functional.pad(taps, (0, self.taps - taps.shape[1])) for _, taps in filters]
        self.taps_PK = torch.cat(padded).to(device)
        self.taps_KP = self.taps_PK.T.contiguous()  # neighbouring outputs read neighbouring phases
        self.first_P = torch.cat([first for first, _ in filters]).to(device, torch.int32)
        news = [ratio.new for ratio in ratios]
        columns = [[ratio.orig for ratio in ratios], news, np.cumsum([0, *news[:-1]]).tolist()]
        self.rows = np.array(columns, np.int64).T

    def __call__(self, wave_BCN: Tensor, output_BT: Tensor, conversion: tuple[Tensor, ...]) -> Tensor:
        """Values at `output_BT` (output 0 lies where input `width` lies); N holds `taps` more than the last one needs.

        `conversion`: (B, 1) each, the columns of `rows`. Outputs that need inputs past N are undefined, but finite.
        """
        orig, new, base = conversion
        phase_BT = base + output_BT % new
        start_BT = output_BT // new * orig + self.first_P[phase_BT].to(output_BT.dtype)
        start_BT = start_BT.clamp(0, wave_BCN.shape[2] - self.taps)
        if torch.compiler.is_compiling():
            return self._fused(wave_BCN, phase_BT, start_BT)
        rows, channels = wave_BCN.shape[:2]
        step = max(1, TERMS // (channels * output_BT.shape[1] * self.taps))
        cuts = [slice(begin, begin + step) for begin in range(0, rows, step)]
        return torch.cat([self._gathered(wave_BCN[cut], phase_BT[cut], start_BT[cut]) for cut in cuts])

    def _fused(self, wave_BCN: Tensor, phase_BT: Tensor, start_BT: Tensor) -> Tensor:
        """Tap by tap: the compiler makes one kernel of it that keeps the sum in a register.

        The order of additions is written out, so a row's sum depends on nothing but the row.
        """
        row, channel = corner(wave_BCN)
        total = torch.zeros((), dtype=wave_BCN.dtype, device=wave_BCN.device)
        for tap in range(self.taps):
            value_BCT = wave_BCN[row, channel, start_BT[:, None] + tap]
            total = total + value_BCT * self.taps_KP[tap][phase_BT][:, None]
        return total

    def _gathered(self, wave_BCN: Tensor, phase_BT: Tensor, start_BT: Tensor) -> Tensor:
        """All taps at once, four kernels: a kernel a tap would be launched for longer than it runs."""
        row, channel = corner(wave_BCN)
        seen_BCTK = wave_BCN.unfold(2, self.taps, 1)[row, channel, start_BT[:, None]]
        return seen_BCTK.mul_(self.taps_PK[phase_BT][:, None]).sum(3)


def corner(wave_BCN: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of rows (B, 1, 1) and channels (C, 1), to be combined with one of samples."""
    rows, channels = (torch.arange(size, device=wave_BCN.device) for size in wave_BCN.shape[:2])
    return rows[:, None, None], channels[:, None]


def _used(ratio: Ratio, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(new,) the first input that each phase sees and (new, K) its taps from there on."""
    if ratio.same:
        return torch.zeros(1, dtype=torch.int64), torch.ones(1, 1, dtype=dtype)
    kernel = _kernel(ratio, dtype)
    # Beyond the last zero crossing float64 leaves 1e-50: not zero, and no contribution either.
    used = (kernel.abs() > 1e-30).to(torch.int64)
    first = used.argmax(1)
    last = kernel.shape[1] - 1 - used.flip(1).argmax(1)
    place = first[:, None] + torch.arange(int((last - first).max()) + 1)
    taps = torch.nn.functional.pad(kernel, (0, place.shape[1])).gather(1, place)
    return first, taps
