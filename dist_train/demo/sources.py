"""The ten kinds of sound. `SOURCES[label](rng)` draws one individual (this dog, that siren) and returns its voice.

A voice renders a stretch of `count` samples: the individual's pitch, pace and timbre stay, the events are new, and
something of it sounds from the first sample on. So clips of one recording resemble each other as real cuts do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from .sound import Wave, band, curve, formants, gate, noise, ringing, rms, shaped, struck, tone

Voice = Callable[[int, int, Generator], Wave]
"""(count, rate, rng) -> wave of any level."""


def log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def beats(seconds: float, pace: float, jitter: float, rng: Generator) -> Wave:
    """Times of events at `pace` a second whose gaps vary by the share `jitter`; the first within a quarter gap."""
    gaps = np.maximum(0.2, 1 + jitter * rng.standard_normal(int(seconds * pace * 1.5) + 8)) / pace
    return np.asarray(np.cumsum(gaps) - gaps[0] * rng.uniform(0.75, 1))


def air_conditioner(rng: Generator) -> Voice:
    """A fan: a steady rush of air, the blades' tone and the mains' hum under it."""
    blades, share = log_uniform(rng, 60, 160), rng.uniform(0.2, 0.6)
    rush = band(log_uniform(rng, 60, 250), log_uniform(rng, 350, 1800), rng.uniform(1.3, 2.2))
    flutter = rng.uniform(0.02, 0.08)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        pitch = blades * (1 + curve(count, rate, rng, 1.0, 0.003))
        hum = tone(pitch, rate, lambda freq: (freq / blades) ** -2, 8)
        return (noise(count, rate, rng, rush) + share * hum) * (1 + curve(count, rate, rng, 0.4, flutter))

    return render


def car_horn(rng: Generator) -> Voice:
    """Two reeds a third apart, many harmonics, pressed sharply once or several times."""
    low, ratio = log_uniform(rng, 300, 520), rng.uniform(1.18, 1.28)
    colour = formants(np.array([log_uniform(rng, 400, 1000), log_uniform(rng, 1500, 3500)]), 0.6, 0.1)
    press, pause = log_uniform(rng, 0.15, 1.6), rng.uniform(0.06, 0.35)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        still = np.ones(count)
        chord = tone(low * still, rate, colour) + tone(low * ratio * still, rate, colour)
        envelope, start = np.zeros(count), 0.0
        while start < count / rate:
            length = press * rng.uniform(0.6, 1.4)
            envelope = np.maximum(envelope, gate(count, rate, start, length, 0.01, 0.04))
            start += length + pause * rng.uniform(0.7, 1.5)
        return chord * envelope

    return render


def cry(length: float, rate: int, rng: Generator, pitch: float, glide: float, colour: Wave, breath: float) -> Wave:
    """One call of a throat: pitch that rises and falls by the share `glide`, formants, some breath."""
    count = max(64, int(length * rate))
    share = np.linspace(0, 1, count)
    peak = rng.uniform(0.25, 0.7)
    arch = np.interp(share, [0, peak, 1], [1 - glide, 1 + glide, 1 - glide * rng.uniform(0.3, 1.5)])
    response = formants(colour)
    wave = tone(pitch * arch, rate, response, 40) + breath * noise(count, rate, rng, response)
    return np.asarray(wave * np.interp(share, [0, 0.12, 0.6, 1], [0, 1, 0.8, 0]))


def children_playing(rng: Generator) -> Voice:
    """Several voices at once, syllables of gliding pitch and changing vowels, now and then a long shout."""
    pitches = np.exp(rng.uniform(np.log(230), np.log(520), rng.integers(3, 7)))
    pace, glide = rng.uniform(2.5, 4.5), rng.uniform(0.06, 0.2)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        wave = np.zeros(count)
        for speaker in pitches:
            nearness = log_uniform(rng, 0.35, 1)
            for start in beats(count / rate, pace, 0.5, rng):
                at = int(start * rate)
                if at >= count or rng.uniform() < 0.3:
                    continue
                length = rng.uniform(0.12, 0.35) if rng.uniform() < 0.85 else rng.uniform(0.4, 0.9)
                vowel = np.array([rng.uniform(450, 1100), rng.uniform(1300, 2900), rng.uniform(3300, 4200)])
                call = cry(length, rate, rng, speaker * rng.uniform(0.8, 1.35), glide, vowel, 0.1)[: count - at]
                wave[at : at + len(call)] += nearness * call
        return wave

    return render


def dog_bark(rng: Generator) -> Voice:
    """Short hoarse barks of one throat, alone or in a row."""
    pitch, length = log_uniform(rng, 260, 850), rng.uniform(0.09, 0.22)
    throat = np.array([log_uniform(rng, 550, 1300), log_uniform(rng, 1400, 2800)])
    pace, breath = rng.uniform(1.2, 3.2), rng.uniform(0.25, 0.7)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        wave = np.zeros(count)
        for start in beats(count / rate, pace, 0.3, rng):
            at = int(start * rate)
            if at >= count or (at > rate and rng.uniform() < 0.25):
                continue
            bark = cry(length * rng.uniform(0.8, 1.2), rate, rng, pitch * rng.uniform(0.93, 1.07), 0.22, throat, breath)
            wave[at : at + len(bark)] += rng.uniform(0.6, 1) * bark[: count - at]
        return wave

    return render


def drilling(rng: Generator) -> Voice:
    """A motor that runs up, a whining gear and a bit that grinds with every turn."""
    turns, gear = log_uniform(rng, 160, 360), rng.integers(6, 13)
    colour = band(log_uniform(rng, 300, 900), log_uniform(rng, 2500, 6000), 1.5)
    grind, depth, whine = rng.uniform(0.3, 0.8), rng.uniform(0.4, 0.9), rng.uniform(0.5, 1.1)
    run = log_uniform(rng, 0.7, 4)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        seconds = np.arange(count) / rate
        since = (seconds + rng.uniform(0, 0.3)) % run
        load = 1 - 0.4 * np.exp(-since / 0.12) + curve(count, rate, rng, 0.12, 0.04)
        pitch = turns * load
        motor = tone(pitch, rate, lambda freq: colour(freq) * (freq / turns) ** -0.3)
        teeth = tone(pitch * gear, rate, lambda freq: (freq / freq[0]) ** -2.0, 3)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        dust = noise(count, rate, rng, colour) * (1 + depth * np.sin(phase / 4))
        return (motor + whine * teeth + grind * dust) * (0.15 + 0.85 * np.minimum(1, since / 0.08))

    return render


def engine_idling(rng: Generator) -> Voice:
    """Cylinders firing in an uneven round, a body that booms, valves that rattle."""
    firing, cylinders = log_uniform(rng, 14, 38), int(rng.choice([3, 4, 6]))
    uneven = rng.uniform(0.5, 1.0, cylinders)
    boom = np.array([log_uniform(rng, 60, 150), log_uniform(rng, 150, 400), log_uniform(rng, 400, 1200)])
    rattle, hiss = rng.uniform(0.1, 0.4), rng.uniform(0.05, 0.25)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        pulses = beats(count / rate, firing, 0.03, rng)
        sizes = np.resize(np.roll(uneven, rng.integers(cylinders)), len(pulses)) * rng.uniform(0.85, 1.15, len(pulses))
        kernel = ringing(rate, boom, 0.018, rattle, rng)
        body = struck(pulses, sizes, kernel, count, rate)
        return body / rms(body) + hiss * noise(count, rate, rng, band(200, 3000, 1))

    return render


def gun_shot(rng: Generator) -> Voice:
    """A crack at full force from its first sample, a decaying boom, an echo from far walls; one, a few, a burst."""
    decay, tail = log_uniform(rng, 0.02, 0.09), log_uniform(rng, 0.15, 0.6)
    body = band(log_uniform(rng, 60, 300), log_uniform(rng, 900, 5000), 1.2)
    pace = rng.uniform(5, 10) if rng.uniform() < 0.3 else rng.uniform(0.5, 1.6)
    wall, echo = rng.uniform(0.05, 0.25), rng.uniform(0.1, 0.4)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        seconds = np.arange(int(min(2.5, 5 * tail) * rate) + 1) / rate
        fall = np.exp(-seconds / decay) + 0.06 * np.exp(-seconds / tail)
        fall += echo * np.exp(-np.maximum(0, seconds - wall) / (2 * decay)) * (seconds > wall)
        shot = shaped(rng.standard_normal(len(seconds)) * fall, rate, body)
        times = beats(count / rate, pace, 0.15, rng)[: rng.integers(1, 6)]
        times += 0.03 - times[0]
        return struck(times, rng.uniform(0.7, 1, len(times)), shot, count, rate)

    return render


def jackhammer(rng: Generator) -> Voice:
    """Even hard blows of steel, many a second, in bouts, over a compressor's hiss."""
    pace, decay = log_uniform(rng, 9, 24), log_uniform(rng, 0.005, 0.014)
    steel = np.exp(rng.uniform(np.log(700), np.log(5000), 7))
    grit, hiss, bout = rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.3), log_uniform(rng, 0.8, 5)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        blows = beats(count / rate, pace, 0.015, rng)
        blows = blows[(blows + rng.uniform(0, 0.3 * bout)) % (bout + 0.3) < bout] if len(blows) > pace else blows
        sizes = rng.uniform(0.75, 1, len(blows))
        wave = struck(blows, sizes, ringing(rate, steel, decay, grit, rng), count, rate)
        return wave / rms(wave) + hiss * noise(count, rate, rng, band(500, 6000, 1))

    return render


