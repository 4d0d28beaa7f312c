"""Waveforms at one rate -> waveforms at another, equal to `torchaudio.transforms.Resample` and `.Speed`, batched.

In: (rows, samples) on any device. Out: (rows, samples * new / orig), a whole number of blocks.

A polyphase filter makes `new` outputs from `orig` inputs and a margin of `width` on either side, block after block:

    inputs   |--width--|---orig---|---orig---|---orig---|--width--|
    outputs            |--- new --|--- new --|--- new --|

Of the `orig + 2 * width` taps of an output most are zero (475 taps at 44.1 -> 16 kHz, 34 of them used). So the outputs
are cut in bands of 32, and a band is one matrix product over the few inputs that it sees; rows of that product overlap
in memory, nothing is copied.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

ZEROS = 6  # zero crossings of the sinc on either side (torchaudio's lowpass_filter_width)
ROLLOFF = 0.99
LIMIT = 2**22  # taps of a kernel: 32 MB in float64 while it is built
LONG = 400  # rows of a product above which each clip has its own
BAND = 32  # outputs a product: 64-wide vectors stay full, and sums run in torchaudio's order (difference 0.0)


@dataclass(frozen=True)
class Ratio:
    """`orig` input samples become `new` output samples (lowest terms); `width` more are needed on either side."""

    orig: int
    new: int

    @property
    def same(self) -> bool:
        return self.orig == self.new

    @property
    def width(self) -> int:
        """Margin in input samples; none where nothing changes."""
        return 0 if self.same else math.ceil(ZEROS * self.orig / (min(self.orig, self.new) * ROLLOFF))

    def length(self, samples: int) -> int:
        """Outputs of a clip of `samples` inputs."""
        return -(-samples * self.new // self.orig)


@lru_cache(maxsize=256)
def rate_ratio(source: int, target: int) -> Ratio:
    """The conversion of a clip at `source` Hz to `target` Hz. ValueError where its filter would be too large."""
    return _checked(
        Fraction(source, target),
        f"clips at {source} Hz cannot be converted to audio.sample_rate={target} while training",
        "pack them at that rate (tools/make_shards.py pack --sample-rate)",
    )


def speed_ratio(factor: Fraction) -> Ratio:
    """Playing `factor` times as fast: 9/10 makes 10 samples of 9. ValueError where its filter would be too large."""
    return _checked(factor, f"augment.speed has the factor {factor}", "take fractions of small numbers, such as 23/20")


def _checked(fraction: Fraction, what: str, mend: str) -> Ratio:
    ratio = Ratio(fraction.numerator, fraction.denominator)
    taps = (ratio.orig + 2 * ratio.width) * ratio.new
    if taps > LIMIT:
        raise ValueError(f"{what}: {ratio.orig}:{ratio.new} needs a filter of {taps} taps (at most {LIMIT}); {mend}")
    return ratio


class Resampler:
    """One conversion on one device: the matrices of its bands."""

    def __init__(self, ratio: Ratio, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        assert not ratio.same
        self.ratio, self.width = ratio, ratio.width
        kernel = _kernel(ratio, dtype)
        # A product reads rows that start `inputs` apart; BLAS wants that to be no less than the row's length.
        reach = 2 * ratio.width + math.ceil(BAND * ratio.orig / ratio.new) + 2
        blocks = max(math.ceil(reach / ratio.orig), math.ceil(BAND / ratio.new))
        self.inputs, self.outputs = blocks * ratio.orig, blocks * ratio.new
        # The last band starts early, over outputs that the band before makes too, so that all are equally wide.
        starts = [*range(0, self.outputs - BAND, BAND), self.outputs - BAND]
        self.bands = [(start, *_band(kernel, ratio, start, device)) for start in starts]

    def strides(self, samples: int) -> int:
        """Rows of the products that make `samples` outputs."""
        return -(-samples // self.outputs)

    def needed(self, samples: int) -> int:
        """Inputs, both margins included, that `samples` outputs are made of; give zeros for those you lack."""
        return self.strides(samples) * self.inputs + 2 * self.width

    def room(self, samples: int) -> int:
        """Values that `into` writes for `samples` outputs."""
        return self.strides(samples) * self.outputs

    def __call__(self, wave_RT: Tensor, samples: int) -> Tensor:
        """(rows, needed(samples)), contiguous -> (rows, samples). Output 0 lies where input `width` lies."""
        assert wave_RT.is_contiguous() and wave_RT.shape[1] >= self.needed(samples)
        out_RT = wave_RT.new_empty(len(wave_RT), self.room(samples))
        self.into(wave_RT, samples, out_RT)
        return out_RT[:, :samples]

    def into(self, wave_RT: Tensor, samples: int, out_RT: Tensor) -> None:
        """(R, needed(samples) or more) -> the first room(samples) of each row. On the CPU no row sees the others."""
        rows, count = len(wave_RT), self.strides(samples)
        out = out_RT[:, : count * self.outputs].view(rows, count, self.outputs)
        alone = count > LONG and wave_RT.device.type == "cpu"
        for start, first, matrix in self.bands:
            steps = (wave_RT.stride(0), self.inputs, 1)
            view = wave_RT.as_strided((rows, count, len(matrix)), steps, wave_RT.storage_offset() + first)
            target = out[:, :, start : start + BAND]
            if alone:  # a product writes where it should; a batch of products needs a copy
                for row, place in zip(view.unbind(), target.unbind(), strict=True):
                    torch.mm(row, matrix, out=place)
            else:
                target.copy_(torch.bmm(view, matrix.expand(rows, -1, -1)))


class Resamplers:
    """The resamplers of a device and type, each made when it is first needed."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype
        self.made: dict[Ratio, Resampler] = {}

    def of(self, ratio: Ratio) -> Resampler:
        """The one of a ratio."""
        if ratio not in self.made:
            self.made[ratio] = Resampler(ratio, self.device, self.dtype)
        return self.made[ratio]

    def convert(self, wave_RCT: Tensor, ratio: Ratio, samples: int) -> Tensor:
        """(R, C, T) -> (R, C, samples). Output 0 lies where input `width` lies; inputs missing at the end are zeros."""
        resampler = self.of(ratio)
        rows, channels, length = wave_RCT.shape
        padded = wave_RCT.new_zeros(rows, channels, resampler.needed(samples))
        length = min(length, padded.shape[2])
        padded[..., :length] = wave_RCT[..., :length]
        return resampler(padded.view(rows * channels, -1), samples).reshape(rows, channels, samples)


