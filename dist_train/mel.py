"""Constants of spectral features: windows, mel banks, cosine transform. In: sizes and frequencies. Out: CPU tensors.

Two families. `window`, `mel_bank` and `cosines` follow `torchaudio.compliance.kaldi` rounding by rounding (mel bank and
cosines are float32 there, whatever the waveform's type), because in bins far below a frame's loudest the last bit of a
constant is seen in the logarithm. `periodic` and `triangles` follow `torchaudio.transforms.MelSpectrogram` likewise.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def window(name: str, size: int, dtype: torch.dtype) -> Tensor:
    """(size,) window: povey (hann ** 0.85), hamming, hanning, rectangular or blackman, all symmetric."""
    return WINDOWS[name](size, dtype)


def _hann(size: int, dtype: torch.dtype) -> Tensor:
    return torch.hann_window(size, periodic=False, dtype=dtype)


def _blackman(size: int, dtype: torch.dtype) -> Tensor:
    angle = 2 * math.pi / (size - 1) * torch.arange(size, dtype=dtype)
    return 0.42 - 0.5 * torch.cos(angle) + 0.08 * torch.cos(2 * angle)


WINDOWS: dict[str, Callable[[int, torch.dtype], Tensor]] = {
    "povey": lambda size, dtype: _hann(size, dtype).pow(0.85),
    "hamming": lambda size, dtype: torch.hamming_window(size, periodic=False, alpha=0.54, beta=0.46, dtype=dtype),
    "hanning": _hann,
    "rectangular": lambda size, dtype: torch.ones(size, dtype=dtype),
    "blackman": _blackman,
}


def mel_bank(bins: int, padded: int, sample_rate: int, low: float, high: float) -> Tensor:
    """(padded // 2 + 1, bins) triangles, linear in mel = 1127 ln(1 + f / 700), between `low` and `high` Hz, float32.

    ValueError where the frequencies do not fit the sample rate.
    """
    nyquist = 0.5 * sample_rate
    top = high if high > 0 else nyquist + high
    if not 0 <= low < top <= nyquist:
        raise ValueError(
            f"features.low_freq={low:g} and features.high_freq={high:g} do not fit audio.sample_rate={sample_rate}: "
            f"0 <= low < high <= {nyquist:g} must hold (a high_freq <= 0 counts from {nyquist:g})"
        )
    lowest, highest = (1127.0 * math.log(1.0 + edge / 700.0) for edge in (low, top))
    step = (highest - lowest) / (bins + 1)
    number = torch.arange(bins).unsqueeze(1)
    left, centre, right = lowest + number * step, lowest + (number + 1.0) * step, lowest + (number + 2.0) * step
    mel = 1127.0 * (1.0 + sample_rate / padded * torch.arange(padded / 2) / 700.0).log()
    slopes = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre))
    # The Nyquist line has no weight in Kaldi.
    return torch.nn.functional.pad(slopes.clamp(min=0.0).T, (0, 0, 0, 1))


def cosines(bins: int, ceps: int, lifter: float = 22.0) -> tuple[Tensor, Tensor]:
    """(bins, ceps) orthonormal DCT-II matrix and the (ceps,) lifter 1 + L/2 sin(pi i / L) of Kaldi's MFCC, float32."""
    number = torch.arange(float(bins))
    matrix = torch.cos(math.pi / float(bins) * (number + 0.5) * number.unsqueeze(1))
    matrix[0] *= 1.0 / math.sqrt(2.0)
    matrix *= math.sqrt(2.0 / float(bins))
    matrix = matrix.T.clone()
    matrix[:, 0] = math.sqrt(1 / float(bins))
    return matrix[:, :ceps], 1.0 + 0.5 * lifter * torch.sin(math.pi * torch.arange(ceps) / lifter)


def periodic(name: str, size: int, dtype: torch.dtype) -> Tensor:
    """(size,) window of period `size`: a symmetric one of size + 1 without its last value. povey: hann ** 0.85."""
    return PERIODIC[name](size, dtype)


PERIODIC: dict[str, Callable[[int, torch.dtype], Tensor]] = {
    "povey": lambda size, dtype: torch.hann_window(size, dtype=dtype).pow(0.85),
    "hamming": lambda size, dtype: torch.hamming_window(size, dtype=dtype),
    "hanning": lambda size, dtype: torch.hann_window(size, dtype=dtype),
    "rectangular": lambda size, dtype: torch.ones(size, dtype=dtype),
    "blackman": lambda size, dtype: torch.blackman_window(size, dtype=dtype),
}

BREAK = 1000.0  # Hz: Slaney's scale is linear below (200 / 3 Hz a mel), logarithmic above (27 mel for a factor of 6.4)
MEL = 200.0 / 3
STEP = math.log(6.4) / 27.0


def triangles(
    bins: int, fft: int, sample_rate: int, low: float, high: float, scale: str = "htk", norm: str = "none"
) -> Tensor:
    """(fft // 2 + 1, bins) triangles, linear in Hz, float32. Their corners lie evenly on a mel scale.

    htk: 2595 log10(1 + f / 700); slaney: see BREAK. norm=slaney: each has area 1 over Hz, so noise is level over bins.
    As in torchaudio the last line is taken for the Nyquist frequency, which with an odd `fft` it is not quite.
    ValueError where the frequencies do not fit the sample rate, or where a triangle falls between two lines.
    """
    nyquist = float(sample_rate // 2)
    top = high if high > 0 else nyquist + high
    if not 0 <= low < top <= nyquist:
        raise ValueError(
            f"features.low_freq={low:g} and features.high_freq={high:g} do not fit audio.sample_rate={sample_rate}: "
            f"0 <= low < high <= {nyquist:g} must hold (a high_freq <= 0 counts from {nyquist:g})"
        )
    corners = _to_hz(torch.linspace(_to_mel(low, scale), _to_mel(top, scale), bins + 2), scale)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    line = torch.linspace(0, nyquist, fft // 2 + 1).unsqueeze(1)
    bank = torch.minimum((line - left) / (centre - left), (right - line) / (right - centre)).clamp(min=0.0)
    empty = int((bank == 0).all(0).sum())
    if empty:
        raise ValueError(
            f"features.bins={bins}: {empty} mel triangles fall between the lines of features.fft={fft} at "
            f"{sample_rate} Hz and would always be zero; give fewer bins or a longer fft"
        )
    return bank * (2.0 / (right - left)) if norm == "slaney" else bank


def _to_mel(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hz / 700.0)
    return hz / MEL if hz < BREAK else BREAK / MEL + math.log(hz / BREAK) / STEP


def _to_hz(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return torch.where(mel < BREAK / MEL, MEL * mel, BREAK * torch.exp(STEP * (mel - BREAK / MEL)))


def blocks(bank: Tensor, count: int) -> list[tuple[slice, slice, Tensor]]:
    """A bank's columns in `count` groups, each with the only lines of the spectrum that it weighs: fewer products."""
    edges = [bank.shape[1] * part // count for part in range(count + 1)]
    found = []
    for first, last in pairwise(edges):
        used = torch.nonzero(bank[:, first:last].any(1)).flatten()
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, len(bank))
        found.append((slice(low, high), slice(first, last), bank[low:high, first:last].contiguous()))
    return found
