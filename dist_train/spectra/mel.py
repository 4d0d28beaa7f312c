"""Constants of spectral features: windows, mel banks, cosine transform. In: sizes and frequencies. Out: CPU tensors.

Two families. `mel_bank` and `cosines` follow `torchaudio.compliance.kaldi` rounding by rounding (both are float32
there, whatever the waveform's type), because in bins far below a frame's loudest the last bit of a constant is seen in
the logarithm. `triangles` and `transform` follow `torchaudio.transforms.MelSpectrogram` and `MFCC` likewise.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from dist_train.settings import Audio, Features
from dist_train.spectra import vtln


def spans(audio: Audio, features: Features, spare: float = 0.0) -> tuple[int, int]:
    """Samples of a frame, and from one frame to the next. ValueError where they make none.

    Milliseconds are cut to whole samples once `spare` of a sample is added; win_length and hop_length are exact.
    """
    length = features.win_length or int(audio.sample_rate * features.frame_length * 0.001 + spare)
    shift = features.hop_length or int(audio.sample_rate * features.frame_shift * 0.001 + spare)
    if length < 2 or shift < 1:
        raise ValueError(
            f"features.frame_length={features.frame_length:g} and frame_shift={features.frame_shift:g} ms make "
            f"frames of {length} samples every {shift} at {audio.sample_rate} Hz; give longer ones"
        )
    return length, shift


def window(features: Features, size: int, dtype: torch.dtype, periodic: bool) -> Tensor:
    """(size,) features.window: povey is hann ** 0.85. `periodic` where features.window_periodic does not say.

    A periodic one is a symmetric one of size + 1 without its last value. Kaldi's blackman has a free constant term.
    """
    periodic = periodic if features.window_periodic is None else features.window_periodic
    if features.window == "kaiser":
        return torch.kaiser_window(size, periodic, features.kaiser_beta, dtype=dtype)
    if features.window == "blackman" and features.name in ("fbank", "mfcc"):
        first = features.blackman_coeff
        angle = 2 * math.pi / (size if periodic else size - 1) * torch.arange(size, dtype=dtype)
        return first - 0.5 * torch.cos(angle) + (0.5 - first) * torch.cos(2 * angle)
    return WINDOWS[features.window](size, periodic, dtype)


WINDOWS: dict[str, Callable[[int, bool, torch.dtype], Tensor]] = {
    "povey": lambda size, periodic, dtype: torch.hann_window(size, periodic, dtype=dtype).pow(0.85),
    "hamming": lambda size, periodic, dtype: torch.hamming_window(size, periodic, dtype=dtype),
    "hanning": lambda size, periodic, dtype: torch.hann_window(size, periodic, dtype=dtype),
    "rectangular": lambda size, periodic, dtype: torch.ones(size, dtype=dtype),
    "blackman": lambda size, periodic, dtype: torch.blackman_window(size, periodic, dtype=dtype),
    "bartlett": lambda size, periodic, dtype: torch.bartlett_window(size, periodic, dtype=dtype),
}


def mel_bank(features: Features, padded: int, sample_rate: int) -> Tensor:
    """(padded // 2 + 1, bins) triangles, linear in mel = 1127 ln(1 + f / 700), between low_freq and high_freq, float32.

    ValueError where the frequencies do not fit the sample rate.
    """
    low, top = edges(features, sample_rate, 0.5 * sample_rate)
    lowest, highest = (1127.0 * math.log(1.0 + edge / 700.0) for edge in (low, top))
    step = (highest - lowest) / (features.bins + 1)
    number = torch.arange(features.bins).unsqueeze(1)
    left, centre, right = lowest + number * step, lowest + (number + 1.0) * step, lowest + (number + 2.0) * step
    if features.vtln_warp != 1.0:
        left, centre, right = (vtln.warped(mel, features, low, top, sample_rate) for mel in (left, centre, right))
    mel = 1127.0 * (1.0 + sample_rate / padded * torch.arange(padded / 2) / 700.0).log()
    rise, fall = (mel - left) / (centre - left), (right - mel) / (right - centre)
    # The Nyquist line has no weight in Kaldi.
    return torch.nn.functional.pad(torch.minimum(rise, fall).clamp(min=0.0).T, (0, 0, 0, 1))


def edges(features: Features, sample_rate: int, nyquist: float) -> tuple[float, float]:
    """Lowest and highest frequency of a mel bank, Hz. ValueError where they do not fit the sample rate."""
    low, high = features.low_freq, features.high_freq
    top = high if high > 0 else nyquist + high
    if not 0 <= low < top <= nyquist:
        raise ValueError(
            f"features.low_freq={low:g} and features.high_freq={high:g} do not fit audio.sample_rate={sample_rate}: "
            f"0 <= low < high <= {nyquist:g} must hold (a high_freq <= 0 counts from {nyquist:g})"
        )
    return low, top


def cosines(bins: int, ceps: int, lifter: float = 22.0) -> tuple[Tensor, Tensor]:
    """(bins, ceps) orthonormal DCT-II matrix and the (ceps,) lifter 1 + L/2 sin(pi i / L) of Kaldi's MFCC, float32."""
    number = torch.arange(float(bins))
    matrix = torch.cos(math.pi / float(bins) * (number + 0.5) * number.unsqueeze(1))
    matrix[0] *= 1.0 / math.sqrt(2.0)
    matrix *= math.sqrt(2.0 / float(bins))
    matrix = matrix.T.clone()
    matrix[:, 0] = math.sqrt(1 / float(bins))
    lift = torch.ones(ceps) if lifter == 0 else 1.0 + 0.5 * lifter * torch.sin(math.pi * torch.arange(ceps) / lifter)
    return matrix[:, :ceps], lift


def transform(bins: int, ceps: int, norm: str) -> Tensor:
    """(bins, ceps) DCT-II of torchaudio's MFCC, float32; orthonormal, or twice the plain sums."""
    number = torch.arange(float(bins))
    matrix = torch.cos(math.pi / float(bins) * (number + 0.5) * torch.arange(float(ceps)).unsqueeze(1))
    if norm == "none":
        return (2.0 * matrix).T
    matrix[0] *= 1.0 / math.sqrt(2.0)
    return (matrix * math.sqrt(2.0 / float(bins))).T


BREAK = 1000.0  # Hz: Slaney's scale is linear below (200 / 3 Hz a mel), logarithmic above (27 mel for a factor of 6.4)
MEL = 200.0 / 3
STEP = math.log(6.4) / 27.0


def triangles(features: Features, fft: int, sample_rate: int) -> Tensor:
    """(fft // 2 + 1, bins) triangles, linear in Hz, float32. Their corners lie evenly on a mel scale.

    htk: 2595 log10(1 + f / 700); slaney: see BREAK. mel_norm=slaney: each has area 1 over Hz, so noise is level over
    bins. mel_slopes=lower: the upper side of a triangle is as wide as the lower one (SpeechBrain). As in torchaudio the
    last line is taken for the Nyquist frequency, which with an odd `fft` it is not quite, and a triangle that falls
    between two lines stays zero. ValueError where the frequencies do not fit the sample rate.
    """
    nyquist = float(sample_rate // 2)
    low, top = (_to_mel(edge, features.mel_scale) for edge in edges(features, sample_rate, nyquist))
    corners = _to_hz(torch.linspace(low, top, features.bins + 2), features.mel_scale)
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    if features.mel_slopes == "lower":
        right = 2 * centre - left
    line = torch.linspace(0, nyquist, fft // 2 + 1).unsqueeze(1)
    bank = torch.minimum((line - left) / (centre - left), (right - line) / (right - centre)).clamp(min=0.0)
    return bank * (2.0 / (right - left)) if features.mel_norm == "slaney" else bank


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
