"""The functions of tensors that a batch goes through, for one kind of batch; compiled on demand.

    sound   bytes -> pcm -> rate -> speed -> fill -> level          (B, C, T) waveforms
    mixed   waveforms -> gain, shift -> mixup, CutMix -> dither     (B, C, T); or moved, blended: two halves
    heard   waveforms -> features -> norm -> CutMix, SpecAugment    (B, T, F)

Several, so that waveforms lie in memory where frames are cut: in one, a compiler would make each sample again for each
frame that holds it. All shapes are in `Kind`, all numbers of the rows in a table of columns (I, B) and (F, B).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from dist_train.archive.row import CODECS
from dist_train.batched.pcm import Pcm
from dist_train.batched.polyphase import Polyphase, corner
from dist_train.effects.gaussian import gaussian
from dist_train.effects.masks import filling
from dist_train.effects.mixing import pressures
from dist_train.settings import Augment, Features
from dist_train.spectra.norm import normalise

Columns = Mapping[str, Tensor]


@dataclass(frozen=True)
class Kind:
    """All that the compiled code takes for granted; everything else lies in tensors."""

    training: bool
    rows: int
    samples: int  # of a window
    middle: int  # samples at audio.sample_rate that the widest row's speed filter sees
    inputs: int  # source frames of the widest row
    pitch: int  # bytes of a row
    sources: int  # channels of a clip, at most
    codecs: tuple[CODECS, ...]
    rates: tuple[int, ...]  # audio.sample_rate is always one of them
    whole: tuple[str, ...] = ()  # names of the table's columns
    part: tuple[str, ...] = ()


class Program:
    """`sound`, `mixed` and `heard` of one kind of batch, as they stand or compiled; pure."""

    def __init__(
        self,
        kind: Kind,
        augment: Augment,
        features: Features,
        *,
        pcm: Pcm,
        stage: Polyphase,
        speeds: Polyphase,
        bank: Any,
        line: int,
        compile: bool,
    ) -> None:
        self.kind, self.augment, self.features = kind, augment, features
        self.pcm, self.stage, self.speeds, self.bank = pcm, stage, speeds, bank
        self.line = line  # bins of one channel
        self.sound, self.mixed, self.heard = self._sound, self._mixed, self._heard
        self.moved, self.blended = self._moved, self._blended
        if compile:
            self.sound = torch.compile(_own(self.sound), dynamic=False, fullgraph=True)
            self.mixed = torch.compile(_own(self.mixed), dynamic=False, fullgraph=True)
            self.heard = torch.compile(_own(self.heard), dynamic=False, fullgraph=True)
            self.moved = torch.compile(_own(self.moved), dynamic=False, fullgraph=True)
            self.blended = torch.compile(_own(self.blended), dynamic=False, fullgraph=True)

    def _sound(self, views: tuple[Tensor, ...], whole_IB: Tensor, part_FB: Tensor) -> Tensor:
        """Bytes as `Pcm.views` has them -> (B, C, T)."""
        kind, small_IB = self.kind, whole_IB.to(torch.int32)  # 64-bit divisions are slow on a GPU
        whole = _named(small_IB if views[0].nbytes < 2**31 else whole_IB, kind.whole)
        wave_BCN = self.pcm(views, kind.codecs, whole, kind.sources, kind.inputs)
        whole = _named(small_IB, kind.whole)
        if len(kind.rates) > 1:
            place = _places(kind.middle, whole_IB)
            drop, low, high = (whole[name][:, None] for name in ("drop", "rate low", "rate high"))
            wave_BCN = self.stage(wave_BCN, place + drop, _three(whole, "rate"))
            wave_BCN = torch.where(((place >= low) & (place < high))[:, None], wave_BCN, 0)
        offset, period, length, window = (whole[name][:, None] for name in ("offset", "period", "length", "window"))
        place = _places(kind.samples, whole_IB)
        source = (place - offset) % period
        wave_BCT = self.speeds(wave_BCN, source, _three(whole, "speed"))
        inside = (source < length) & (place < window)
        return torch.where(inside[:, None], wave_BCT, 0) * part_FB[kind.part.index("level")][:, None, None]

    def _mixed(self, wave_BCT: Tensor, whole_IB: Tensor, part_FB: Tensor) -> Tensor:
        """(B, C, T) -> (B, C, T) with gain, shift, mixup and dither."""
        return self._blended(self._moved(wave_BCT, whole_IB, part_FB), whole_IB, part_FB, None)

    def _moved(self, wave_BCT: Tensor, whole_IB: Tensor, part_FB: Tensor) -> Tensor:
        """Gain and shift."""
        if self.augment.shift > 0:
            place, small = _places(self.kind.samples, whole_IB), _named(whole_IB.to(torch.int32), self.kind.whole)
            steps, filled = small["steps"][:, None], small["filled"][:, None]
            source = place - steps
            source = torch.where(source < 0, source + filled, source)
            source = torch.where(place < filled, source, place)
            row, channel = corner(wave_BCT)
            wave_BCT = wave_BCT[row, channel, source[:, None]]
        return wave_BCT * part_FB[self.kind.part.index("gain")][:, None, None]

    def _blended(self, wave_BCT: Tensor, whole_IB: Tensor, part_FB: Tensor, loud_B: Tensor | None) -> Tensor:
        """Mixup, CutMix and dither. `loud_B`: the sound pressure of each row, for between-class learning (`mixing`)."""
        whole, part, cut = _named(whole_IB, self.kind.whole), self.kind.part, self.augment.cutmix
        before_BCT = wave_BCT
        if self.augment.mixup.probability > 0:
            share = part_FB[part.index("share" if cut.probability > 0 else "mix")]
            partner, own, rest = whole["partner"], share, 1 - share
            if loud_B is not None:
                own, rest = pressures(loud_B, loud_B[partner], share)
            wave_BCT = wave_BCT * own[:, None, None] + wave_BCT[partner] * rest[:, None, None]
        if cut.probability > 0 and cut.part == "time":
            inside = _within(_places(wave_BCT.shape[2], whole_IB), whole, "cut 0", "cut 1")
            wave_BCT = torch.where(inside, before_BCT[whole["partner"]], wave_BCT)
        if dithers(self.features):
            level = self.features.dither / self.features.waveform_scale
            noise = gaussian(whole["key"], wave_BCT.shape[1], wave_BCT.shape[2])
            wave_BCT = wave_BCT + noise.to(wave_BCT.dtype) * level
        return wave_BCT

    def _heard(self, wave_BCT: Tensor, whole_IB: Tensor, statistics_2F: Tensor | None) -> Tensor:
        """(B, C, T) -> (B, frames, channels * bins), normalised and masked."""
        whole, norm = _named(whole_IB, self.kind.whole), self.features.norm
        if norm == "batch" and not self.kind.training:
            norm = "clip"  # a score must not depend on batch mates
        feat_BTF = normalise(self.transform(wave_BCT, whole["until"]), whole["frames"], norm, statistics_2F)
        cut = self.augment.cutmix
        if self.kind.training and cut.probability > 0 and cut.part == "box":
            time = _within(_places(feat_BTF.shape[1], whole_IB)[:, None], whole, "cut 0", "cut 1")
            line = _within(_places(feat_BTF.shape[2], whole_IB) % self.bank.bins, whole, "cut 2", "cut 3")
            feat_BTF = torch.where(time & line, feat_BTF[whole["partner"]], feat_BTF)
        if self.kind.training and self.augment.spec is not None:
            feat_BTF = self._mask(feat_BTF, whole)
        return feat_BTF

    def transform(self, wave_BCT: Tensor, until_B: Tensor) -> Tensor:
        """(B, C, T) -> (B, frames, channels * bins), channels side by side. The first `until` samples count."""
        batch, channels, _ = wave_BCT.shape
        feat: Tensor = self.bank.batched(wave_BCT.flatten(0, 1), until_B.repeat_interleave(channels))
        if channels == 1:
            return feat
        return feat.view(batch, channels, -1, self.bank.bins).transpose(1, 2).flatten(2).contiguous()

    def _mask(self, feat_BTF: Tensor, whole: Columns) -> Tensor:
        """SpecAugment; a row's tail is zero and stays so."""
        spec = self.augment.spec
        assert spec is not None
        frames, bins = feat_BTF.shape[1:]
        count_B = whole["frames"][:, None, None]
        level = filling(feat_BTF, whole["frames"], spec.fill, whole.get("mask key"))
        time = torch.arange(frames, device=feat_BTF.device)[:, None]
        line = torch.arange(bins, device=feat_BTF.device) % self.line
        for kind, place, masks in (("freq", line, spec.freq_masks), ("time", time, spec.time_masks)):
            for mask in range(masks):
                inside = _within(place, whole, f"{kind} first {mask}", f"{kind} end {mask}")
                feat_BTF = torch.where(inside, level, feat_BTF)
        return torch.where(time < count_B, feat_BTF, 0)


def dithers(features: Features) -> bool:
    """Whether noise is added before the features; Kaldi's alone have it."""
    return features.dither > 0 and features.name in ("fbank", "mfcc")


def _own(method: Any) -> Any:
    """A copy: dynamo compiles a function eight times at most, however many objects have it as a method."""
    function = method.__func__
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    return MethodType(copy, method.__self__)


def _named(table: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    return dict(zip(names, table.unbind(), strict=True))


def _places(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=torch.int32, device=like.device)


def _within(place: Tensor, whole: Columns, first: str, end: str) -> Tensor:
    """(B, ...) bool: which places lie in each row's span."""
    return (place >= whole[first][:, None, None]) & (place < whole[end][:, None, None])


def _three(whole: Columns, name: str) -> tuple[Tensor, ...]:
    """(B, 1) orig, new and first phase of a conversion."""
    return tuple(whole[f"{name} {place}"][:, None] for place in range(3))
