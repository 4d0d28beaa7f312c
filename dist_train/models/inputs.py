"""Samples (B, T) -> what an encoder of `transformers` takes, as the feature extractor beside its weights says.

    Wav2Vec2FeatureExtractor       samples, of mean 0 and variance 1                         (B, T)
    WhisperFeatureExtractor        log10 mel of 30 s, silence behind the clip                (B, bins, 2 positions)
    ASTFeatureExtractor            Kaldi Fbank, cut or filled up to max_length frames        (B, frames, bins)
    SeamlessM4TFeatureExtractor    Kaldi Fbank, each bin of mean 0, two frames side by side  (B, frames / 2, 2 bins)

The same arithmetic in one batch on the device. Each has `least` and `most` samples that a clip may have (None: any),
`count(samples)`, how many valid steps of its output so many samples make (ints or int64 tensors), and `forward(wave_BT,
samples_B)`; `samples_B` None says that all rows are full. A row's own steps do not depend on what lies behind it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
import torchaudio
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.nn import functional

from dist_train.models.blocks import blank, padding

Count = TypeVar("Count", int, Tensor)

FRAME, SHIFT, PADDED = 400, 160, 512  # of the two Kaldi front ends at 16 kHz
PREEMPHASIS = 0.97
KALDI_FLOOR, WHISPER_FLOOR = torch.finfo(torch.float32).eps, 1e-10  # under the logarithms
DEVIATION_FLOOR = 1e-7  # added to variances
WHISPER_RANGE = 8.0  # powers of ten under a clip's loudest value that are kept


def wide(device: torch.device) -> AbstractContextManager[Any]:
    """Without autocast: a spectrum does not survive 8 bits of mantissa."""
    return torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()


class Samples(nn.Module):
    """Wav2Vec2FeatureExtractor: each clip's mean and deviation removed, if its `do_normalize` says so."""

    most = None

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.normalise, self.fill = bool(extractor.do_normalize), float(extractor.padding_value)
        self.least = 1
        layers = zip(config.conv_kernel, config.conv_stride, strict=True) if hasattr(config, "conv_kernel") else ()
        for kernel, stride in reversed(list(layers)):
            self.least = (self.least - 1) * stride + kernel

    def count(self, samples: Count) -> Count:
        return samples

    def forward(self, wave_BT: Tensor, samples_B: Tensor | None) -> Tensor:
        if not self.normalise:
            return wave_BT
        mask = padding(samples_B, wave_BT[:, None])
        pad_BT = None if mask is None else mask[:, 0]
        size = wave_BT.shape[1] if samples_B is None else samples_B[:, None]
        wave_BT = wave_BT - wave_BT.sum(1, keepdim=True) / size
        wave_BT = blank(wave_BT, pad_BT)
        variance_B1 = wave_BT.square().sum(1, keepdim=True) / size
        wave_BT = wave_BT / (variance_B1 + DEVIATION_FLOOR).sqrt()
        return wave_BT if pad_BT is None else wave_BT.masked_fill(pad_BT, self.fill)


