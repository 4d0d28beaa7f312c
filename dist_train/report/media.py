"""A clip's sound -> what a page holds of it: a small sound file, its waveform as a polygon, its spectrogram."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from dist_train.inspection.hearing import Sound
from dist_train.settings import Features
from dist_train.spectra import mel

LONGEST = 20.0  # seconds of a clip that are kept
_MP3 = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz that the format has
_COLUMNS = 300
_BANDS = 64
_RANGE = 80.0  # dB under the loudest cell that are drawn


@dataclass(frozen=True)
class Media:
    """Data addresses: `audio` (empty: not wanted), `picture`; `wave`: polygon in a box of 300 x 60; peak in dB of full
    scale; `seconds`: of the clip as far as it was heard, `kept` of it."""

    audio: str
    picture: str
    wave: str
    seconds: float
    kept: float
    peak: float
    nyquist: float


def render(sound: Sound, audible: bool) -> Media:
    """The first LONGEST seconds of a sound, its channels averaged. ValueError: it holds no sample."""
    mono = sound.frames.mean(1)
    if not len(mono):
        raise ValueError("it holds no samples")
    wave_T = mono[: int(LONGEST * sound.rate)]
    peak = float(np.abs(wave_T).max())
    return Media(
        encoded(wave_T, sound.rate) if audible else "",
        _address("image/png", _png(spectrogram(wave_T, sound.rate))),
        _polygon(wave_T),
        len(mono) / sound.rate,
        len(wave_T) / sound.rate,
        20 * float(np.log10(max(peak, 1e-5))),
        sound.rate / 2,
    )


def encoded(wave_T: NDArray[np.float32], rate: int) -> str:
    """The data address of an MP3, which every browser plays and is a tenth of a WAV; at most 48 kHz."""
    import soxr

    fitting = max((one for one in _MP3 if one <= rate), default=_MP3[0])
    heard_T = wave_T if fitting == rate else soxr.resample(wave_T, rate, fitting)
    file = io.BytesIO()
    soundfile.write(file, np.clip(heard_T, -1, 1), fitting, format="MP3", subtype="MPEG_LAYER_III")
    return _address("audio/mpeg", file.getvalue())


def spectrogram(wave_T: NDArray[np.float32], rate: int) -> NDArray[np.uint8]:
    """(bands, columns) mel bands by time, the lowest first: 255 for the loudest cell, 0 from 80 dB below it on."""
    size = max(64, 2 ** round(np.log2(0.04 * rate)))
    hop = max(1, round(max(0.01 * rate, len(wave_T) / _COLUMNS)))
    window = torch.hann_window(size)
    padded = torch.nn.functional.pad(torch.from_numpy(np.ascontiguousarray(wave_T)), (size // 2, size // 2))
    power_FT = torch.stft(padded, size, hop, window=window, center=False, return_complex=True).abs().square()
    bands = min(_BANDS, size // 8)
    bank_FB = mel.triangles(Features(bins=bands), size, rate)  # type: ignore[call-arg]
    level_BT = 10 * torch.log10((bank_FB.T @ power_FT).clamp(min=1e-10))
    scaled = (level_BT - level_BT.max() + _RANGE) / _RANGE
    return (scaled.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _png(cells_BT: NDArray[np.uint8]) -> bytes:
    """A PNG of 256 colours, high bands above; equal steps of its scale look equal, in grey too."""
    from matplotlib import colormaps
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(cells_BT[::-1] // 4 * 4), "P")  # 64 shades: a third smaller
    image.putpalette((colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _polygon(wave_T: NDArray[np.float32]) -> str:
    """Least and most of each column, over the peak, in a box of _COLUMNS x 60."""
    starts = np.unique(np.arange(_COLUMNS) * len(wave_T) // _COLUMNS)
    scale = 28 / max(float(np.abs(wave_T).max()), 1e-9)
    high, low = np.maximum.reduceat(wave_T, starts) * scale, np.minimum.reduceat(wave_T, starts) * scale
    across = np.arange(len(starts)) * (_COLUMNS / len(starts))
    there = [f"{x:.0f},{30 - y - 0.4:.1f}" for x, y in zip(across, high, strict=True)]
    back = [f"{x:.0f},{30 - y + 0.4:.1f}" for x, y in zip(across[::-1], low[::-1], strict=True)]
    return " ".join(there + back)


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
