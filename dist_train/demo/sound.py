"""What synthetic sounds are made of: noise, tones, struck resonances, slow curves, filters, echoes.

Times are in seconds, frequencies in Hz, `count` in samples; a wave is a float64 array of `count` samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Wave = NDArray[np.float64]
Response = Callable[[Wave], Wave]
"""Frequencies in Hz -> linear gains."""

TABLE = 4096


def fast_length(count: int) -> int:
    """The next length of the form m * 2**k with m <= 16: a prime length makes an FFT several times slower."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def rms(wave: Wave) -> float:
    """Root mean square; never 0, so that it can be divided by."""
    return float(np.sqrt(np.mean(wave**2)) + 1e-12)


def shaped(wave: Wave, rate: int, response: Response) -> Wave:
    """The wave through a zero-phase filter with these gains."""
    size = fast_length(len(wave))
    gains = response(np.maximum(np.fft.rfftfreq(size, 1 / rate), 1.0))
    return np.fft.irfft(np.fft.rfft(wave, size) * gains, size)[: len(wave)]


def echoed(wave: Wave, kernel: Wave) -> Wave:
    """The wave convolved with the kernel, cut to the wave's length."""
    size = fast_length(len(wave) + len(kernel) - 1)
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(kernel, size), size)[: len(wave)]


def band(low: float, high: float, slope: float = 2.0) -> Response:
    """A band-pass whose flanks fall by 6 * slope dB an octave."""
    return lambda freq: 1 / (1 + (low / freq) ** slope) / (1 + (freq / high) ** slope)


def formants(centres: Wave, width: float = 0.18, floor: float = 0.03) -> Response:
    """Resonances `width` wide (in the logarithm of frequency), each weaker than the one below it."""

    def gains(freq: Wave) -> Wave:
        distance = np.log(freq[:, None] / centres) / width
        return floor + np.asarray((np.exp(-0.5 * distance**2) / np.arange(1, len(centres) + 1) ** 0.7).sum(1))

    return gains


def noise(count: int, rate: int, rng: Generator, response: Response) -> Wave:
    """Gaussian noise with this spectrum, RMS 1."""
    wave = shaped(rng.standard_normal(count), rate, response)
    return wave / rms(wave)


def curve(count: int, rate: int, rng: Generator, step: float, spread: float) -> Wave:
    """A slow random curve about 0: normal knots of deviation `spread` every `step` seconds, joined by lines."""
    knots = rng.normal(0, spread, int(count / rate / step) + 3)
    return np.interp(np.arange(count) / rate / step + rng.uniform(), np.arange(len(knots)), knots)


def tone(pitch: Wave, rate: int, response: Response, harmonics: int = 60) -> Wave:
    """A periodic sound whose frequency follows `pitch` (Hz, one value a sample); harmonics weighed by `response`.

    Read from one table of a period: harmonics that would lie above 0.45 * rate at the highest pitch are left out.
    """
    highest = int(min(harmonics, max(1, 0.45 * rate // pitch.max())))
    weights = np.zeros(TABLE // 2 + 1, complex)
    order = np.arange(1.0, highest + 1)
    # Schroeder's phases keep the crest low, as a horn's or a voice's is.
    weights[1 : highest + 1] = response(order * float(pitch.mean())) * np.exp(-1j * np.pi * order**2 / highest)
    table = np.fft.irfft(weights, TABLE)
    phase = np.cumsum(pitch) / rate
    wave = np.interp((phase % 1) * TABLE, np.arange(TABLE + 1), np.append(table, table[0]))
    return np.asarray(wave / rms(wave))


def struck(times: Wave, sizes: Wave, kernel: Wave, count: int, rate: int) -> Wave:
    """The kernel laid at these times with these sizes."""
    hits = np.zeros(count)
    at = np.round(times * rate).astype(np.int64)
    inside = (at >= 0) & (at < count)
    np.add.at(hits, at[inside], sizes[inside])
    return echoed(hits, kernel)


def ringing(rate: int, modes: Wave, decay: float, grit: float, rng: Generator) -> Wave:
    """One blow: modes (Hz) that ring for `decay` seconds (to 1/e), and a click of noise of share `grit`."""
    seconds = np.arange(int(6 * decay * rate) + 1) / rate
    modes = modes[modes < 0.45 * rate]
    rings = np.sin(2 * np.pi * modes[:, None] * seconds + rng.uniform(0, 6.28, (len(modes), 1))).sum(0)
    click = rng.standard_normal(len(seconds)) * np.exp(-seconds / (0.3 * decay))
    wave = rings * np.exp(-seconds / decay) * (1 - grit) + grit * click * np.sqrt(max(1, len(modes)))
    return np.asarray(wave)


def gate(count: int, rate: int, start: float, length: float, attack: float, release: float) -> Wave:
    """1 from `start` for `length` seconds, rising and falling by straight lines of these times."""
    seconds = np.arange(count) / rate
    return np.interp(seconds, [start, start + attack, start + length, start + length + release], [0.0, 1.0, 1.0, 0.0])
