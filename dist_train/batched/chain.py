"""A batch of raw bytes -> normalised features, by three functions of tensors whose shapes stay the same.

`sound` makes waveforms of bytes, `mixed` changes them, `heard` makes features of them; between the first two lie the
changes of single windows and level, which are given. A batch costs two copies to the device, its bytes and one table,
those of the changes that are on, and no wait. Compiled, a batch with fewer rows than those before gets spare ones,
whose results are cut off: no shape varies, nothing is compiled again, and a row's result comes from the same kernels
whatever shares its batch.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import augment as gain
from dist_train import packed
from dist_train.archive.row import BYTES, CODECS
from dist_train.batched import columns as column
from dist_train.batched.kaldi import Kaldi
from dist_train.batched.pcm import Pcm
from dist_train.batched.polyphase import Polyphase
from dist_train.batched.program import Kind, Program, dithers
from dist_train.decode import Rows
from dist_train.effects import mixing
from dist_train.effects.acoustics import loudness
from dist_train.features import extractor
from dist_train.packed import Stored
from dist_train.payload import ALIGN, RawBatch
from dist_train.precision import exact
from dist_train.resample import Ratio, rate_ratio, speed_ratio
from dist_train.settings import Audio, Augment, Features
from dist_train.window import PLAIN, window_samples

PROGRAMS = 6  # compiled at most; batches of yet another kind run uncompiled
STAGE_TAPS = 40  # of stage 1, up to 3.2 times the target rate: a new rate does not change the others' sums
SAME = Ratio(1, 1)

Ints = NDArray[np.int64]
Change = Callable[[Tensor, Rows, Ints], Tensor]


class Made(NamedTuple):
    """The fields of a FrontBatch, in their order."""

    feat_BTF: Tensor
    frames_B: Tensor | None
    label_B: Tensor
    weight_B: Tensor
    partner_B: Tensor
    mix_B: Tensor
    wave_BT: Tensor
    heard_B: Tensor | None


class Batched:
    """The whole front end on one device; its arguments are those of FrontEnd.

    `listen`: how many rows keep their waveform (None: all). `rows`: the most that a batch will have, if it is known.
    `change` (in training) and `level` (always) take waveforms (B, C, T), their PLAN rows and how many samples of each
    count, and return waveforms; `lengths` says how many count after `change`. `bank`: another extractor, with `size`,
    `bins`, `valid` and `batched`, than the one that `features` names. `statistics` as in FrontEnd.
    """

    def __init__(
        self,
        audio: Audio,
        augment: Augment,
        features: Features,
        *,
        seed: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        listen: int | None = None,
        compile: bool = False,
        rows: int = 1,
        change: Change | None = None,
        lengths: Callable[[Rows, Ints], Ints] | None = None,
        level: Change | None = None,
        bank: Any = None,
        stored: Stored | None = None,
    ) -> None:
        self.audio, self.augment, self.features, self.seed = audio, augment, features, seed
        self.device, self.dtype, self.listen, self.rows = torch.device(device), dtype, listen, rows
        self.compile, self.change, self.lengths, self.level = compile, change, lengths, level
        kaldi = features.name in ("fbank", "mfcc")
        made = Kaldi if kaldi else extractor
        self.bank: Any = bank or made(audio, features, self.device, dtype)
        self.channels, self.stored = audio.channels if isinstance(audio.channels, int) else 1, stored
        self.line: int = self.bank.bins if stored is None else stored.bins // stored.channels  # bins of one channel
        self.pcm = Pcm(audio.channels, self.device, dtype)
        self.factors = [*map(speed_ratio, augment.speed), SAME]
        self.speeds = Polyphase(self.factors, self.device, dtype)
        self.stages: dict[tuple[int, ...], Polyphase] = {}  # by the rates that occur
        self.samples = max(window_samples(audio), self.bank.size)
        self.statistics: Tensor | None = None
        self.moments: tuple[Tensor, Tensor] | None = None  # as given, and as they lie on the device
        self.latest: dict[bool, Kind] = {}  # by whether it is training
        self.programs: dict[Kind, Program] = {}  # compiled ones

    @torch.no_grad()
    def __call__(self, raw: RawBatch, training: bool) -> Made:
        """Features of a group. With `training`, changed as `augment` says; speed is in the plan already."""
        plan = raw.plan
        filled = self._filled(plan, training)
        pairs = mixing.alone(len(plan))
        if training:
            pairs = mixing.pairs(plan, self.augment, filled, self.bank.valid, self.bank.bins, self.seed)
        until = pairs.until(filled)
        frames = self.bank.valid(until)
        whole = {"frames": frames, "until": until, "label": plan["label"], "partner": pairs.partner}
        part = {"weight": plan["weight"], "mix": pairs.weight}
        if training:
            column.add_cuts(whole, part, pairs, self.augment.cutmix)
        with exact(self.device):
            wave_BCT, whole_IB, part_FB, program = self._waves(raw, training, filled, whole, part)
            if training and self.augment.mixup.kind == "between_class":
                wave_BCT = program.moved(wave_BCT, whole_IB, part_FB)
                loud_B = loudness(wave_BCT, self.audio.sample_rate)
                wave_BCT = program.blended(wave_BCT, whole_IB, part_FB, loud_B)
            elif training:
                wave_BCT = program.mixed(wave_BCT, whole_IB, part_FB)
            feat_BTF = program.heard(wave_BCT, whole_IB, self._moments())
        count, kind = len(plan), program.kind
        ints, floats = dict(zip(kind.whole, whole_IB, strict=True)), dict(zip(kind.part, part_FB, strict=True))
        frames_B = None if (frames == feat_BTF.shape[1]).all() else ints["frames"][:count]
        weight_B, mix_B = (floats[name][:count].float() for name in ("weight", "mix"))
        label_B, partner_B = ints["label"][:count], ints["partner"][:count]
        heard_B = None
        if not training:
            heard_B = packed.sound(wave_BCT[:count]) if self.stored else wave_BCT[:count].flatten(1).any(1)
        wave_BT = wave_BCT[:count, 0]
        if self.listen is not None:
            wave_BT = wave_BT[: self.listen].clone()  # a view would keep all waves in memory
        return Made(feat_BTF[:count], frames_B, label_B, weight_B, partner_B, mix_B, wave_BT, heard_B)

    @torch.no_grad()
    def raw_features(self, raw: RawBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, F) neither changed nor normalised, (B,) frames and (B,) weights: what `norm.frame_sums` adds up."""
        plan = raw.plan
        filled = self._filled(plan, False)
        whole, part = {"frames": self.bank.valid(filled), "until": filled}, {"weight": plan["weight"]}
        with exact(self.device):
            wave_BCT, whole_IB, part_FB, program = self._waves(raw, False, filled, whole, part)
            kind = program.kind
            frames_B, until_B = (whole_IB[kind.whole.index(name)] for name in ("frames", "until"))
            feat_BTF = program.transform(wave_BCT[: len(plan)], until_B[: len(plan)])
        weight_B = part_FB[kind.part.index("weight")]
        return feat_BTF, frames_B[: len(plan)], weight_B[: len(plan)]

    def _waves(
        self, raw: RawBatch, training: bool, filled: Ints, whole: column.Named, part: column.Named
    ) -> tuple[Tensor, Tensor, Tensor, Program]:
        """(rows, C, T) waveforms with reverb, noise and level; the table; and the rest of the program."""
        plan, kind = raw.plan, self._kind(raw, training)
        stage = self.stages[kind.rates]
        rates, factors = np.searchsorted(kind.rates, plan["rate"]), self._factor(plan)
        whole |= column.bytes_columns(plan, raw.data.shape[1])
        whole |= column.fill_columns(plan, self.audio, kind.samples, training, self.seed)
        whole |= column.rate_columns(plan, self._ratios(kind.rates), stage.rows, rates)
        whole |= {f"speed {place}": self.speeds.rows[factors, place] for place in range(3)}
        level, gain = self._gains(plan, training)
        part |= {"level": level, "gain": gain}
        if training:
            frames = whole["frames"]
            whole |= column.change_columns(plan, filled, self.augment, dithers(self.features), self.seed)
            whole |= column.mask_columns(plan, frames, self.line, self.augment, self.seed)
        kind = replace(kind, whole=tuple(whole), part=tuple(part))
        whole_IB, part_FB = column.to_columns(whole, part, kind.rows, self.device, self.dtype)
        data = torch.empty(kind.rows * kind.pitch, dtype=torch.uint8, device=self.device)
        data[: raw.data.numel()].copy_(raw.data.view(-1), non_blocking=True)
        program = self._program(kind)
        wave_BCT = program.sound(self.pcm.views(data, kind.codecs), whole_IB, part_FB)
        return self._changed(wave_BCT, plan, filled, training), whole_IB, part_FB, program

    def _changed(self, wave_BCT: Tensor, plan: Rows, filled: Ints, training: bool) -> Tensor:
        change = self.change if training else None
        if change is None and self.level is None:
            return wave_BCT
        own_BCT = wave_BCT[: len(plan)]
        if change is not None:
            own_BCT = change(own_BCT, plan, self._filled(plan, False))
        if self.level is not None:
            own_BCT = self.level(own_BCT, plan, filled)
        if len(wave_BCT) == len(plan):
            return own_BCT
        return torch.nn.functional.pad(own_BCT, (0, 0, 0, 0, 0, len(wave_BCT) - len(plan)))

    def _kind(self, raw: RawBatch, training: bool) -> Kind:
        """What a batch is; where it is compiled, all that earlier ones were as well, so that it soon stays the same."""
        plan = raw.plan
        samples = max(int(plan["window"].max()), self.bank.size)
        known = self.latest.get(training) if self.compile and samples == self.samples else None
        rates = {self.audio.sample_rate, *np.unique(plan["rate"]).tolist(), *(known.rates if known else ())}
        codecs = {*np.unique(plan["codec"]).tolist(), *(known.codecs if known else ())}
        middle, inputs, taps = self._lengths(samples, tuple(sorted(rates)))
        kind = Kind(
            training=training,
            rows=len(plan),
            samples=samples,
            middle=middle,
            inputs=inputs + taps,
            pitch=raw.data.shape[1],
            sources=int(plan["channels"].max()),
            codecs=tuple(CODECS(codec) for codec in sorted(codecs)),
            rates=tuple(sorted(rates)),
        )
        if not self.compile or samples != self.samples:
            return kind
        known = known or kind
        rows, sources = max(kind.rows, known.rows, self.rows), max(kind.sources, known.sources)
        width = max(BYTES[codec] for codec in kind.codecs) * sources
        worst = -(-kind.inputs * width // ALIGN) * ALIGN  # however factors, rates and codecs fall
        kind = replace(kind, rows=rows, sources=sources, pitch=max(kind.pitch, known.pitch, worst))
        self.latest[training] = kind
        return kind

    def _lengths(self, samples: int, rates: tuple[int, ...]) -> tuple[int, int, int]:
        """Samples at audio.sample_rate and source frames that `samples` need at any factor; and spare source frames."""
        middle = max(-(-samples // ratio.new) * ratio.orig + 2 * ratio.width for ratio in self.factors)
        ratios = self._ratios(rates)
        if rates not in self.stages:
            self.stages[rates] = Polyphase(ratios, self.device, self.dtype, STAGE_TAPS)
        inputs = max((middle + 2 * ratio.new - 2) // ratio.new * ratio.orig + 2 * ratio.width for ratio in ratios)
        taps = self.stages[rates].taps if len(rates) > 1 else self.speeds.taps
        return middle + self.speeds.taps, inputs, taps

    def _ratios(self, rates: tuple[int, ...]) -> list[Ratio]:
        return [rate_ratio(rate, self.audio.sample_rate) for rate in rates]

    def _program(self, kind: Kind) -> Program:
        if kind in self.programs:
            return self.programs[kind]
        compiled = self.compile and kind.samples == self.samples and len(self.programs) < PROGRAMS
        program = Program(
            kind,
            self.augment,
            self.features,
            pcm=self.pcm,
            stage=self.stages[kind.rates],
            speeds=self.speeds,
            bank=self.bank,
            line=self.line,
            compile=compiled,
        )
        if compiled:
            self.programs[kind] = program
        return program

    def _filled(self, plan: Rows, changed: bool) -> Ints:
        """(B,) samples of each window that count, before or after `change`."""
        filled = np.asarray(plan["length"] if self.audio.short == "pad" else plan["window"], np.int64)
        return self.lengths(plan, filled) if changed and self.lengths is not None else filled

    def _factor(self, plan: Rows) -> Ints:
        return np.where(plan["factor"] == PLAIN, len(self.factors) - 1, plan["factor"].astype(np.int64))

    def _gains(self, plan: Rows, training: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """(B,) factors before reverb and noise, and after them."""
        made = gain.levels(plan, self.audio, self.augment, self.seed, training)
        first, second = (np.ones(len(plan)) if factors is None else factors for factors in made)
        return first, second

    def _moments(self) -> Tensor | None:
        """Statistics of norm=dataset, on the device."""
        if self.features.norm != "dataset":
            return None
        assert self.statistics is not None, "set `statistics` before the first batch"
        if self.moments is None or self.moments[0] is not self.statistics:  # once: the copy waits for the device
            self.moments = self.statistics, self.statistics.to(self.device, self.dtype)
        return self.moments[1]
