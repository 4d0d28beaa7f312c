"""One recording: a source in a room, a background, other sounds, a microphone; and the clips cut from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from .sound import Response, Wave, band, curve, echoed, noise, rms, shaped, struck, tone
from .sources import SOURCES, Voice, log_uniform

RATES = {8000: 0.3, 16000: 0.33, 22050: 0.13, 44100: 0.14, 48000: 0.10}


def room(rng: Generator) -> Callable[[Wave, int, int], Wave]:
    """A way from the source to an ear: direct sound, early echoes, a tail that decays by 60 dB in 0.1 to 0.9 s."""
    decay, wet, dark = log_uniform(rng, 0.1, 0.9), log_uniform(rng, 0.05, 0.7), log_uniform(rng, 1500, 8000)
    delays, ears = rng.uniform(0.001, 0.03, 5), rng.integers(2**32, size=2)

    def hear(wave: Wave, rate: int, ear: int) -> Wave:
        own = np.random.default_rng(ears[ear])
        tail = own.standard_normal(int(decay * rate))
        tail *= 10 ** (-3 * np.arange(len(tail)) / len(tail))
        kernel = wet * shaped(tail, rate, band(80, dark, 1)) / np.sqrt(np.sum(tail**2))
        kernel[(delays * own.uniform(0.8, 1.2, 5) * rate).astype(np.int64)] += wet * own.normal(0, 0.4, 5)
        kernel[0] += 1
        return echoed(wave, kernel)

    return hear


def microphone(rng: Generator) -> Response:
    """A frequency response: lower and upper limit, a tilt, two bumps."""
    limits = band(log_uniform(rng, 30, 200), log_uniform(rng, 3500, 16000), 3)
    tilt, centres = rng.uniform(-0.3, 0.3), np.exp(rng.uniform(np.log(150), np.log(6000), 2))
    heights = rng.uniform(-0.8, 0.8, 2)

    def gains(freq: Wave) -> Wave:
        bumps = np.exp(-2 * np.log(freq[:, None] / centres) ** 2) @ heights
        return np.asarray(limits(freq) * (freq / 1000) ** tilt * np.exp(bumps))

    return gains


def traffic(rng: Generator) -> Voice:
    """Far cars: a low rush that swells and ebbs."""
    colour, swell = band(40, log_uniform(rng, 250, 1200), 1.5), rng.uniform(0.1, 0.5)
    return lambda count, rate, rng: noise(count, rate, rng, colour) * np.exp(curve(count, rate, rng, 1.0, swell))


def hum(rng: Generator) -> Voice:
    """Mains of 50 or 60 Hz with harmonics, and a little hiss."""
    mains, fall, hiss = rng.choice([50.0, 60.0]), rng.uniform(0.5, 1.5), rng.uniform(0.1, 0.6)
    return lambda count, rate, rng: (
        tone(np.full(count, mains), rate, lambda freq: (freq / mains) ** -fall, 30)
        + hiss * noise(count, rate, rng, band(100, 6000, 1))
    )


def rain(rng: Generator) -> Voice:
    """A bright rush and many small drops."""
    colour, density = band(log_uniform(rng, 300, 1500), 9000, 1), log_uniform(rng, 20, 200)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        drops = rng.uniform(0, count / rate, rng.poisson(density * count / rate))
        kernel = rng.standard_normal(int(0.004 * rate)) * np.exp(-np.arange(int(0.004 * rate)) / rate / 0.001)
        return noise(count, rate, rng, colour) + struck(drops, rng.exponential(1.5, len(drops)), kernel, count, rate)

    return render


def wind(rng: Generator) -> Voice:
    """Gusts at the lowest frequencies."""
    colour, gusts = band(20, log_uniform(rng, 120, 500), 2), rng.uniform(0.4, 0.9)
    return lambda count, rate, rng: noise(count, rate, rng, colour) * np.exp(curve(count, rate, rng, 0.35, gusts))


BACKGROUNDS = (traffic, hum, rain, wind)


class Recording:
    """What all clips of one recording share. `cut(rng)` gives one clip: float64 (frames, channels), |x| < 1."""

    def __init__(self, label: str, rng: Generator) -> None:
        self.rate = int(rng.choice(list(RATES), p=list(RATES.values())))
        self.channels = 2 if self.rate > 16000 and rng.uniform() < 0.5 else 1
        self.level = rng.uniform(-45, -6)
        self.voice = SOURCES[label](rng)
        self.room, self.response = room(rng), microphone(rng)
        self.background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng)
        self.background_db, self.floor_db = rng.uniform(-32, -12), rng.uniform(-65, -40)
        self.clipping = rng.uniform(0.25, 0.8) if rng.uniform() < 0.15 else 1.0
        others = [name for name in SOURCES if name != label]
        self.other = SOURCES[others[rng.integers(len(others))]](rng)
        self.other_db = rng.uniform(-26, -14)

    def target(self, count: int, rng: Generator) -> Wave:
        """The source from a random onset to the end or a random stop; before and after it is silent. RMS 1 inside."""
        least = int(0.28 * self.rate)
        start = rng.integers(0, max(1, (count - least) // 2)) if rng.uniform() < 0.5 else 0
        stop = rng.integers(min(count, (start + least + count) // 2), count + 1) if rng.uniform() < 0.3 else count
        wave = np.zeros(count)
        part = self.voice(int(stop - start), self.rate, rng)
        wave[start:stop] = part / rms(part)
        return wave

    def distraction(self, count: int, rng: Generator) -> Wave:
        """In half of the clips another sound, somewhere, quieter."""
        wave = np.zeros(count)
        if rng.uniform() < 0.5:
            start = int(rng.integers(0, count * 2 // 3))
            part = self.other(count - start, self.rate, rng)
            wave[start:] = part / rms(part) * 10 ** (self.other_db / 20)
        return wave

    def cut(self, rng: Generator) -> Wave:
        count = int((0.3 + 4.7 * rng.beta(1.1, 2.6)) * self.rate)
        dry = self.target(count, rng) + self.distraction(count, rng)
        ground = self.background(count, self.rate, rng)
        ground *= 10 ** ((self.background_db + rng.uniform(-1.5, 1.5)) / 20) / rms(ground)
        ears = []
        for ear in range(self.channels):
            heard = shaped(self.room(dry, self.rate, ear) + ground, self.rate, self.response)
            ears.append(heard + rms(heard) * 10 ** (self.floor_db / 20) * rng.standard_normal(count))
        wave = np.stack(ears, 1)
        peak = float(np.abs(wave).max())
        wave = np.clip(wave, -self.clipping * peak, self.clipping * peak)
        gain = 10 ** ((self.level + rng.uniform(-2, 2)) / 20) / rms(wave)
        return wave * min(gain, 0.95 / float(np.abs(wave).max()))
