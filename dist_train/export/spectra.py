"""Windows (N, T) -> features (N, F, bins) in operations that every runtime has: the Fourier transform is a product.

The arithmetic is that of `features.Fbank`, `spectrogram.Spectrogram` and `waveform.Waveform`, whose constants are taken
over; their scratch memory, blocks and chunks are left out, which change nothing but the order of additions.
`filled_N` (N,) int64: samples of a row that count, where short clips are padded (audio.short=pad); None: all.
"""

import math

import torch
from torch import Tensor, nn

from dist_train.edges import extended, padded, silenced
from dist_train.export.cut import split
from dist_train.features import EPSILON, Fbank
from dist_train.settings import Audio, Features
from dist_train.spectra.mel import mel_bank
from dist_train.spectra.spectrogram import Spectrogram
from dist_train.spectra.waveform import Waveform

WAYS = 4  # of the transform
SLICES = 16  # more parts of a frame are picked one by one


class Frames(nn.Module):
    """(N, T) -> (N, frames, length), each `shift` after the one before; what is left over at the end is not heard.

    By slices of the parts that frames have in common, where these are long: picking samples one by one is slower than
    the transform.
    """

    def __init__(self, length: int, shift: int) -> None:
        super().__init__()
        self.length, self.shift, self.part = length, shift, math.gcd(length, shift)
        self.sliced = length // self.part <= SLICES

    def count(self, wave_NT: Tensor) -> int:
        """Frames that lie within."""
        return (wave_NT.shape[1] - self.length) // self.shift + 1

    def forward(self, wave_NT: Tensor) -> Tensor:
        if self.sliced:
            return torch.cat(self._slices(wave_NT), 2)
        count = self.count(wave_NT)
        place_FS = torch.arange(count)[:, None] * self.shift + torch.arange(self.length)
        return split(wave_NT.index_select(1, place_FS.flatten()), 1, (count, self.length))

    def mean(self, wave_NT: Tensor) -> Tensor:
        """(N, frames, 1): each frame's mean."""
        if not self.sliced:
            frame_NFS: Tensor = self(wave_NT)
            return frame_NFS.mean(2, keepdim=True)
        sums = [part_NFP.sum(2, keepdim=True) for part_NFP in self._slices(wave_NT)]
        return torch.cat(sums, 2).sum(2, keepdim=True) / self.length

    def _slices(self, wave_NT: Tensor) -> list[Tensor]:
        """Each of a frame's parts, of all frames: (N, frames, part)."""
        count, step = self.count(wave_NT), self.shift // self.part
        part_NPS = split(wave_NT[:, : (count - 1) * self.shift + self.length], 1, (-1, self.part))
        last = (count - 1) * step + 1
        return [part_NPS[:, first : first + last : step] for first in range(self.length // self.part)]


class Power(nn.Module):
    """Frames (N, F, length) -> powers of their spectrum (N, F, lines), by products with matrices.

    Samples 0, 4, 8 ..., 1, 5, 9 ... and so on are transformed each by itself and put together (Cooley and Tukey, 1965):
    a quarter of the multiplications, and of the file. The lines come as they fall out of that; `bank` and `order` say
    which is which.
    """

    matrix: Tensor
    twiddles: Tensor

    def __init__(self, window: Tensor, fft: int) -> None:
        """`window`: of a frame, whose transform has `fft` samples."""
        super().__init__()
        self.ways = WAYS if fft % WAYS == 0 else 1
        self.fill = -len(window) % self.ways
        part, lines = fft // self.ways, fft // self.ways // 2 + 1
        sample = torch.arange((len(window) + self.fill) // self.ways)[:, None]
        self.register_buffer("window", window.double().float(), persistent=True)
        self.register_buffer("matrix", torch.cat(_wave(sample * torch.arange(lines), part), 1))
        angle = torch.arange(self.ways)[:, None, None] * torch.arange(lines)
        self.register_buffer("twiddles", torch.stack(_wave(angle, fft)))
        place = torch.arange(self.ways)[:, None] * part + torch.arange(lines)
        self.lines = torch.minimum(place, fft - place).flatten().tolist()  # of what comes out, some twice
        self.order = [self.lines.index(line) for line in range(fft // 2 + 1)]

    def bank(self, bank: Tensor) -> Tensor:
        """(lines, bins) of a spectrum -> for the lines as they come; of a line that comes twice one counts."""
        wide = bank.new_zeros(len(self.lines), bank.shape[1])
        wide[self.order] = bank
        return wide

    def forward(self, frame_NFS: Tensor) -> Tensor:
        frame_NFS = frame_NFS * self.get_buffer("window")
        if self.fill:
            frame_NFS = nn.functional.pad(frame_NFS, (0, self.fill))
        if self.ways == 1:
            real, imaginary = (frame_NFS @ self.matrix).chunk(2, -1)
            return real * real + imaginary * imaginary
        part_NWFS = split(frame_NFS, 2, (-1, self.ways)).permute(0, 3, 1, 2)
        real, imaginary = (part_NWFS @ self.matrix).chunk(2, -1)
        cos, sin = self.twiddles
        real, imaginary = real * cos - imaginary * sin, real * sin + imaginary * cos
        (a, b, c, d), (e, f, g, h) = real.unbind(1), imaginary.unbind(1)
        even = (a + c, e + g), (a - c, e - g)
        odd = (b + d, f + h), (f - h, d - b)
        sums = [(p[0] + q[0], p[1] + q[1]) for p, q in zip(even, odd, strict=True)]
        gaps = [(p[0] - q[0], p[1] - q[1]) for p, q in zip(even, odd, strict=True)]
        return torch.cat([x * x + y * y for x, y in (*sums, *gaps)], -1)


def _wave(turns: Tensor, whole: int) -> tuple[Tensor, Tensor]:
    """Cosine and minus sine of turns / whole, with angles of whole numbers: large ones would lose digits else."""
    angle = (turns % whole).double() * (2 * math.pi / whole)
    return angle.cos().float(), -angle.sin().float()


class Kaldi(nn.Module):
    """Kaldi's Fbank and MFCC, neither dithered nor normalised."""

    bank: Tensor

    def __init__(self, audio: Audio, features: Features, made: Fbank) -> None:
        super().__init__()
        self.made, self.keys, self.frames = made, features, Frames(made.size, made.shift)
        self.power = Power(made.window.cpu(), made.padded)
        self.register_buffer("bank", self.power.bank(mel_bank(features, made.padded, audio.sample_rate)))
        if made.cosines is not None:
            self.register_buffer("cosines", made.cosines[0] * made.cosines[1])

    def valid(self, filled_N: Tensor) -> Tensor:
        """Frames that count of rows of so many samples."""
        made, filled_N = self.made, filled_N.clamp(min=self.made.size)
        if not self.keys.snip_edges:
            return (filled_N + made.shift // 2) // made.shift
        return (filled_N - made.size) // made.shift + 1

    def forward(self, wave_NT: Tensor, filled_N: Tensor | None) -> Tensor:
        """(N, T) -> (N, F, bins)."""
        made, keys = self.made, self.keys
        if not keys.snip_edges:
            samples = (made.frames(wave_NT.shape[1]) - 1) * made.shift + made.size
            if filled_N is not None:
                wave_NT, filled_N = silenced(wave_NT, filled_N), filled_N.clamp(min=made.size)
            wave_NT = extended(wave_NT, made.left, samples, filled_N, "mirror")
        if keys.waveform_scale != 1.0:
            wave_NT = wave_NT * keys.waveform_scale
        frame_NFS, total_NF = self._emphasised(wave_NT)
        power_NFL = self.power(frame_NFS)
        energy_NFM = (power_NFL if keys.power == 2 else power_NFL.sqrt()) @ self.bank
        if keys.scale == "ln":
            energy_NFM = (energy_NFM + keys.log_offset).clamp(min=made.floor).log()
        if made.cosines is not None:
            energy_NFM = energy_NFM @ self.get_buffer("cosines")
        return energy_NFM if total_NF is None else self._beside(energy_NFM, total_NF)

    def _emphasised(self, wave_NT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Centred, pre-emphasised frames, the window still to come, and their log energy where it is asked for."""
        made, keys = self.made, self.keys
        mean_NF1 = self.frames.mean(wave_NT)
        if made.late_mean:  # `Fbank._late_mean`: emphasis once a sample, the mean taken off after it
            bent_NT = wave_NT - keys.preemphasis * nn.functional.pad(wave_NT[:, :-1], (1, 0))
            return self.frames(bent_NT) - mean_NF1 * made.constant, None
        frame_NFS = self.frames(wave_NT)
        if keys.remove_dc:
            frame_NFS = frame_NFS - mean_NF1
        total_NF = self._energy(frame_NFS) if keys.use_energy and keys.raw_energy else None
        if keys.preemphasis:
            before_NFS = torch.cat([frame_NFS[..., :1], frame_NFS[..., :-1]], -1)
            frame_NFS = frame_NFS - keys.preemphasis * before_NFS
        if keys.use_energy and not keys.raw_energy:
            total_NF = self._energy(frame_NFS * made.window)
        return frame_NFS, total_NF

    def _energy(self, frame_NFS: Tensor) -> Tensor:
        energy_NF = frame_NFS.square().sum(-1).clamp(min=EPSILON).log()
        floor = self.keys.energy_floor
        return energy_NF if floor == 0.0 else energy_NF.clamp(min=math.log(floor))

    def _beside(self, feat_NFB: Tensor, total_NF: Tensor) -> Tensor:
        """The energy as a column more (Fbank), or in the place of C0 (MFCC)."""
        last, mfcc = self.keys.htk_compat, self.made.cosines is not None
        total_NF1 = total_NF[..., None]
        if mfcc:
            feat_NFB = feat_NFB[..., :-1] if last else feat_NFB[..., 1:]
        return torch.cat([feat_NFB, total_NF1] if last else [total_NF1, feat_NFB], -1)


class Spectra(nn.Module):
    """torchaudio's spectrogram, mel spectrogram and MFCC."""

    def __init__(self, features: Features, made: Spectrogram) -> None:
        super().__init__()
        self.made, self.keys, self.frames = made, features, Frames(len(made.window), made.shift)
        self.power = Power(made.window.cpu(), made.fft)
        self.after = made.fft - made.left - len(made.window)  # zeros behind the window, where the transform is longer
        self.register_buffer("bank", None if made.bank is None else self.power.bank(made.bank.cpu().float()))
        self.register_buffer("cosines", made.cosines)

    def valid(self, filled_N: Tensor) -> Tensor:
        """Frames that count of rows of so many samples."""
        return (filled_N.clamp(min=self.made.size) + self.made.around) // self.made.shift + 1

    def forward(self, wave_NT: Tensor, filled_N: Tensor | None) -> Tensor:
        """(N, T) -> (N, F, bins)."""
        made, keys, valid_N = self.made, self.keys, None
        if filled_N is not None:
            wave_NT, valid_N = silenced(wave_NT, filled_N), self.valid(filled_N)
            filled_N = filled_N.clamp(min=made.size) + 2 * keys.pad
        if keys.waveform_scale != 1.0:
            wave_NT = wave_NT * keys.waveform_scale
        if keys.pad:
            wave_NT = nn.functional.pad(wave_NT, (keys.pad, keys.pad))
        if made.margin:
            wave_NT = padded(wave_NT, made.margin, filled_N, keys.pad_mode)
        feat_NFB = self.power(self.frames(wave_NT[:, made.left : wave_NT.shape[1] - self.after]))
        if keys.power != 2.0:
            feat_NFB = feat_NFB.sqrt() if keys.power == 1.0 else feat_NFB.pow(keys.power / 2)
        feat_NFB = feat_NFB[..., self.power.order] if made.bank is None else feat_NFB @ self.get_buffer("bank")
        feat_NFB = made.levels.limited(made.levels.scaled(feat_NFB), valid_N)
        return feat_NFB if made.cosines is None else feat_NFB @ self.get_buffer("cosines")


class Samples(nn.Module):
    """The samples as they are, for networks that make their own features."""

    def __init__(self, made: Waveform) -> None:
        super().__init__()
        self.scale = made.scale

    def valid(self, filled_N: Tensor) -> Tensor:
        """As many as there are samples."""
        return filled_N.clamp(min=1)

    def forward(self, wave_NT: Tensor, filled_N: Tensor | None) -> Tensor:
        """(N, T) -> (N, T, 1)."""
        return (wave_NT * self.scale)[..., None]


def spectra(audio: Audio, features: Features, made: Fbank | Spectrogram | Waveform) -> Kaldi | Spectra | Samples:
    """The form of an extractor that becomes a graph."""
    if isinstance(made, Fbank):
        return Kaldi(audio, features, made)
    return Spectra(features, made) if isinstance(made, Spectrogram) else Samples(made)
