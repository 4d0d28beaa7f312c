"""A trained run as one nn.Module: waveforms of any batch and length -> probabilities and embeddings of clips.

    wave (B, T) at audio.sample_rate, or (B, T, C) --windows, level--> features, normalised --> network --> clips

The answer for a clip is what evaluation scores for it, but for the order of additions. No decoding and no resampling:
these are the caller's, and what he takes for them is heard.
"""

from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn

from dist_train.effects.acoustics import SILENCE
from dist_train.export.cut import Cut
from dist_train.export.spectra import spectra
from dist_train.saved import Saved
from dist_train.spectra.norm import normalise


class Graph(nn.Module):
    """What becomes a file: float32, in eval mode, with a copy of the run's network, so that the run stays as it is."""

    statistics: Tensor | None

    def __init__(self, saved: Saved) -> None:
        """ValueError for a front end that is not a function of the waveform alone."""
        super().__init__()
        config, front = saved.config, saved.front
        if config.features.name not in WAYS:
            raise ValueError(f"{saved.path}: features.name={config.features.name} cannot be exported; {WHY}")
        self.audio, self.objective, self.evaluation = config.audio, config.objective, config.evaluation
        self.norm = "clip" if config.features.norm == "batch" else config.features.norm
        self.classes, self.channels = len(saved.classes), front.channels
        made = front.extractor
        least = made.size
        while made.frames(least) < int(cast(int, saved.model.least)):
            least += made.shift
        self.cut = Cut(config.audio, config.evaluation, least)
        self.spectra = spectra(config.audio, config.features, made)
        self.register_buffer("statistics", None if front.statistics is None else front.statistics.float())
        # Channels-last kernels are chosen by strides, which a symbol for the batch cannot have: it would be fixed.
        self.network = deepcopy(saved.model).cpu().float()
        self.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.eval().requires_grad_(False)

    def forward(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T), or (B, T, C) where audio.channels is a number -> (B, classes) and (B, E)."""
        wave_BCT = wave.transpose(1, 2) if wave.dim() == 3 else wave[:, None]
        wave_NCT, count, filled = self.cut(wave_BCT)
        heard_N = (wave_NCT != 0).flatten(1).any(1)
        wave_NCT = self._levelled(wave_NCT, wave_BCT, count, filled)
        vector_NE = cast(Any, self.network).embed(*self._features(wave_NCT, filled))
        logits_NC = cast(Any, self.network).head(vector_NE)[:, : self.classes]
        vector_BE = self.cut.mean(vector_NE, heard_N, count)
        if self.evaluation.average == "logits":
            return self._probabilities(self.cut.mean(logits_NC, heard_N, count)), vector_BE
        return self.cut.mean(self._probabilities(logits_NC), heard_N, count), vector_BE

    def example(self) -> Tensor:
        """A batch that the graph is followed with: two clips of two windows and a half, whole ones of 5 s at least.

        CAM++ sees more than one segment then; a shorter one would be taken for the only way.
        """
        torch.manual_seed(0)
        least = 5 * self.audio.sample_rate if self.cut.whole else 0
        samples = max(2 * self.cut.window + self.cut.window // 2, least)
        shape = (2, samples, self.channels) if isinstance(self.audio.channels, int) else (2, samples)
        return 0.1 * torch.randn(shape)

    def _probabilities(self, logits_NC: Tensor) -> Tensor:
        return logits_NC.sigmoid() if self.objective.name == "bce" else logits_NC.softmax(1)

    def _levelled(self, wave_NCT: Tensor, wave_BCT: Tensor, count: int, filled: int) -> Tensor:
        """At audio.target_db: each clip as it comes in, or each window; silence stays."""
        if self.audio.target_db is None:
            return wave_NCT
        target = 10 ** (self.audio.target_db / 20)
        if self.audio.level == "crop":
            square_N11 = wave_NCT.square().mean((1, 2), keepdim=True) * wave_NCT.shape[2] / filled
            energy_N11 = square_N11 * (filled * wave_NCT.shape[1])
            return wave_NCT * torch.where(energy_N11 > SILENCE, target / square_N11.sqrt(), 1)
        rms_B1 = wave_BCT.mean(1).square().mean(1, keepdim=True).sqrt()
        factor_B1 = torch.where(rms_B1 > 0, target / rms_B1, 1)
        factor_N = factor_B1.expand(-1, count).flatten()
        return wave_NCT * factor_N[:, None, None]

    def _features(self, wave_NCT: Tensor, filled: int) -> tuple[Tensor, Tensor | None]:
        """(N, F, C bins), normalised, and (N,) the frames that count; None: all."""
        rows_N = None
        if self.audio.short == "pad" and not self.cut.whole:
            rows_N = torch.full((wave_NCT.shape[0],), filled)
        rows = rows_N if rows_N is None or self.channels == 1 else rows_N.repeat_interleave(self.channels)
        feat_NFB = self.spectra(wave_NCT.flatten(0, 1), rows)
        if self.channels > 1:
            feat_NFB = feat_NFB.unflatten(0, (-1, self.channels)).transpose(1, 2).flatten(2)
        frames_N = None if rows_N is None else self.spectra.valid(rows_N)
        feat_NFB = normalise(feat_NFB, frames_N, self.norm, self.statistics)
        # As networks turn it, bins before frames: of other strides a program would be for batches of two and more.
        turned_NBF = feat_NFB.transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return turned_NBF.transpose(1, 2), frames_N


WAYS = ("fbank", "mfcc", "mel", "spectrogram", "torchaudio_mfcc", "waveform")
WHY = f"features of {', '.join(WAYS)} can: an encoder of transformers is exported by its own tools"
