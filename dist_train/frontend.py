"""The front end: a batch of raw bytes -> normalised features on the device, ready for the model.

    bytes --copy--> device --decode--> --speed--> --fill--> --gain, shift, mixup--> Fbank --norm--> --SpecAugment-->

In: RawBatch (bytes and plan). Out: FrontBatch. One batch is one group: its result depends on the group alone, neither
on the rank nor on what came before; in evaluation each row's result depends on that row alone. All arithmetic is in
`dtype` with autocast and TF32 off, whatever the model uses. On CUDA nothing waits for the device.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available

from dist_train import augment as change
from dist_train.decode import Rows, decode, to_device
from dist_train.features import extractor
from dist_train.norm import frame_sums, normalise
from dist_train.order import uniform
from dist_train.payload import RawBatch
from dist_train.resample import Resamplers, speed_ratio
from dist_train.settings import Audio, Augment, Features
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


class FrontEnd:
    """Everything between the reader and the model, on one device.

    `frame_count` and `bins` are the shape of a window's features. `statistics` (2, bins), mean and deviation, must be
    set before use with features.norm=dataset (`norm.statistics` of `sums`, over the whole training view). ValueError
    where the settings do not fit together.
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
    ) -> None:
        """`listen`: how many rows of a batch keep their waveform (None: all)."""
        self.audio, self.features = audio, features
        self.augment, self.seed, self.listen = augment, seed, listen
        self.device, self.dtype = torch.device(device), dtype
        self.extractor = extractor(self.audio, self.features, self.device, dtype)
        self.resamplers = Resamplers(self.device, dtype)
        self.waves = Waves(audio, augment.speed, self.resamplers) if self.device.type == "cpu" else None
        self.channels = self.audio.channels if isinstance(self.audio.channels, int) else 1
        self.bins = self.extractor.bins * self.channels
        self.frame_count = self.extractor.frames(window_samples(self.audio))
        self.statistics: Tensor | None = None
        if self.frame_count < 1:
            raise ValueError(
                f"audio.seconds={audio.seconds:g} is shorter than one frame ({self.extractor.size} samples by features."
                f"frame_length={self.features.frame_length:g} ms and features.fft); give longer windows"
            )
        for factor in augment.speed:
            speed_ratio(factor)

    @torch.no_grad()
    def __call__(self, raw: RawBatch, training: bool) -> FrontBatch:
        """Features of a group. With `training`, changed as `augment` says; speed is in the plan already."""
        plan = raw.plan
        partner, weight = np.arange(len(plan)), np.ones(len(plan), np.float32)
        if training:
            partner, weight = change.mix_pairs(plan, self.augment.mixup, self.seed)
        with exact(self.device):
            wave_BCT, filled = self._waves(raw, training)
            if training:
                wave_BCT = self._change(wave_BCT, plan, filled, partner, weight)
            filled = np.maximum(filled, filled[partner])
            feat_BTF, frames = self._features(wave_BCT, filled)
            frames_B = None if (frames == feat_BTF.shape[1]).all() else to_device(frames, self.device)
            feat_BTF = self._normalise(feat_BTF, frames_B, training)
            if training and self.augment.spec is not None:
                feat_BTF = self._mask(feat_BTF, frames_B, plan, frames)
        tensors = (plan["label"].astype(np.int64), plan["weight"].copy(), partner, weight)
        labels, weights, partners, shares = (to_device(array, self.device) for array in tensors)
        # A copy: on the CPU the next batch takes the waves' memory.
        return FrontBatch(feat_BTF, frames_B, labels, weights, partners, shares, wave_BCT[: self.listen, 0].clone())

    @torch.no_grad()
    def sums(self, batches: Iterable[RawBatch]) -> Tensor:
        """(3, bins) int64 for `norm.statistics`; exact, so the sums of any number of ranks add up to the same."""
        total = torch.zeros(3, self.bins, dtype=torch.int64)
        with exact(self.device):
            for raw in batches:
                feat_BTF, frames = self._features(*self._waves(raw, training=False))
                frames_B, weight_B = (to_device(array, self.device) for array in (frames, raw.plan["weight"].copy()))
                total += frame_sums(feat_BTF, frames_B, weight_B)
        return total

    def _waves(self, raw: RawBatch, training: bool) -> tuple[Tensor, NDArray[np.int64]]:
        """(B, C, T) windows at speed and level, and (B,) how many samples of each count."""
        plan = raw.plan
        samples = max(int(plan["window"].max()), self.extractor.size)
        place = uniform(self.seed, plan["position"], "place") if training else np.full(len(plan), 0.5)
        gains = change.gains(plan, self.audio.target_db, self.augment.gain_db if training else None, self.seed)
        filled = (plan["length"] if self.audio.short == "pad" else plan["window"]).astype(np.int64)
        if self.waves is not None:
            return self.waves(raw.data, plan, samples, gains, place), filled
        data = raw.data.to(self.device, non_blocking=True)
        wave_BCT = torch.empty(len(plan), self.channels, samples, dtype=self.dtype, device=self.device)
        for rows in self._alike(plan):
            part = self._part(data, plan, rows, training)
            where = _index(rows, self.device)
            wave_BCT[where, :, : part.shape[2]] = part
            if part.shape[2] < samples:
                wave_BCT[where, :, part.shape[2] :] = 0
        wave_BCT = change.fill(wave_BCT, plan, self.audio.short, place)
        if gains is not None:
            wave_BCT *= to_device(gains, self.device).to(self.dtype)[:, None, None]
        return wave_BCT, filled

    def _part(self, data: Tensor, plan: Rows, rows: NDArray[np.int64], training: bool) -> Tensor:
        """Rows that are alike, decoded and at speed."""
        # A GPU's matrix product may sum in another order for another number of rows; scores must not see their mates.
        padded = rows if training else np.resize(rows, len(plan))
        bytes_RN = data[_index(padded, self.device)]
        wave_RCT = decode(bytes_RN, plan[padded], self.audio, self.resamplers)
        return change.speed(wave_RCT, plan[padded], self.augment.speed, self.resamplers)[: len(rows)]

    def _alike(self, plan: Rows) -> Iterator[NDArray[np.int64]]:
        """Rows alike in codec, channels, rate and factor."""
        kind = plan["rate"].astype(np.int64) << 24
        for bits, name in ((16, "factor"), (8, "channels"), (0, "codec")):
            kind |= plan[name].astype(np.int64) << bits
        for value in np.unique(kind):
            yield np.flatnonzero(kind == value)

    def _change(
        self, wave_BCT: Tensor, plan: Rows, filled: NDArray[np.int64], partner: NDArray[np.int64], weight: NDArray[Any]
    ) -> Tensor:
        """Shift, mixup and dither."""
        position = plan["position"]
        if self.augment.shift > 0:
            share = self.augment.shift * (2 * uniform(self.seed, position, "shift").astype(np.float64) - 1)
            wave_BCT = change.shift(wave_BCT, filled, share)
        wave_BCT = change.mix(wave_BCT, partner, weight)
        if self.features.dither > 0:
            level = self.features.dither / self.features.waveform_scale
            noise = change.noise(position, self.seed, wave_BCT.shape[1], wave_BCT.shape[2], self.device)
            wave_BCT = wave_BCT + noise.to(self.dtype) * level
        return wave_BCT

    def _features(self, wave_BCT: Tensor, filled: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """(B, frames, channels * bins), not normalised, and (B,) valid frames, at least one."""
        batch, channels, _ = wave_BCT.shape
        whole = bool((filled >= wave_BCT.shape[2]).all())
        feat = self.extractor(wave_BCT.flatten(0, 1), None if whole else np.repeat(filled, channels))
        if channels > 1:
            feat = feat.view(batch, channels, -1, self.extractor.bins).transpose(1, 2).flatten(2)
        return feat, self.extractor.valid(filled)

    def _normalise(self, feat_BTF: Tensor, frames_B: Tensor | None, training: bool) -> Tensor:
        norm = self.features.norm
        if norm == "batch" and not training:
            norm = "clip"  # a score must not depend on batch mates
        if norm == "dataset":
            assert self.statistics is not None, "set FrontEnd.statistics before the first batch"
            self.statistics = self.statistics.to(self.device)
        return normalise(feat_BTF, frames_B, norm, self.statistics)

    def _mask(self, feat_BTF: Tensor, frames_B: Tensor | None, plan: Rows, frames: NDArray[np.int64]) -> Tensor:
        """SpecAugment; the mean that fills is over a row's valid frames, whose tail is zero."""
        settings = self.augment.spec
        assert settings is not None
        freq, time = change.bands(plan, frames, self.extractor.bins, settings, self.seed)
        freq = np.concatenate([freq + channel * self.extractor.bins for channel in range(self.channels)], axis=2)
        level: Tensor | float = 0.0
        if settings.fill == "mean":
            count = to_device(frames * self.bins, self.device)[:, None, None]
            level = feat_BTF.sum((1, 2), keepdim=True) / count
        masked = change.mask(feat_BTF, freq, time, level)
        return masked if frames_B is None else normalise(masked, frames_B, "none")


def _index(rows: NDArray[np.int64], device: torch.device) -> slice | Tensor:
    """Rows as a slice where they follow each other (no copy), else as a tensor."""
    if int(rows[-1]) - int(rows[0]) == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return to_device(rows, device)


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """No autocast, no TF32, no bf16 products: they put errors of up to 6.6 in a log mel bin.

    The precision is a switch of the process; enter this on the thread that runs the model too.
    """
    switches = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        name = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
    except RuntimeError:  # torch 2.11 refuses its older switch where the newer ones were used
        name = None
        for switch in switches:
            switch.fp32_precision = "ieee"
    try:
        known = is_autocast_available(device.type)
        with torch.autocast(device.type, enabled=False) if known else nullcontext():
            yield
    finally:
        if name is not None:
            torch.set_float32_matmul_precision(name)
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