def _kernel(ratio: Ratio, dtype: torch.dtype) -> Tensor:
    """(new, orig + 2 * width) windowed sinc taps: `_get_sinc_resample_kernel` of torchaudio, Hann window.

    Built in float64 as torchaudio's transforms do, but for the phases, which they round to float32 (an integer tensor
    divided by a number) unless float64 was asked for; equal results need the same rounding.
    """
    orig, new, width = ratio.orig, ratio.new, ratio.width
    base = min(orig, new) * ROLLOFF
    phases = torch.arange(0, -new, -1, dtype=torch.float64 if dtype == torch.float64 else None)[:, None] / new
    t = phases + torch.arange(-width, width + orig, dtype=torch.float64) / orig
    t = (t * base).clamp(-ZEROS, ZEROS)
    window = torch.cos(t * math.pi / ZEROS / 2) ** 2
    return (torch.sinc(t) * (window * (base / orig))).to(dtype)


def _band(kernel: Tensor, ratio: Ratio, start: int, device: torch.device) -> tuple[int, Tensor]:
    """The first input that outputs [start, start + BAND) see, and their matrix (inputs, BAND)."""
    blocks = range(start // ratio.new, (start + BAND - 1) // ratio.new + 1)
    taps = kernel.shape[1]
    first, last = blocks[0] * ratio.orig, blocks[-1] * ratio.orig + taps
    matrix = kernel.new_zeros(last - first, BAND)
    for column in range(BAND):
        block, phase = divmod(start + column, ratio.new)
        offset = block * ratio.orig - first
        matrix[offset : offset + taps, column] = kernel[phase]
    # Beyond the last zero crossing float64 leaves 1e-50: not zero, and no contribution either.
    seen = torch.nonzero((matrix.abs() > 1e-30).any(1)).flatten()
    low, high = int(seen[0]), int(seen[-1]) + 1
    return first + low, matrix[low:high].contiguous().to(device)
