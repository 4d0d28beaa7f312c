"""Waveforms of any length -> the windows that evaluation hears of them; what is said of windows -> of clips.

In: (B, C, T). Out: (B W, C, window) and W; back: (B W, n) -> (B, n). Clips of a batch have one length, so one W. All is
arithmetic on the shape, in whole numbers, so a graph of it serves every length from one sample on.
"""

from typing import cast

import torch
from torch import Tensor, nn

from dist_train.settings import Audio, Evaluation
from dist_train.window import window_samples

Size = int  # a number of a shape: a symbol while a graph is made


class Cut(nn.Module):
    """The windows of `window.eval_windows`, or the whole clip (evaluation.clip=full)."""

    def __init__(self, audio: Audio, evaluation: Evaluation, least: int) -> None:
        """`least`: samples that the network needs; a whole clip that is shorter is heard as if silence followed it."""
        super().__init__()
        self.short, self.least, self.whole = audio.short, least, evaluation.clip == "full"
        self.window = window_samples(audio)
        hop = evaluation.hop
        self.step = self.window if hop is None else max(1, round(hop * audio.sample_rate))
        self.most = max(1, round(evaluation.max_seconds * audio.sample_rate))

    def forward(self, wave_BCT: Tensor) -> tuple[Tensor, Size, Size]:
        """Windows (B W, C, samples), W, and how many samples of each window are the clip's, or its repetition's."""
        total = wave_BCT.shape[2]
        if self.whole:
            place_S = torch.arange(_larger(_smaller(total, self.most), self.least))
            end = torch.full((1,), total)
            heard_BCS = wave_BCT.index_select(2, torch.minimum(place_S, end - 1))  # no slice: its size is not known
            return torch.where(place_S < end, heard_BCS, 0), 1, total
        free = _larger(total - self.window, 0)
        count = (free + self.step - 1) // self.step + 1
        # Numbers of a shape are made tensors: an ONNX graph divides those without a rule for every mixture.
        start_W = torch.arange(count) * torch.full((1,), free) // torch.full((1,), _larger(count - 1, 1))
        place_WS = start_W[:, None] + torch.arange(self.window)
        end = torch.full((1,), total)
        inside_WS = place_WS < end
        wave_BCR = wave_BCT.index_select(2, self._filled(place_WS, end).flatten())
        wave_BCWS = split(wave_BCR, 2, (count, self.window))
        if self.short != "tile":
            wave_BCWS = torch.where(self._inside(inside_WS, place_WS, end), wave_BCWS, 0)
        filled = _smaller(total, self.window) if self.short == "pad" else self.window
        return wave_BCWS.transpose(1, 2).flatten(0, 1), count, filled

    def _filled(self, place_WS: Tensor, end: Tensor) -> Tensor:
        """Which sample lies at each place, for a clip shorter than its window too."""
        if self.short == "random_pad":
            place_WS = place_WS - self._before(end)
        return place_WS % end

    def _inside(self, inside_WS: Tensor, place_WS: Tensor, end: Tensor) -> Tensor:
        """Whether a place is the clip's; the others are silent."""
        if self.short == "pad":
            return inside_WS
        first = self._before(end)
        return (place_WS >= first) & (place_WS < first + end)

    def _before(self, end: Tensor) -> Tensor:
        """Silence before a short clip in the middle of its window (audio.short=random_pad), as `waves.fill` has it."""
        room = (self.window - end).clamp(min=0)
        return torch.minimum((room + 1) // 2, room)

    def mean(self, value_NC: Tensor, heard_N: Tensor, count: Size) -> Tensor:
        """(B W, n) -> (B, n): mean over a clip's windows that are not silent; over all where all are silent."""
        if self.whole:
            return value_NC
        value_BWC, heard_BW = split(value_NC, 0, (-1, count)), split(heard_N, 0, (-1, count))
        heard_BW = (heard_BW | ~heard_BW.any(1, keepdim=True)).to(value_NC.dtype)
        total_BC: Tensor = (value_BWC * heard_BW[..., None]).sum(1)
        return total_BC / heard_BW.sum(1, keepdim=True)


def split(x: Tensor, axis: int, sizes: tuple[int, int]) -> Tensor:
    """An axis as two."""
    made: Tensor = x.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return made


def _larger(one: Size, other: Size) -> Size:
    """Of symbols too, for which Python's `max` would decide now."""
    return cast(Size, torch.sym_max(one, other))  # type: ignore[no-untyped-call]


def _smaller(one: Size, other: Size) -> Size:
    return cast(Size, torch.sym_min(one, other))  # type: ignore[no-untyped-call]
