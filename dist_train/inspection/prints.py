"""Sound -> a print: 28 bits a frame that survive gain, coding, another rate, a little noise and a cut elsewhere.

    Fbank (frames, 29), 200 to 3500 Hz, log
      -> mean over 32 frames -> difference of neighbouring bins -> minus that of 16 frames before -> sign: 28 bits
      -> sketch: of the 30 % clearest frames, each with its three unclearest bits both ways, the 64 smallest hashes

Two prints are held against each other at every shift at once: agreement of bits is a correlation. The signs are
Haitsma and Kalker's ("A highly robust audio fingerprinting system", ISMIR 2002), the sketch is Broder's bottom-k
("On the resemblance and containment of documents", 1997): it does not change when the clip begins elsewhere.
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dist_train.inspection.hearing import Sound
from dist_train.order import mix64

if TYPE_CHECKING:
    from dist_train.features import Fbank

BINS, LOW, HIGH = 29, 200.0, 3500.0
BITS = BINS - 1
SMOOTH, BACK = 32, 16  # frames
RATES = (1000, 384000)  # Hz
CLEAR, FLIPPED, SKETCH = 0.3, 3, 64
QUIET = 5 * np.log(10.0)  # frames this far under the loudest, in power, say nothing: 50 dB
FAINT = 0.5  # sum of a frame's 28 changes, in nepers of power, under which it stands still: silence, a steady tone
LEAST, ENOUGH = 32, 200  # frames in common: that are looked at, that prove
ALIKE = 0.2  # share of bits that may differ over ENOUGH frames; over fewer proportionally less

_own = threading.local()


@dataclass(frozen=True, eq=False)
class Print:
    """code (F,) of 28 bits a frame; valid (F,): frames that say something; sketch (at most 64,) sorted hashes."""

    code: NDArray[np.uint64]
    valid: NDArray[np.bool_]
    sketch: NDArray[np.uint64]


def take(sound: Sound) -> Print:
    """The print of a sound; an empty one where it is under half a second, or of a rate out of RATES."""
    import torch

    wave = np.ascontiguousarray(sound.frames.mean(1))
    if not RATES[0] <= sound.rate <= RATES[1] or _bank(sound.rate).frames(len(wave)) <= SMOOTH + BACK:
        return Print(np.empty(0, np.uint64), np.empty(0, np.bool_), np.empty(0, np.uint64))
    power = _bank(sound.rate)(torch.from_numpy(wave)[None])[0].numpy().astype(np.float64)
    total = np.concatenate([np.zeros((1, BINS)), np.cumsum(power, 0)])
    smooth = (total[SMOOTH:] - total[:-SMOOTH]) / SMOOTH
    slope = np.diff(smooth, axis=1)
    change = slope[BACK:] - slope[:-BACK]
    loud = smooth.mean(1)[BACK:]
    valid = (loud > loud.max() - QUIET) & (np.abs(change).sum(1) > FAINT)
    code = (change > 0) @ (np.uint64(1) << np.arange(BITS, dtype=np.uint64))
    return Print(code, valid, _sketch(code, valid, np.abs(change)))


def _sketch(code: NDArray[np.uint64], valid: NDArray[np.bool_], margin: NDArray[np.float64]) -> NDArray[np.uint64]:
    """At most SKETCH hashes, sorted: the smallest of those that stand for the clearest frames."""
    if not valid.any():
        return np.empty(0, np.uint64)
    order = np.argsort(margin, axis=1)[:, : FLIPPED + 1]
    clear = np.take_along_axis(margin, order[:, FLIPPED:], 1)[:, 0]
    chosen = np.flatnonzero(valid & (clear >= np.quantile(clear[valid], 1 - CLEAR)))
    ways = code[chosen][:, None]
    for place in range(FLIPPED):
        bit = np.uint64(1) << order[chosen, place].astype(np.uint64)
        ways = np.concatenate([ways, ways ^ bit[:, None]], axis=1)
    hashes = mix64(np.unique(ways))
    hashes.sort()
    return hashes[:SKETCH]


def _bank(rate: int) -> "Fbank":
    """A thread's own Fbank of a rate, for it works in memory that it keeps."""
    import torch

    from dist_train.features import Fbank
    from dist_train.settings import Audio, Features

    banks: dict[int, Fbank] = _own.__dict__.setdefault("banks", {})
    if rate not in banks:
        high = min(HIGH, 0.45 * rate)
        bounds = {"low_freq": min(LOW, high / 4), "high_freq": high}
        # As whole numbers of 16 bits: at full scale 1 a quiet clip would lie under the logarithm's floor.
        features = Features.model_validate({"bins": BINS, "waveform_scale": 32768.0, **bounds})
        banks[rate] = Fbank(Audio.model_validate({"sample_rate": rate}), features, torch.device("cpu"))
    return banks[rate]


def distance(one: Print, other: Print) -> tuple[float, int]:
    """(share of bits that differ, shift in frames) where the two agree best; (1, 0) where too few frames meet.

    Where fewer than ENOUGH frames meet the share is raised in proportion, so that ALIKE is the bound for all:
    two sirens of one make run alike for a second.
    """
    if min(int(one.valid.sum()), int(other.valid.sum())) < LEAST:
        return 1.0, 0
    size = 1 << (len(one.code) + len(other.code)).bit_length()
    ours, theirs = (np.fft.rfft(_signs(side), size, axis=0) for side in (one, other))
    cross = np.fft.irfft(ours * theirs.conj(), size, axis=0)
    met = np.rint(cross[:, BITS])
    agreed = cross[:, :BITS].sum(1) / BITS
    differ = np.where(met >= LEAST, 0.5 - 0.5 * agreed / np.maximum(met, 1), 1.0)
    raised = differ * ENOUGH / np.clip(met, LEAST, ENOUGH)
    best = int(raised.argmin())
    return float(raised[best]), best if best < size // 2 else best - size


def _signs(one: Print) -> NDArray[np.float32]:
    """(F, 29) +1 and -1 of each bit, 0 in frames that say nothing; the last column is 1 in those that do."""
    bits = (one.code[:, None] >> np.arange(BITS, dtype=np.uint64)) & np.uint64(1)
    signs = np.where(bits == 1, 1.0, -1.0) * one.valid[:, None]
    return np.concatenate([signs, one.valid[:, None]], axis=1).astype(np.float32)