class LogMel(nn.Module):
    """WhisperFeatureExtractor, for an encoder of `positions`: 1500, or fewer where it has been cut."""

    least = 1

    def __init__(self, extractor: Any, positions: int) -> None:
        super().__init__()
        self.size, self.shift = int(extractor.n_fft), int(extractor.hop_length)
        self.most = 2 * positions * self.shift
        self.bank = nn.Buffer(torch.from_numpy(extractor.mel_filters).float(), persistent=False)
        self.window = nn.Buffer(torch.hann_window(self.size), persistent=False)

    def count(self, samples: Count) -> Count:
        return (samples + self.shift - 1) // self.shift

    def forward(self, wave_BT: Tensor, samples_B: Tensor | None) -> Tensor:
        wave_BT = functional.pad(wave_BT, (0, self.most - wave_BT.shape[1]))
        wave_BT = functional.pad(wave_BT[:, None], (self.size // 2, self.size // 2), mode="reflect")[:, 0]
        frames = wave_BT.unfold(1, self.size, self.shift)[:, :-1] * self.window
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1)
        level = (power @ self.bank).clamp(min=WHISPER_FLOOR).log10()
        level = torch.maximum(level, level.amax((1, 2), keepdim=True) - WHISPER_RANGE)
        return ((level + 4.0) / 4.0).transpose(1, 2)


class Kaldi(nn.Module):
    """Log Fbank of Kaldi: (B, T) -> (B, frames, bins), T >= 400; a frame sees its own 400 samples only."""

    def __init__(self, window: Tensor, bank: Tensor) -> None:
        """`window` (400,) and `bank` (257, bins)."""
        super().__init__()
        self.window = nn.Buffer(window.float(), persistent=False)
        self.bank = nn.Buffer(bank.float(), persistent=False)

    def forward(self, wave_BT: Tensor) -> Tensor:
        frames = wave_BT.unfold(1, FRAME, SHIFT)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
        frames = (frames - PREEMPHASIS * before) * self.window
        power = torch.view_as_real(torch.fft.rfft(frames, PADDED)).square().sum(-1)
        energy: Tensor = (power @ self.bank).clamp(min=KALDI_FLOOR).log()
        return energy


def _frames(samples: Count) -> Count:
    return (samples - FRAME) // SHIFT + 1


class Patches(nn.Module):
    """ASTFeatureExtractor; `frames` of an encoder's input: its max_length, or fewer where it has been cut."""

    least = FRAME

    def __init__(self, extractor: Any, frames: int) -> None:
        super().__init__()
        self.frames, self.most = frames, FRAME + frames * SHIFT - 1
        rate, bins = float(extractor.sampling_rate), int(extractor.num_mel_bins)
        bank, _ = torchaudio.compliance.kaldi.get_mel_banks(bins, PADDED, rate, 20.0, 0.0, 100.0, -500.0, 1.0)
        self.kaldi = Kaldi(torch.hann_window(FRAME, periodic=False), functional.pad(bank, (0, 1)).T.contiguous())
        self.mean = float(extractor.mean) if extractor.do_normalize else 0.0
        self.deviation = 2 * float(extractor.std) if extractor.do_normalize else 1.0

    def count(self, samples: Count) -> Count:
        return _frames(samples)

    def forward(self, wave_BT: Tensor, samples_B: Tensor | None) -> Tensor:
        level: Tensor = self.kaldi(wave_BT)
        if samples_B is not None:
            past_BT = torch.arange(level.shape[1], device=level.device) >= self.count(samples_B)[:, None]
            level = level.masked_fill(past_BT[..., None], 0.0)
        level = functional.pad(level, (0, 0, 0, self.frames - level.shape[1]))
        return (level - self.mean) / self.deviation


class Stacked(nn.Module):
    """SeamlessM4TFeatureExtractor: what w2v-BERT 2.0 hears. A last frame without a neighbour is left out."""

    most = None

    def __init__(self, extractor: Any, config: Any) -> None:
        super().__init__()
        self.stride, self.fill = int(extractor.stride), float(extractor.padding_value)
        self.least = FRAME + max(1, self.stride - 1) * SHIFT  # a deviation needs two frames
        window = torch.from_numpy(extractor.window).float()
        self.kaldi = Kaldi(window, torch.from_numpy(extractor.mel_filters))

    def count(self, samples: Count) -> Count:
        return _frames(samples) // self.stride

    def forward(self, wave_BT: Tensor, samples_B: Tensor | None) -> Tensor:
        level = self.kaldi(wave_BT * 2.0**15)
        size: int | Tensor = level.shape[1]
        past = None
        if samples_B is not None:
            size = _frames(samples_B)[:, None, None]
            past = torch.arange(level.shape[1], device=level.device)[:, None] >= size
        level = blank(level, past)
        level = blank(level - level.sum(1, keepdim=True) / size, past)
        variance = level.square().sum(1, keepdim=True) / (size - 1)
        level = level / (variance + DEVIATION_FLOOR).sqrt()
        level = level if past is None else level.masked_fill(past, self.fill)
        frames = level.shape[1] // self.stride
        return level[:, : frames * self.stride].reshape(len(level), frames, -1)


Preparation = Samples | LogMel | Patches | Stacked
KNOWN: dict[str, tuple[Callable[..., Preparation], tuple[str, ...]]] = {  # and the encoders it is known with; (): any
    "Wav2Vec2FeatureExtractor": (Samples, ()),
    "WhisperFeatureExtractor": (LogMel, ("whisper",)),
    "ASTFeatureExtractor": (Patches, ("audio-spectrogram-transformer",)),
    "SeamlessM4TFeatureExtractor": (Stacked, ("wav2vec2-bert",)),
}
