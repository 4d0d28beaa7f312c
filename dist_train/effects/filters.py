"""What microphones and lines do to sound: low-pass, high-pass, white noise, a telephone's codec.

In: waveforms (B, C, T), of which the first `filled` samples of each row count, PLAN rows, settings. Out: the same,
changed in place; a row's result depends on (seed, position) and on that row alone.

The filters are digital Butterworth ones of order 2, run forwards and backwards: no phase is shifted, and the gain is

    low-pass   1 / (1 + (tan(pi f / rate) / tan(pi cut / rate))^4)        high-pass   1 / (1 + its inverse)

-6 dB at the cut-off, 24 dB an octave far beyond it. The window's halves are filtered with 0.1 s of what is around them:
a filter rings for longer, at 1e-4 of its start, from 20 Hz down only.
"""

import math

import numpy as np
import torch
from torch import Tensor

from dist_train.decode import Rows, to_device
from dist_train.effects.acoustics import smooth
from dist_train.effects.chosen import Floats, Ints, changed, column, inside
from dist_train.effects.gaussian import gaussian, noise_keys
from dist_train.order import uniform
from dist_train.settings import Codec, Pass, White

MU = 255
QUIET = 2.0**-20  # a 32nd of a step of 16 bits
SLOPE = 4  # twice the order of the filters
AROUND = 0.1  # seconds on both sides of half a window
NONE = 1e6  # a cut-off (as `_warped`) that lets everything through


def pass_draws(plan: Rows, settings: Pass | None, name: str, seed: int) -> Floats:
    """(B,) cut-offs, Hz, uniform in octaves; 0: the row is not filtered."""
    if settings is None:
        return np.zeros(len(plan))
    position, (low, high) = plan["position"], settings.hz
    cut = low * (high / low) ** uniform(seed, position, f"{name} cut").astype(np.float64)
    return np.where(uniform(seed, position, name) < settings.probability, cut, 0.0)


def band(wave_BCT: Tensor, filled: Ints, low_pass: Floats, high_pass: Floats, rate: int) -> Tensor:
    """Rows with a cut-off over 0 go through their low-pass, high-pass, or both in one transform."""
    low = np.where(low_pass > 0, _warped(low_pass, rate), NONE)
    high = np.where(high_pass > 0, _warped(high_pass, rate), -NONE)
    samples, around = wave_BCT.shape[2], math.ceil(AROUND * rate)
    size = smooth(-(-samples // 2) + 2 * around)
    scale = _warped(np.abs(np.fft.fftfreq(size, 1 / rate)), rate)

    def change(sound_RCT: Tensor, numbers: Ints) -> Tensor:
        within = inside(filled[numbers], samples, sound_RCT)
        place = column(scale, sound_RCT).view(1, 1, -1)
        gain = torch.sigmoid((column(low[numbers], sound_RCT) - place) * SLOPE)
        gain *= torch.sigmoid((place - column(high[numbers], sound_RCT)) * SLOPE)
        return _weighed(sound_RCT * within, gain, around) * within

    return changed(wave_BCT, np.flatnonzero((low_pass > 0) | (high_pass > 0)), change)


def _weighed(sound_RCT: Tensor, gain_R1F: Tensor, around: int) -> Tensor:
    """Each sound's spectrum times a real, even gain. Its halves are the real and the imaginary part of one transform:
    on a CPU a real transform of the whole takes four times as long."""
    samples = sound_RCT.shape[2]
    half = -(-samples // 2)
    padded = torch.nn.functional.pad(sound_RCT, (around, around + 2 * half - samples))
    block = torch.complex(padded[..., :-half], padded[..., half:])
    out = torch.view_as_real(torch.fft.ifft(torch.fft.fft(block, gain_R1F.shape[2]).mul_(gain_R1F)))
    return out[..., around : around + half, :].transpose(2, 3).flatten(2)[..., :samples]


def _warped(hertz: Floats, rate: int) -> Floats:
    """ln tan(pi f / rate), from -1000 on (f = 0); the bilinear transform's scale of frequencies."""
    angle = np.clip(np.pi * hertz / rate, 0, np.pi / 2)
    return np.asarray(np.log(np.maximum(np.tan(angle), math.exp(-700)))).clip(-1000, 100)


def add_white(wave_BCT: Tensor, filled: Ints, plan: Rows, settings: White, seed: int) -> Tensor:
    """Chosen rows get Gaussian noise of deviation `sigma`, or of their RMS (over all channels) at -snr_db."""
    position = plan["position"]
    low, high = settings.sigma or settings.snr_db or (0.0, 0.0)
    drawn = low + (high - low) * uniform(seed, position, "white level").astype(np.float64)
    level = drawn if settings.sigma is not None else 10 ** (-drawn / 20)
    chosen = (uniform(seed, position, "white") < settings.probability) & (filled > 0)
    keys = noise_keys(position, seed, "white")

    def change(sound_RCT: Tensor, numbers: Ints) -> Tensor:
        within = inside(filled[numbers], sound_RCT.shape[2], sound_RCT)
        factor = column(level[numbers], sound_RCT)
        if settings.sigma is None:
            count = column(filled[numbers] * sound_RCT.shape[1], sound_RCT)
            factor = factor * ((sound_RCT * within).square().sum((1, 2), keepdim=True) / count).sqrt()
        noise = gaussian(to_device(keys[numbers], sound_RCT.device), *sound_RCT.shape[1:]).to(sound_RCT.dtype)
        return sound_RCT + noise * within * factor

    return changed(wave_BCT, np.flatnonzero(chosen), change)


def coded(wave_BCT: Tensor, filled: Ints, plan: Rows, settings: Codec, rate: int, seed: int) -> Tensor:
    """Chosen rows through the low-pass, if there is one, and to 256 levels of mu-law and back."""
    chosen = (uniform(seed, plan["position"], "codec") < settings.probability) & (filled > 0)
    if settings.band_hz is not None:
        cut = np.where(chosen, settings.band_hz, 0.0)
        wave_BCT = band(wave_BCT, filled, cut, np.zeros_like(cut), rate)

    def change(sound_RCT: Tensor, numbers: Ints) -> Tensor:
        return torch.where(inside(filled[numbers], sound_RCT.shape[2], sound_RCT), mulaw(sound_RCT), sound_RCT)

    return changed(wave_BCT, np.flatnonzero(chosen), change)


def mulaw(wave: Tensor) -> Tensor:
    """Full scale 1, clipped there -> 256 levels, evenly spaced in sign(x) ln(1 + 255 |x|), -> back.

    Two levels meet at 0: what lies under QUIET is taken for 0, or the rounding errors of silence would be heard.
    """
    wave = torch.nn.functional.hardshrink(wave.clamp(-1, 1), QUIET)
    small = (wave.abs() * MU).log1p() / math.log1p(MU)
    code = ((small * wave.sign() + 1) * (MU / 2) + 0.5).floor()
    value = code * (2 / MU) - 1
    return value.sign() * ((value.abs() * math.log1p(MU)).expm1() / MU)
