"""Rooms, recorded noise and level: what happens to sound before a microphone, for a whole batch on the device.

In: waveforms (B, C, T), of which the first `filled` samples of each row count, and what was drawn for each row. Out:
the same, changed in place.

    draws      PLAN rows -> host arrays, each draw `uniform(seed, position, name)`
    changes    host arrays + bank on the device -> waveforms

On the CPU each row is worked on alone, so it comes out the same bit for bit whatever its mates; other devices take all
chosen rows at once. Nothing is read back: the host knows all lengths.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train.decode import Rows, to_device
from dist_train.effects.bank import Bank, Rooms
from dist_train.effects.chosen import ALIKE, Floats, Ints, column, inside
from dist_train.order import uniform
from dist_train.settings import Noise, Reverb

SILENCE = 1e-30  # a sum of squares that counts as none; what is divided by more stays finite in float32


class ReverbDraws(NamedTuple):
    """(B,) each: whether the row is convolved, the number of its room, the share of the reverberant sound."""

    chosen: NDArray[np.bool_]
    room: Ints
    wet: Floats


class NoiseDraws(NamedTuple):
    """(B,) each: whether the row gets noise; its clip's first sample in the bank and length; where in the clip the
    segment starts; the signal-to-noise ratio, dB."""

    chosen: NDArray[np.bool_]
    first: Ints
    length: Ints
    start: Ints
    snr_db: Floats


def reverb_draws(plan: Rows, rooms: Rooms, settings: Reverb, seed: int) -> ReverbDraws:
    """Which windows are convolved, with which room, how wet: functions of (seed, position)."""
    position = plan["position"]
    low, high = settings.wet
    return ReverbDraws(
        uniform(seed, position, "reverb") < settings.probability,
        _below(uniform(seed, position, "reverb room"), len(rooms)),
        low + (high - low) * uniform(seed, position, "reverb wet").astype(np.float64),
    )


def noise_draws(plan: Rows, bank: Bank, settings: Noise, seed: int, window: int) -> NoiseDraws:
    """Which windows get noise, from where in the bank, how loud: functions of (seed, position).

    Clips are equally likely. A clip shorter than `window` samples starts anywhere and goes round.
    """
    position = plan["position"]
    clip = _below(uniform(seed, position, "noise clip"), len(bank))
    length = np.diff(bank.offsets)[clip]
    places = np.where(length < window, length, length - window + 1)
    low, high = settings.snr_db
    return NoiseDraws(
        uniform(seed, position, "noise") < settings.probability,
        bank.offsets[clip],
        length,
        _below(uniform(seed, position, "noise start"), places),
        low + (high - low) * uniform(seed, position, "noise snr").astype(np.float64),
    )


def _below(draw: Floats, choices: Ints | int) -> Ints:
    """A whole number below `choices` for each draw in [0, 1)."""
    return np.asarray((draw.astype(np.float64) * choices).astype(np.int64))


def reverberate(wave_BCT: Tensor, filled: Ints, rooms: Rooms, draws: ReverbDraws) -> Tensor:
    """Chosen rows become (1 - wet) x + wet (h * x), cut to what counts, with the RMS (over it, all channels) they had.

    h is the room's impulse response, of unit energy, its direct sound first: nothing is delayed.
    """
    rows = np.flatnonzero(draws.chosen & (filled > 0))
    if not len(rows):
        return wave_BCT
    if wave_BCT.device.type != "cpu":
        return _reverberate_batched(wave_BCT, filled, rooms, draws, rows)
    for row in rows.tolist():
        _reverberate_row(wave_BCT[row], int(filled[row]), rooms, int(draws.room[row]), float(draws.wet[row]))
    return wave_BCT


def _reverberate_row(wave_CT: Tensor, filled: int, rooms: Rooms, room: int, wet: float) -> None:
    """One row in place, each channel by one complex transform of little over half the window.

    The window's halves are the real and the imaginary part; before each lie the `taps - 1` samples that still sound in
    it (overlap-save), at the transform's end, for it is circular. A real filter keeps the parts apart. MKL's real
    transforms take several times as long, most of it for their plan.
    """
    taps = min(rooms.impulses_RL.shape[1], wave_CT.shape[1])  # later ones would sound after the window's end
    half = -(-wave_CT.shape[1] // 2)
    past, size = min(half, taps - 1), smooth(half + taps - 1)
    filter_F = rooms.spectrum(room, taps, size)
    if wet != 1:
        filter_F = filter_F * wet + (1 - wet)
    count = filter_F.shape[0]
    mirrored = filter_F[1 : size - count + 1].flip(0).conj()
    before, after, results = 0.0, 0.0, []
    for sound_T in wave_CT[:, :filled]:
        first, second, earlier = sound_T[:half], sound_T[half:], sound_T[half - past : half]
        block = sound_T.new_zeros(size, 2)
        block[: len(first), 0] = first
        block[: len(second), 1] = second
        block[size - past : size - past + len(earlier), 1] = earlier
        spectrum = torch.fft.fft(torch.view_as_complex(block))
        spectrum[:count] *= filter_F
        spectrum[count:] *= mirrored
        block = torch.view_as_real(torch.fft.ifft(spectrum))
        parts = first, block[: len(first), 0], second, block[: len(second), 1]
        before += _energy(sound_T)
        after += _energy(block[: len(second)]) + _energy(block[len(second) : len(first), 0])
        results.append(parts)
    factor = _ratio(before, after)
    for first, wet_first, second, wet_second in results:
        torch.mul(wet_first, factor, out=first)
        torch.mul(wet_second, factor, out=second)


def _reverberate_batched(wave_BCT: Tensor, filled: Ints, rooms: Rooms, draws: ReverbDraws, rows: Ints) -> Tensor:
    device, samples = wave_BCT.device, wave_BCT.shape[2]
    padded = np.resize(rows, -(-len(rows) // ALIKE) * ALIKE)
    where = to_device(padded, device)
    taps = min(rooms.impulses_RL.shape[1], samples)
    size = smooth(samples + taps - 1)
    before_RCT = wave_BCT[where]
    within = inside(filled[padded], samples, wave_BCT)
    sound_RCT = before_RCT.masked_fill(~within, 0)
    spectrum_RCF = torch.fft.rfft(sound_RCT, size).mul_(rooms.spectra(draws.room[padded], taps, size)[:, None])
    wet_RCT = torch.fft.irfft(spectrum_RCF, size)[..., :samples].masked_fill(~within, 0)
    share = column(draws.wet[padded], wave_BCT)
    mixed_RCT = torch.lerp(sound_RCT, wet_RCT, share)
    mixed_RCT *= _ratios(_energies(sound_RCT), _energies(mixed_RCT))
    kept = slice(len(rows))
    return wave_BCT.index_copy_(0, where[kept], torch.where(within, mixed_RCT, before_RCT)[kept])


@lru_cache(maxsize=256)
def smooth(least: int) -> int:
    """The least 2^a 3^b 5^c from `least` on with a <= 10: MKL's plans for more factors 2 take as long as five
    transforms."""
    while not _is_smooth(least):
        least += 1
    return least


def _is_smooth(size: int) -> bool:
    if size % 2**11 == 0:
        return False
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    return size == 1


def add_noise(wave_BCT: Tensor, filled: Ints, bank: Bank, draws: NoiseDraws) -> Tensor:
    """Chosen rows get a segment of the bank, in all channels alike, so that 10 log10(P_signal / P_noise) is snr_db.

    Powers are means over what counts of the row, P_signal over its channels too. Silence gets no noise, nor does a
    silent segment give any.
    """
    rows = np.flatnonzero(draws.chosen & (filled > 0))
    if not len(rows):
        return wave_BCT
    if wave_BCT.device.type != "cpu":
        return _add_noise_batched(wave_BCT, filled, bank, draws, rows)
    for row in rows.tolist():
        sound_CT = wave_BCT[row, :, : int(filled[row])]
        noise_T = _segment(bank, draws, row, sound_CT.shape[1]).to(wave_BCT.dtype)
        factor = _ratio(_energy(sound_CT) / len(sound_CT), _energy(noise_T))
        sound_CT.add_(noise_T, alpha=factor * 10 ** (-float(draws.snr_db[row]) / 20))
    return wave_BCT


def _segment(bank: Bank, draws: NoiseDraws, row: int, samples: int) -> Tensor:
    """(samples,) int16; a slice of the bank where the clip is long enough."""
    first, length, start = (int(column[row]) for column in (draws.first, draws.length, draws.start))
    clip = bank.samples[first : first + length]
    if start + samples <= length:
        return clip[start : start + samples]
    return clip.roll(-start).repeat(-(-samples // length))[:samples]


def _add_noise_batched(wave_BCT: Tensor, filled: Ints, bank: Bank, draws: NoiseDraws, rows: Ints) -> Tensor:
    device, samples = wave_BCT.device, wave_BCT.shape[2]
    spans = np.stack([rows, draws.first[rows], draws.length[rows], draws.start[rows]])
    where, first, length, start = to_device(spans[:, :, None], device)
    within = inside(filled[rows], samples, wave_BCT)
    index = (start + torch.arange(samples, device=device)) % length + first
    noise_RCT = bank.samples[index].to(wave_BCT.dtype)[:, None].masked_fill_(~within, 0)
    before_RCT = wave_BCT[where[:, 0]]
    sound_RCT = before_RCT.masked_fill(~within, 0)
    factor = _ratios(_energies(sound_RCT) / sound_RCT.shape[1], _energies(noise_RCT))
    level = column(10 ** (-draws.snr_db[rows] / 20), wave_BCT)
    return wave_BCT.index_copy_(0, where[:, 0], before_RCT.add_(noise_RCT * (factor * level)))


def level(wave_BCT: Tensor, filled: Ints, target_db: float) -> Tensor:
    """The RMS of each row, over what counts of it and all channels, brought to `target_db` dBFS; silence stays."""
    target = 10 ** (target_db / 10) * wave_BCT.shape[1] * filled
    if wave_BCT.device.type != "cpu":
        return _level_batched(wave_BCT, filled, target)
    for row_CT, end, wanted in zip(wave_BCT, filled.tolist(), target.tolist(), strict=True):
        energy = _energy(row_CT[:, :end])
        row_CT.mul_(_ratio(wanted, energy) if energy > SILENCE else 1.0)
    return wave_BCT


def _level_batched(wave_BCT: Tensor, filled: Ints, target: Floats) -> Tensor:
    sound_BCT = wave_BCT.masked_fill(~inside(filled, wave_BCT.shape[2], wave_BCT), 0)
    wanted = column(target, wave_BCT)
    energy = _energies(sound_BCT)
    return wave_BCT.mul_(torch.where(energy > SILENCE, _ratios(wanted, energy), 1))


def loudness(wave_BCT: Tensor, rate: int) -> Tensor:
    """(B,) 10^(G / 20), G the A-weighted level (dB) of each row's loudest frame, from 1e-4 on.

    Frames are Hann windows of about 0.1 s (2048 samples at 16 kHz, 4096 at 44.1 kHz), half of them overlapping, a
    frame's power the mean over channels: the sound pressure of between-class learning (Tokozume, Ushiku, Harada 2018,
    arXiv 1711.10282).
    """
    size = 2 ** round(np.log2(0.1 * rate))
    missing = max(size - wave_BCT.shape[2], -(wave_BCT.shape[2] - size) % (size // 2))
    window = torch.hann_window(size, dtype=wave_BCT.dtype, device=wave_BCT.device)
    weight = to_device(np.repeat(a_weighting(size, rate), 2), wave_BCT.device).to(wave_BCT.dtype)
    # One row at a time on the CPU: it stays in cache, and no row depends on its mates.
    parts = wave_BCT.unsqueeze(1) if wave_BCT.device.type == "cpu" else wave_BCT[None]
    loudest = []
    for part_RCT in parts:
        frames_RCNS = torch.nn.functional.pad(part_RCT, (0, missing)).unfold(2, size, size // 2) * window
        power_RCNV = torch.view_as_real(torch.fft.rfft(frames_RCNS)).square_().flatten(3)
        loudest.append((power_RCNV @ weight).mean(1).amax(1))
    return torch.cat(loudest).clamp_(min=1e-8).sqrt_()


@lru_cache(maxsize=8)
def a_weighting(size: int, rate: int) -> Floats:
    """(size // 2 + 1,) factors on the power of a transform's bins: A-weighting (IEC 61672-1), 1 at 1 kHz."""
    square = np.fft.rfftfreq(size, 1 / rate) ** 2
    response = square**2 * 12194.217**2 / ((square + 20.598997**2) * (square + 12194.217**2))
    response /= np.sqrt((square + 107.65265**2) * (square + 737.86223**2))
    return np.asarray((response * 10 ** (2.0 / 20)) ** 2)


def _energy(sound: Tensor) -> float:
    """The sum of squares, on the CPU. Over minutes of sound torch's sum in float32 is 1e-3 off."""
    kind = torch.float64 if sound.numel() > 2**19 else None
    return float(torch.linalg.vector_norm(sound, dtype=kind)) ** 2


def _ratio(wanted: float, energy: float) -> float:
    """The factor on a sound of `energy` that gives it `wanted`; 0 for silence."""
    return math.sqrt(wanted / energy) if energy > SILENCE else 0.0


def _energies(sound_RCT: Tensor) -> Tensor:
    return sound_RCT.square().sum((1, 2), keepdim=True)


def _ratios(wanted: Tensor, energy: Tensor) -> Tensor:
    """`_ratio` of each row, on the device."""
    return torch.where(energy > SILENCE, wanted / energy, 0).sqrt()
