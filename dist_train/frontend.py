"""The front end: a batch of raw bytes -> normalised features on the device, ready for the model.

    bytes --PCM, rate, speed, fill, scene, level--> waves --shift, mixup, dither, Fbank, norm, SpecAugment--> features

In: RawBatch (bytes and plan). Out: FrontBatch. One batch is one group: its result depends on the group alone, neither
on the rank nor on what came before; in evaluation each row's result depends on that row alone. All arithmetic is in
`dtype` with autocast and TF32 off, whatever the model uses. Here is the CPU's way, row by row in the core's cache; an
accelerator takes the whole batch through a few kernels (`batched`) and never waits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dist_train import augment as change
from dist_train import packed
from dist_train.batched import Batched
from dist_train.effects import masks, mixing
from dist_train.effects.gaussian import gaussian, noise_keys
from dist_train.effects.scene import Scene
from dist_train.features import extractor
from dist_train.order import uniform
from dist_train.packed import Stored
from dist_train.payload import RawBatch
from dist_train.precision import exact
from dist_train.resample import Resamplers, speed_ratio
from dist_train.settings import Audio, Augment, Features
from dist_train.spectra.norm import frame_sums, normalise
from dist_train.waves import Waves
from dist_train.window import window_samples


@dataclass
class FrontBatch:
    """What a training step or a scoring pass takes."""

    feat_BTF: Tensor
    frames_B: Tensor | None  # int64, valid frames; None: all are. Frames past a row's own are zero
    label_B: Tensor  # int64
    weight_B: Tensor  # float32; 0 for a bad sample
    partner_B: Tensor  # int64, row of the batch that was mixed in; its own where none was
    mix_B: Tensor  # float32, weight of the row's own label; 1 where none was mixed in
    wave_BT: Tensor  # first channel of the first rows before features, to listen to
    heard_B: Tensor | None = None  # bool, in evaluation: whether there is any sound in the row
    target_BC: Tensor | None = None  # uint8, 1 where the clip has a label; the feed's, where it is asked for


class FrontEnd:
    """Everything between the reader and the model, on one device.

    `frame_count` and `bins` are the shape of a window's features. `statistics` (2, bins), mean and deviation, must be
    set before use with features.norm=dataset (`norm.statistics` of `sums`, over the whole training view). `bad` names
    recordings of noise and rooms that could not be read. ValueError where the settings do not fit together.
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
        stored: Stored | None = None,
    ) -> None:
        """`listen`: how many rows of a batch keep their waveform (None: all); `compile`: on an accelerator only, for
        batches of `rows` rows at most; `stored`: with features.name=packed, the front end that they are of."""
        assert (stored is not None) == (features.name == "packed"), "packed.agree has seen to that"
        self.audio, self.features, self.stored = packed.heard(audio, stored), features, stored
        self.augment, self.seed, self.listen = augment, seed, listen if stored is None else 0
        self.device, self.dtype = torch.device(device), dtype
        self.extractor = extractor(self.audio, self.features, self.device, dtype)
        rows_of_clip = self.audio.channels if isinstance(self.audio.channels, int) else 1
        self.bins = self.extractor.bins * rows_of_clip
        self.channels = rows_of_clip if stored is None else stored.channels
        self.line = self.bins // self.channels  # bins of one channel
        self.frame_count = self.extractor.frames(window_samples(self.audio))
        self.statistics: Tensor | None = None
        if self.frame_count < 1:
            raise ValueError(
                f"audio.seconds={audio.seconds:g} is shorter than one frame ({self.extractor.size} samples by features."
                f"frame_length={self.features.frame_length:g} ms and features.fft); give longer windows"
            )
        for factor in augment.speed:
            speed_ratio(factor)
        self.scene = Scene(audio, augment, seed=seed, device=self.device, dtype=dtype)
        self.bad = self.scene.bad
        cpu = self.device.type == "cpu"
        self.waves = Waves(self.audio, augment.speed, Resamplers(self.device, dtype)) if cpu else None
        self.batched = None if cpu else self._batched(compile, rows)

    def _batched(self, compile: bool, rows: int) -> Batched:
        scene, crop = self.scene, self.audio.target_db is not None and self.audio.level == "crop"
        changes = scene.changes
        return Batched(
            self.audio,
            self.augment,
            self.features,
            seed=self.seed,
            device=self.device,
            dtype=self.dtype,
            compile=compile,
            rows=rows,
            change=scene.change if changes else None,
            lengths=scene.lengths if changes else None,
            level=scene.level if crop else None,
            stored=self.stored,
        )

    @torch.no_grad()
    def __call__(self, raw: RawBatch, training: bool) -> FrontBatch:
        """Features of a group. With `training`, changed as `augment` says; speed is in the plan already."""
        if self.batched is not None:
            self.batched.statistics, self.batched.listen = self.statistics, self.listen
            return FrontBatch(*self.batched(raw, training))
        plan = raw.plan
        with exact(self.device):
            wave_BCT, filled = self._waves(raw, training)
            pairs = mixing.alone(len(plan))
            if training:
                valid, bins = self.extractor.valid, self.extractor.bins
                pairs = mixing.pairs(plan, self.augment, filled, valid, bins, self.seed)
                wave_BCT = self._change(wave_BCT, plan, filled, pairs)
            feat_BTF, frames = self._features(wave_BCT, pairs.until(filled))
            frames_B = None if (frames == feat_BTF.shape[1]).all() else torch.from_numpy(frames)
            feat_BTF = self._normalise(feat_BTF, frames_B, training)
            if pairs.box.any():
                feat_BTF = mixing.cut_boxes(feat_BTF, pairs.partner, pairs.box, self.extractor.bins)
            if training and self.augment.spec is not None:
                feat_BTF = self._mask(feat_BTF, frames_B, plan, frames)
        return FrontBatch(
            feat_BTF,
            frames_B,
            torch.from_numpy(plan["label"].astype(np.int64)),
            torch.from_numpy(plan["weight"].copy()),
            torch.from_numpy(pairs.partner),
            torch.from_numpy(pairs.weight),
            wave_BCT[: self.listen, 0].clone(),  # the next batch takes the waves' memory
            None if training else packed.sound(wave_BCT) if self.stored else wave_BCT.flatten(1).any(1),
        )

    @torch.no_grad()
    def sums(self, batches: Iterable[RawBatch]) -> Tensor:
        """(3, bins) int64 for `norm.statistics`; exact, so the sums of any number of ranks add up to the same."""
        total = torch.zeros(3, self.bins, dtype=torch.int64)
        with exact(self.device):
            for raw in batches:
                if self.batched is not None:
                    total += frame_sums(*self.batched.raw_features(raw))
                    continue
                feat_BTF, frames = self._features(*self._waves(raw, training=False))
                total += frame_sums(feat_BTF, torch.from_numpy(frames), torch.from_numpy(raw.plan["weight"].copy()))
        return total

    def _waves(self, raw: RawBatch, training: bool) -> tuple[Tensor, NDArray[np.int64]]:
        """(B, C, T) windows at speed and level, and (B,) how many samples of each count."""
        assert self.waves is not None
        plan, augment = raw.plan, self.augment
        samples = max(int(plan["window"].max()), self.extractor.size)
        place = uniform(self.seed, plan["position"], "place") if training else np.full(len(plan), 0.5)
        level, gain = change.levels(plan, self.audio, augment, self.seed, training)
        filled = (plan["length"] if self.audio.short == "pad" else plan["window"]).astype(np.int64)
        wave_BCT = self.waves(raw.data, plan, samples, level, place)
        if training and self.scene.changes:
            wave_BCT = self.scene.change(wave_BCT, plan, filled)
            filled = self.scene.lengths(plan, filled)
        wave_BCT = self.scene.level(wave_BCT, plan, filled)
        if gain is not None:
            wave_BCT *= torch.from_numpy(gain).to(self.dtype)[:, None, None]
        return wave_BCT, filled

    def _change(self, wave_BCT: Tensor, plan: NDArray[Any], filled: NDArray[np.int64], pairs: mixing.Pairs) -> Tensor:
        """Shift, mixup or CutMix, and dither."""
        if self.augment.shift > 0:
            wave_BCT = change.shift(wave_BCT, filled, change.shifts(plan, self.augment, self.seed))
        wave_BCT = mixing.mix(wave_BCT, pairs, self.augment.mixup.kind, self.audio.sample_rate)
        if self.features.dither > 0 and self.features.name in ("fbank", "mfcc"):
            level = self.features.dither / self.features.waveform_scale
            keys = torch.from_numpy(noise_keys(plan["position"], self.seed))
            wave_BCT = wave_BCT + gaussian(keys, *wave_BCT.shape[1:]).to(self.dtype) * level
        return wave_BCT

    def _features(self, wave_BCT: Tensor, filled: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """(B, frames, channels * bins), not normalised, and (B,) valid frames, at least one."""
        batch, channels, _ = wave_BCT.shape
        whole = bool((filled >= wave_BCT.shape[2]).all())
        feat = self.extractor(wave_BCT.flatten(0, 1), None if whole else np.repeat(filled, channels))
        if channels > 1:
            feat = feat.view(batch, channels, -1, self.extractor.bins).transpose(1, 2).flatten(2).contiguous()
        return feat, self.extractor.valid(filled)

    def _normalise(self, feat_BTF: Tensor, frames_B: Tensor | None, training: bool) -> Tensor:
        norm = self.features.norm
        if norm == "batch" and not training:
            norm = "clip"  # a score must not depend on batch mates
        if norm == "dataset":
            assert self.statistics is not None, "set FrontEnd.statistics before the first batch"
        return normalise(feat_BTF, frames_B, norm, self.statistics)

    def _mask(self, feat_BTF: Tensor, frames_B: Tensor | None, plan: NDArray[Any], frames: NDArray[np.int64]) -> Tensor:
        """SpecAugment within a row's valid frames."""
        settings = self.augment.spec
        assert settings is not None
        freq, time = masks.bands(plan, frames, self.line, settings, self.seed)
        freq = np.concatenate([freq + channel * self.line for channel in range(self.channels)], axis=2)
        keys = masks.mask_keys(plan, settings, self.seed)
        key_B = None if keys is None else torch.from_numpy(keys)
        fill = masks.filling(feat_BTF, torch.from_numpy(frames), settings.fill, key_B)
        masked = masks.mask(feat_BTF, freq, time, fill)
        return masked if frames_B is None else normalise(masked, frames_B, "none")
