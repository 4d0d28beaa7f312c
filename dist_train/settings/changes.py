"""Settings of single changes of training windows, each its own section of `augment`; null or a share of 0: off."""

from typing import Literal

from pydantic import Field, model_validator

from dist_train.settings.section import Section


def ascending(name: str, ends: tuple[float, float]) -> None:
    """ValueError where a range is upside down."""
    if ends[0] > ends[1]:
        raise ValueError(f"the lower end of {name} comes first: [{ends[1]}, {ends[0]}]")


class Cut(Section):
    """A random shorter part of the window is kept, at a random place; the rest is filled as audio.short says."""

    probability: float = Field(0.5, ge=0, le=1, description="share of windows that are cut")
    keep: tuple[float, float] = Field(
        (0.5, 1.0), strict=False, description="range of what is kept, share of the window; uniform"
    )

    @model_validator(mode="after")
    def _in_range(self) -> "Cut":
        ascending("keep", self.keep)
        if not 0 < self.keep[0] <= self.keep[1] <= 1:
            raise ValueError(f"keep is a range of shares over 0 and up to 1, not {list(self.keep)}")
        return self


class Stretch(Section):
    """Time stretch without a change of pitch, by a phase vocoder (Flanagan, Golden 1966) on the waveform's STFT."""

    probability: float = Field(0.5, ge=0, le=1, description="share of windows that are stretched")
    rate: tuple[float, float] = Field(
        (0.8, 1.25), strict=False, description="range of the factor on the tempo, over 1 is shorter; uniform"
    )
    fft: int = Field(1024, ge=64, le=8192, multiple_of=4, description="frame of the vocoder, samples; hop: a quarter")

    @model_validator(mode="after")
    def _in_range(self) -> "Stretch":
        ascending("rate", self.rate)
        if not 0.25 <= self.rate[0] <= self.rate[1] <= 4:
            raise ValueError(f"rate is a range of factors from 0.25 to 4, not {list(self.rate)}")
        return self


class White(Section):
    """White Gaussian noise, of a given deviation or at a signal-to-noise ratio; every channel its own."""

    probability: float = Field(0.5, ge=0, le=1, description="share of windows that get white noise")
    sigma: tuple[float, float] | None = Field(
        None, strict=False, description="range of the deviation, full scale is 1; uniform; or give snr_db"
    )
    snr_db: tuple[float, float] | None = Field(
        None, strict=False, description="range of the ratio to the window's power, dB; uniform; or give sigma"
    )

    @model_validator(mode="after")
    def _in_range(self) -> "White":
        if (self.sigma is None) == (self.snr_db is None):
            raise ValueError("give sigma or snr_db, one of them")
        for name, ends in (("sigma", self.sigma), ("snr_db", self.snr_db)):
            if ends is not None:
                ascending(name, ends)
        if self.sigma is not None and self.sigma[0] < 0:
            raise ValueError(f"sigma is a deviation from 0 on, not {list(self.sigma)}")
        return self


class Pass(Section):
    """A low-pass or high-pass filter with a random cut-off: Butterworth of order 2, forwards and backwards."""

    probability: float = Field(0.5, ge=0, le=1, description="share of windows that are filtered")
    hz: tuple[float, float] = Field(
        strict=False, description="range of the cut-off (-6 dB; 24 dB an octave beyond), Hz; uniform in octaves"
    )

    @model_validator(mode="after")
    def _in_range(self) -> "Pass":
        ascending("hz", self.hz)
        if self.hz[0] < 20:
            raise ValueError(f"hz is a range of cut-offs from 20 Hz on, not {list(self.hz)}")
        return self


class Codec(Section):
    """The loss of 8-bit mu-law, as telephones have it (the continuous form of ITU-T G.711, mu = 255)."""

    probability: float = Field(0.5, ge=0, le=1, description="share of windows that are coded")
    band_hz: float | None = Field(
        None, ge=100, description="cut-off of a low-pass before it, Hz (telephone: 4000); null: none"
    )


class CutMix(Section):
    """A part of another clip of the group replaces the row's own (Yun 2019, arXiv 1905.04899), targets by its share."""

    probability: float = Field(0.0, ge=0, le=1, description="share of windows that get a part of another")
    alpha: float = Field(1.0, gt=0, description="the share that is kept is drawn from Beta(alpha, alpha)")
    part: Literal["time", "box"] = Field(
        "time", description="time: a span of the waveform; box: a rectangle of the features, frames x bins"
    )
