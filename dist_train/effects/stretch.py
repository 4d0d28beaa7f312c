"""Time stretch without a change of pitch: STFT -> phase vocoder -> inverse STFT, on waveforms, so for all features.

In: waveforms (B, C, T), how many samples of each row count, what was drawn for it. Out: the same, changed in place:
`round(filled / rate)` samples of sound, cut at the window's end, or filled up to it as audio.short says.

    frames (hop: a quarter) -> rfft -> |X|, angle --at times 0, rate, 2 rate, ...--> polar -> irfft -> overlap-add

The vocoder is `torchaudio.functional.phase_vocoder`'s (Flanagan, Golden 1966; Laroche, Dolson 1999), the inverse
`torch.istft`'s, which would wait for the device. Phases are turns in whole units of 2^-44: their sums are exact, so
they do not drift in float32, and no order of additions matters.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import Rows, to_device
from dist_train.effects.chosen import Floats, Ints, changed, inside
from dist_train.order import uniform
from dist_train.settings import Stretch

TURN = 2**44  # units of phase; 2^19 frames of them fit into 63 bits
OVER = 4  # hops a frame: a bin's phase advances by whole quarters of a turn a hop
SILENT = 1e-11  # an overlap of windows that counts as none


class StretchDraws(NamedTuple):
    """(B,) each: whether the row is stretched; the factor on its tempo; its length afterwards, cut at the window's end;
    where in a longer window it begins (audio.short=random_pad); samples until it begins again (tile)."""

    chosen: NDArray[np.bool_]
    rate: Floats
    made: Ints
    offset: Ints
    period: Ints


def stretch_draws(plan: Rows, filled: Ints, settings: Stretch, short: str, seed: int) -> StretchDraws:
    """Which windows are stretched, how much, and where the sound comes to lie: functions of (seed, position)."""
    position, window = plan["position"], plan["window"].astype(np.int64)
    low, high = settings.rate
    rate = low + (high - low) * uniform(seed, position, "stretch rate").astype(np.float64)
    chosen = (uniform(seed, position, "stretch") < settings.probability) & (filled > 0)
    made = np.where(chosen, np.rint(filled / rate).astype(np.int64).clip(1, window.clip(1)), filled)
    place = uniform(seed, position, "stretch place").astype(np.float64)
    offset = (place * (window - made + 1)).astype(np.int64) if short == "random_pad" else np.zeros_like(made)
    return StretchDraws(chosen, rate, made, offset, made if short == "tile" else window + 1)


def stretch(wave_BCT: Tensor, filled: Ints, plan: Rows, draws: StretchDraws, fft: int) -> Tensor:
    """Chosen rows at their new tempo."""
    rows, window = np.flatnonzero(draws.chosen), plan["window"].astype(np.int64)

    def change(sound_RCT: Tensor, numbers: Ints) -> Tensor:
        made_RCT = vocoded(sound_RCT, filled[numbers], draws.rate[numbers], fft)
        columns = np.stack([draws.made, draws.offset, draws.period, window])[:, numbers]
        return _placed(made_RCT, to_device(columns[:, :, None, None], sound_RCT.device))

    return changed(wave_BCT, rows, change)


def _placed(made_RCT: Tensor, columns: Tensor) -> Tensor:
    """The first `made` samples of each row, from `offset` on, again every `period`, in its window."""
    made, offset, period, window = columns.unbind()
    place = torch.arange(made_RCT.shape[2], device=made_RCT.device)
    source = (place - offset) % period
    gathered = made_RCT.gather(2, source.clamp(max=len(place) - 1).expand_as(made_RCT))
    return gathered.masked_fill_((source >= made) | (place >= window), 0)


def vocoded(sound_RCT: Tensor, filled: Ints, rate: Floats, fft: int) -> Tensor:
    """(R, C, T): the first T samples of each row's first `filled` ones at `rate`; undefined past filled / rate."""
    (rows, channels, samples), hop = sound_RCT.shape, fft // OVER
    filled, rate = np.repeat(filled, channels), np.repeat(rate, channels)
    window = torch.hann_window(fft, dtype=sound_RCT.dtype, device=sound_RCT.device)
    sound_QT = sound_RCT.flatten(0, 1).masked_fill(~inside(filled, samples, sound_RCT)[:, 0], 0)
    padded = torch.nn.functional.pad(sound_QT, (fft // 2, fft // 2 + hop))
    spectrum_QNF = torch.fft.rfft(padded.unfold(1, fft, hop)[:, : 1 + samples // hop] * window)
    times = _times(1 + filled // hop, rate, 1 + (samples + fft // 2) // hop, spectrum_QNF)
    pieces = torch.fft.irfft(_interpolated(spectrum_QNF, *times), fft) * window
    envelope = _added(times[2] * window.square(), hop)
    made_QT = (_added(pieces, hop) / envelope.clamp_(min=SILENT))[:, fft // 2 : fft // 2 + samples].contiguous()
    return made_QT.view(rows, channels, samples)


def _times(frames: Ints, rate: Floats, steps: int, like: Tensor) -> tuple[Tensor, ...]:
    """(Q, K, 1) each: the frame before each time, how far behind it the time lies, whether it is in the sound; and
    (Q, N, 1) which frames are: those after them reach into its end only.

    In float64 on the host: on the other side of a whole number another pair of frames gives the phase.
    """
    time = np.arange(steps) * rate[:, None]
    index, number = np.floor(time).astype(np.int64), np.float64 if like.dtype == torch.complex128 else np.float32
    columns = [time - index, index < frames[:, None], np.arange(like.shape[1]) < frames[:, None]]
    packed = to_device(np.concatenate(columns, 1).astype(number), like.device)[:, :, None]
    part, valid, own = packed[:, :steps], packed[:, steps : 2 * steps], packed[:, 2 * steps :]
    return to_device(index.clip(max=like.shape[1] - 1), like.device), part, valid, own


def _interpolated(spectrum_QNF: Tensor, index: Tensor, part: Tensor, valid: Tensor, own: Tensor) -> Tensor:
    """Spectra at the times `index + part`: magnitudes between neighbours, phases added up from one to the next."""
    real, imag = (values.masked_fill(own == 0, 0) for values in torch.view_as_real(spectrum_QNF).unbind(3))
    silence = 0, 0, 0, 1  # behind the last frame
    size = torch.nn.functional.pad((real.square() + imag.square()).sqrt(), silence)
    turn = torch.nn.functional.pad(torch.atan2(imag, real) / (2 * torch.pi), silence)
    row, line = torch.arange(len(turn), device=turn.device)[:, None], torch.arange(turn.shape[2], device=turn.device)
    step = turn[:, 1:] - turn[:, :-1] - (line & OVER - 1).to(turn.dtype) / OVER
    units = ((step - step.round()) * TURN).to(torch.int64)[row, index]
    before = torch.nn.functional.pad(units, (0, 0, 1, -1)).cumsum(1) & TURN - 1
    quarter = torch.arange(OVER, device=turn.device)
    nominal = (quarter[:, None] * line & OVER - 1).to(turn.dtype) / OVER  # of every fourth frame alike
    nominal = nominal[torch.arange(index.shape[1], device=turn.device) & OVER - 1]
    phase = (turn[:, :1] + before.to(turn.dtype) / TURN + nominal) * (2 * torch.pi)
    between = torch.lerp(size[row, index], size[row, index + 1], part) * valid
    return torch.complex(between * phase.cos(), between * phase.sin())


def _added(pieces_QNS: Tensor, hop: int) -> Tensor:
    """Frames of OVER hops, each a hop after the one before, added up: (Q, N, S) -> (Q, (N - 1) hop + S)."""
    parts = pieces_QNS.reshape(*pieces_QNS.shape[:2], OVER, hop).unbind(2)
    late = [torch.nn.functional.pad(part, (0, 0, number, OVER - 1 - number)) for number, part in enumerate(parts)]
    return (late[0] + late[1] + late[2] + late[3]).flatten(1)
