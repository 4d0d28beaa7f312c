"""Settings of what the model hears: audio and augmentation."""

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dist_train.settings.changes import Codec, Cut, CutMix, Pass, Stretch, White, ascending
from dist_train.settings.section import Factor, Section


class Audio(Section):
    """What a clip becomes before features: rate, channels, length, level."""

    sample_rate: int = Field(16000, ge=1000, le=384000, description="rate of all waveforms on the device, Hz")
    channels: Literal["mono", "first"] | Annotated[int, Field(ge=1, le=8)] = Field(
        "mono", description="mono (mean of channels), first, or a number of channels to keep"
    )
    seconds: float = Field(3.0, gt=0, le=600, description="training window, s")
    min_seconds: float = Field(0.1, ge=0, description="shorter clips are left out of training, s")
    short: Literal["tile", "pad", "random_pad"] = Field("tile", description="clips under the window: repeat or pad")
    crop: Literal["random", "active"] = Field("random", description="where the window falls; active: where sound is")
    target_db: float | None = Field(None, ge=-100, le=0, description="each clip's level is brought to this RMS, dBFS")
    level: Literal["clip", "crop"] = Field(
        "clip", description="what target_db is the level of: the whole clip (its RMS is in the index), or the window"
    )


class Mixup(Section):
    """Sum of two waveforms of a group, and of their targets (Zhang 2018, arXiv 1710.09412)."""

    probability: float = Field(0.0, ge=0, le=1, description="share of windows that are mixed")
    alpha: float = Field(1.0, gt=0, description="the weight is drawn from Beta(alpha, alpha)")
    kind: Literal["linear", "between_class"] = Field(
        "linear", description="linear, or by sound pressure (between-class learning: Tokozume 2018, arXiv 1711.10282)"
    )


class SpecAugment(Section):
    """Masked bands of bins and frames (Park 2019, arXiv 1904.08779)."""

    probability: float = Field(1.0, ge=0, le=1, description="share of windows that are masked")
    freq_masks: int = Field(2, ge=0, le=16, description="frequency masks a window")
    freq_width: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = Field(
        8, description="widest frequency mask: a whole number of bins, or a share of them under 1"
    )
    time_masks: int = Field(2, ge=0, le=16, description="time masks a window")
    time_width: float = Field(0.1, ge=0, le=1, description="widest time mask, share of the window's frames")
    fill: Literal["zero", "mean", "noise"] = Field(
        "zero", description="what masked values become: 0, the window's mean, or noise of its mean and deviation"
    )


class Noise(Section):
    """Recorded noise added at a signal-to-noise ratio, from a bank that stays on the device."""

    shards: list[str] = Field(min_length=1, description="folders of tar shards, or of recordings, that hold noise")
    probability: float = Field(0.5, ge=0, le=1, description="share of windows that get noise")
    snr_db: tuple[float, float] = Field((5.0, 20.0), strict=False, description="range of the ratio, dB; uniform")
    minutes: float = Field(60.0, gt=0, description="noise kept on the device at most, minutes (2 bytes a sample)")

    @model_validator(mode="after")
    def _in_range(self) -> "Noise":
        ascending("snr_db", self.snr_db)
        return self


class Reverb(Section):
    """Convolution with recorded room impulse responses, from a bank that stays on the device."""

    shards: list[str] = Field(min_length=1, description="folders of tar shards, or of recordings: impulse responses")
    probability: float = Field(0.5, ge=0, le=1, description="share of windows that are convolved")
    wet: tuple[float, float] = Field(
        (1.0, 1.0), strict=False, description="range of the share of the reverberant sound, 0 to 1; uniform"
    )
    seconds: float = Field(1.0, gt=0, le=10, description="longest impulse response; the rest of it is cut off, s")
    rooms: int = Field(2000, ge=1, description="impulse responses kept on the device at most")

    @model_validator(mode="after")
    def _in_range(self) -> "Reverb":
        ascending("wet", self.wet)
        if not 0 <= self.wet[0] <= self.wet[1] <= 1:
            raise ValueError(f"wet is a range of shares from 0 to 1, not {list(self.wet)}")
        return self


class Augment(Section):
    """Random changes of training windows; each draw is a function of (seed, position)."""

    speed: list[Factor] = Field(
        [Fraction(9, 10), Fraction(1), Fraction(11, 10)], min_length=1, description="speed factors, equally likely"
    )
    speed_probability: float = Field(1.0, ge=0, le=1, description="share of windows whose factor is drawn; others: 1")
    gain_db: tuple[float, float] | None = Field(None, strict=False, description="uniform gain between two levels, dB")
    gain_probability: float = Field(1.0, ge=0, le=1, description="share of windows that get a gain")
    crop: Cut | None = Field(None, description="random crop of length: a shorter part is kept; null: none")
    stretch: Stretch | None = Field(None, description="time stretch by a phase vocoder; null: none")
    polarity: float = Field(0.0, ge=0, le=1, description="share of windows whose sign is turned")
    noise: Noise | None = Field(None, description="recorded noise at a signal-to-noise ratio; null: none")
    reverb: Reverb | None = Field(None, description="room impulse responses; null: none")
    low_pass: Pass | None = Field(None, description="low-pass filter with a random cut-off; null: none")
    high_pass: Pass | None = Field(None, description="high-pass filter with a random cut-off; null: none")
    white: White | None = Field(None, description="white noise; null: none")
    codec: Codec | None = Field(None, description="loss of a telephone's codec; null: none")
    shift: float = Field(0.0, ge=0, le=1, description="largest circular shift, share of the window, either way")
    shift_probability: float = Field(1.0, ge=0, le=1, description="share of windows that are shifted")
    mixup: Mixup = Field(Mixup(), description="sum of two clips of a group")  # type: ignore[call-arg]
    cutmix: CutMix = Field(CutMix(), description="a part of another clip in place of one's own")  # type: ignore[call-arg]
    spec: SpecAugment | None = Field(None, description="SpecAugment masks; null: none")

    @model_validator(mode="after")
    def _in_range(self) -> "Augment":
        for factor in self.speed:
            if not Fraction(1, 4) <= factor <= 4:
                raise ValueError(f"a speed factor must lie between 1/4 and 4, not {factor}")
        if self.gain_db is not None:
            ascending("gain_db", self.gain_db)
        both = self.mixup.probability + self.cutmix.probability
        if both > 1:
            raise ValueError(f"a window has mixup or cutmix, not both: their probabilities add up to {both:g}, over 1")
        return self
