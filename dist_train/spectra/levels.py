"""Linear spectra -> linear, natural logarithm or dB, and the range of a clip that is kept.

In: values (B, frames, bins); a clip's channels are rows side by side. Out: the same shape, changed in place.

A clip's loudest value is its own, that of all its channels. torchaudio takes it over all of a batch of monaural clips,
so that there a quiet clip changes beside a loud one.
"""

import torch
from torch import Tensor

from dist_train.settings import Features

FLOOR = 1e-10  # under the logarithm, torchaudio's amin
TOP_DB = 80.0  # of torchaudio's MFCC
LOG_OFFSET = 1e-6  # of torchaudio's MFCC with log_mels


class Levels:
    """The scale that the settings ask for; `channels`: rows of a clip."""

    def __init__(self, features: Features, channels: int) -> None:
        self.channels, self.floor = channels, features.amin or FLOOR
        self.scale, self.offset, self.top_db = features.scale, features.log_offset, features.top_db
        self.factor = 10.0 if features.power == 2.0 else 20.0  # dB of a power, of a magnitude
        if features.name == "torchaudio_mfcc":
            self.scale, self.offset = ("ln", LOG_OFFSET) if features.log_mels else ("db", 0.0)
            self.top_db, self.factor = None if features.log_mels else features.top_db or TOP_DB, 10.0

    def scaled(self, value: Tensor) -> Tensor:
        """Linear values brought to the scale, in place."""
        if self.scale == "linear":
            return value
        if self.offset:
            value.add_(self.offset)
        value.clamp_(min=self.floor)
        return value.log_() if self.scale == "ln" else value.log10_().mul_(self.factor)

    def limited(self, feat_BTF: Tensor, valid_B: Tensor | None) -> Tensor:
        """No value more than top_db under the loudest of its clip; `valid_B`: frames that count, None: all."""
        if self.top_db is None:
            return feat_BTF
        seen = feat_BTF
        if valid_B is not None:
            past = torch.arange(feat_BTF.shape[1], device=feat_BTF.device) >= valid_B[:, None]
            seen = feat_BTF.masked_fill(past[:, :, None], -torch.inf)
        top = seen.amax((1, 2), keepdim=True)
        if self.channels > 1:
            top = top.view(-1, self.channels).amax(1).repeat_interleave(self.channels)[:, None, None]
        return feat_BTF.maximum(top - self.top_db)

    def limit_rows(self, feat_BTF: Tensor, counts: list[int]) -> None:
        """The same in place, clip by clip; `counts`: frames of each row that count, the others stay."""
        for first in range(0, len(counts) if self.top_db is not None else 0, self.channels):
            own = [feat_BTF[row, : counts[row]] for row in range(first, first + self.channels)]
            least = max(float(row.max()) for row in own) - float(self.top_db or 0)
            for row_TF in own:
                row_TF.clamp_(min=least)
