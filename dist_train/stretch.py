"""Time stretch without a change of pitch: STFT -> phase vocoder -> inverse STFT, on waveforms, so for all features.

In: waveforms (B, C, T), how many samples of each row count, what was drawn for it. Out: the same, changed in place:
`round(filled / rate)` samples of sound, cut at the window's end, or filled up to it as audio.short says.

    frames (hop: a quarter) -> rfft -> |X|, angle --at times 0, rate, 2 rate, ...--> polar -> irfft -> overlap-add

The vocoder is `torchaudio.functional.phase_vocoder`'s (Flanagan, Golden 1966; Laroche, Dolson 1999), the inverse
`torch.istft`'s, which would wait for the device. Phases are turns in whole units of 2^-44: their sums are exact, so they
do not drift in float32, and no order of additions matters.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.chosen import Floats, Ints, changed, inside
from dist_train.decode import Rows, to_device
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
        drawn = StretchDraws(*(values[numbers] for values in draws))
        made_RCT = vocoded(sound_RCT, filled[numbers], drawn.rate, fft)
        columns = np.stack([drawn.made, drawn.offset, drawn.period, window[numbers]])
        return _placed(made_RCT, to_device(columns[:, :, None, None], sound_RCT.device))

    return changed(wave_BCT, rows, change)


def _placed(made_RCT: Tensor, columns: Tensor) -> Tensor:
    """The first `made` samples of each row, from `offset` on, again every `period`, in its window; silence elsewhere."""
    made, offset, period, window = columns.unbind()
    place = torch.arange(made_RCT.shape[2], device=made_RCT.device)
    source = (place - offset) % period
    gathered = made_RCT.gather(2, source.clamp(max=len(place) - 1).expand_as(made_RCT))
    return gathered.masked_fill_((source >= made) | (place >= window), 0)


def vocoded(sound_RCT: Tensor, filled: Ints, rate: Floats, fft: int) -> Tensor:
    """(R, C, T): the first T samples of each row's first `filled` ones at `rate`; undefined past filled / rate."""
    samples, hop, device = sound_RCT.shape[2], fft // OVER, sound_RCT.device
    window = torch.hann_window(fft, dtype=sound_RCT.dtype, device=device)
    sound_RCT = sound_RCT.masked_fill(~inside(filled, samples, sound_RCT), 0)
    count = 1 + samples // hop
    padded = torch.nn.functional.pad(sound_RCT, (fft // 2, fft // 2 + hop))
    spectrum_RCNF = torch.fft.rfft(padded.unfold(2, fft, hop)[:, :, :count] * window)
    frames = 1 + filled // hop  # of each row; those after them reach into its end only
    late = torch.arange(count, device=device)[:, None] >= to_device(frames[:, None, None, None], device)
    index, part, valid = _times(frames, rate, 1 + (samples + fft // 2) // hop, count, sound_RCT)
    made = _interpolated(spectrum_RCNF.masked_fill_(late, 0), index, part) * valid
    pieces = torch.fft.irfft(made, fft) * window
    envelope = _added(valid * window.square(), hop)
    return (_added(pieces, hop) / envelope.clamp_(min=SILENT))[..., fft // 2 : fft // 2 + samples]


def _times(frames: Ints, rate: Floats, steps: int, count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, 1, steps, 1) each: the frame before each time, how far behind it the time lies, whether it is in the sound.

    In float64 on the host: on the other side of a whole number another pair of frames gives the phase.
    """
    time = np.arange(steps) * rate[:, None]
    index = np.floor(time).astype(np.int64)
    number: Any = np.float64 if like.element_size() == 8 else np.float32
    parts = np.stack([time - index, index < frames[:, None]]).astype(number)
    part, valid = to_device(parts[:, :, None, :, None], like.device).unbind()
    return to_device(index.clip(max=count - 1)[:, None, :, None], like.device), part, valid


def _interpolated(spectrum_RCNF: Tensor, index: Tensor, part: Tensor) -> Tensor:
    """Spectra at the times `index + part`: magnitudes between neighbours, phases added up from one to the next."""
    wide = index.expand(-1, spectrum_RCNF.shape[1], -1, spectrum_RCNF.shape[3])
    size = torch.nn.functional.pad(spectrum_RCNF.abs(), (0, 0, 0, 1))  # silence behind the last frame
    turn = torch.nn.functional.pad(spectrum_RCNF.angle() / (2 * torch.pi), (0, 0, 0, 1))
    line = torch.arange(spectrum_RCNF.shape[3], device=wide.device)
    step = turn[:, :, 1:] - turn[:, :, :-1] - (line % OVER).to(turn.dtype) / OVER
    units = ((step - step.round()) * TURN).to(torch.int64).gather(2, wide)
    before = torch.nn.functional.pad(units, (0, 0, 1, -1)).cumsum(2) & TURN - 1
    nominal = (torch.arange(index.shape[2], device=wide.device)[:, None] * line % OVER).to(turn.dtype) / OVER
    phase = turn[:, :, :1] + before.to(turn.dtype) / TURN + nominal
    low, high = size.gather(2, wide), size.gather(2, wide + 1)
    return torch.polar(low * (1 - part) + high * part, phase * (2 * torch.pi))


def _added(pieces_RCNS: Tensor, hop: int) -> Tensor:
    """Frames of OVER hops, each a hop after the one before, added up: (..., N, S) -> (..., (N - 1) hop + S)."""
    parts = pieces_RCNS.unflatten(3, (OVER, hop)).unbind(3)
    late = [torch.nn.functional.pad(part, (0, 0, number, OVER - 1 - number)) for number, part in enumerate(parts)]
    return (late[0] + late[1] + late[2] + late[3]).flatten(2)
