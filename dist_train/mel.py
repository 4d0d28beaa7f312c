"""The constants of Kaldi's features: windows, mel bank, cosine transform. In: sizes and frequencies. Out: CPU tensors.

All follow `torchaudio.compliance.kaldi` rounding by rounding (mel bank and cosines are float32 there, whatever the
waveform's type), because in bins far below a frame's loudest the last bit of a constant is seen in the logarithm.
"""

import math
from collections.abc import Callable

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