def siren(rng: Generator) -> Voice:
    """One tone that sweeps slowly (wail), quickly (yelp) or steps between two pitches (hi-lo)."""
    low = log_uniform(rng, 420, 800)
    high = low * rng.uniform(1.5, 2.3)
    kind, slowness = rng.choice(["wail", "yelp", "hi-lo"]), rng.uniform(0.8, 1.25)
    step = low * rng.uniform(1.25, 1.45)
    sharpness = rng.uniform(1.0, 2.5)

    def render(count: int, rate: int, rng: Generator) -> Wave:
        phase = np.arange(count) / rate / slowness
        if kind == "hi-lo":
            pitch = np.where((phase / 0.9 + rng.uniform()) % 1 < 0.5, low, step)
        else:
            cycle = (phase / (2.2 if kind == "wail" else 0.3) + rng.uniform()) % 1
            pitch = low + (high - low) * np.interp(cycle, [0, 0.45, 1], [0, 1, 0])
        return tone(np.asarray(pitch, np.float64), rate, lambda freq: (freq / freq[0]) ** -sharpness, 16)

    return render


def street_music(rng: Generator) -> Voice:
    """A tune on one scale with a bass and, mostly, a drum: plucked or bowed notes on a beat."""
    root, tempo = log_uniform(rng, 160, 330), rng.uniform(3.2, 6.0)
    scale = np.array([0, 2, 4, 7, 9, 12, 14, 16]) if rng.uniform() < 0.5 else np.array([0, 3, 5, 7, 10, 12, 15, 17])
    plucked, bright, drum = rng.uniform() < 0.6, rng.uniform(0.8, 2.0), rng.uniform(0, 0.5)

    def note(pitch: float, length: float, rate: int) -> Wave:
        count = int(length * rate)
        seconds = np.arange(count) / rate
        vibrato = 1 + (0 if plucked else 0.006) * np.sin(2 * np.pi * 5.5 * seconds)
        wave = tone(pitch * vibrato, rate, lambda freq: (freq / pitch) ** -bright, 24)
        shape = np.exp(-seconds / 0.18) if plucked else np.minimum(1, seconds / 0.04)
        return np.asarray(wave * shape * np.minimum(1, (length - seconds) / 0.02))

    def render(count: int, rate: int, rng: Generator) -> Wave:
        wave = np.zeros(count)
        beat = 1 / tempo
        place = int(rng.integers(len(scale)))
        for index in range(int(count / rate * tempo) + 1):
            at = int(index * beat * rate)
            place = min(max(place + int(rng.integers(-2, 3)), 0), len(scale) - 1)
            parts = [0.8 * note(root * 2 ** (scale[place] / 12), beat * rng.choice([1, 1, 2]) * 1.1, rate)]
            if index % 2 == 0:
                parts.append(0.7 * note(root / 2 * 2 ** (scale[rng.choice([0, 2, 3])] / 12), 2 * beat, rate))
                hit = noise(int(0.1 * rate), rate, rng, band(1500, 9000))
                parts.append(drum * hit * np.exp(-np.arange(len(hit)) / rate / 0.025))
            for part in parts:
                wave[at : at + len(part)] += part[: count - at]
        return wave

    return render


SOURCES: dict[str, Callable[[Generator], Voice]] = {
    "air_conditioner": air_conditioner,
    "car_horn": car_horn,
    "children_playing": children_playing,
    "dog_bark": dog_bark,
    "drilling": drilling,
    "engine_idling": engine_idling,
    "gun_shot": gun_shot,
    "jackhammer": jackhammer,
    "siren": siren,
    "street_music": street_music,
}
