"""Settings of what the model hears: audio, augmentation, features."""

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dist_train.settings.changes import Codec, Cut, CutMix, Pass, Stretch, White, ascending
from dist_train.settings.encoder import Encoder
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


class Features(Section):
    """Waveform to frames x bins, and their normalisation."""

    name: Literal["fbank", "mfcc", "mel", "spectrogram", "waveform", "hf"] = Field(
        "fbank",
        description="Kaldi Fbank or MFCC; torchaudio's MelSpectrogram or Spectrogram; samples (for m5); an encoder",
    )
    hf: Encoder | None = Field(None, description="name=hf: a pretrained encoder of transformers; null: none")
    preset: Literal["kaldi", "macls", "3dspeaker", "wespeaker"] | None = Field(
        None, description="a whole front end as that system has it; the keys it fixes may not be given beside it"
    )
    bins: int = Field(80, ge=4, le=512, description="mel bins")
    ceps: int = Field(13, ge=1, le=512, description="cepstral coefficients (mfcc)")
    norm: Literal["cmn", "cmvn", "dataset", "clip", "batch", "none"] = Field(
        "cmn", description="mean (and deviation) removed: of the utterance, of the training view, of the clip, ..."
    )
    window: Literal["povey", "hamming", "hanning", "rectangular", "blackman"] = Field("povey", description="window")
    frame_length: float = Field(25.0, gt=0, description="frame length, ms")
    frame_shift: float = Field(10.0, gt=0, description="frame shift, ms")
    low_freq: float = Field(20.0, ge=0, description="lowest frequency of the mel bank, Hz")
    high_freq: float = Field(0.0, description="highest frequency, Hz; 0 or less: counted from the Nyquist frequency")
    fft: int | None = Field(
        None, ge=2, le=65536, description="mel, spectrogram: transform length, samples; default: the frame's length"
    )
    power: float = Field(2.0, gt=0, le=4, description="mel, spectrogram: exponent of the magnitude (1 or 2)")
    scale: Literal["linear", "ln", "db"] = Field("ln", description="mel, spectrogram: scale of the values")
    top_db: float | None = Field(None, gt=0, description="scale=db: a clip's values stay within so many dB, or null")
    mel_scale: Literal["htk", "slaney"] = Field("htk", description="mel: formula of the mel scale")
    mel_norm: Literal["none", "slaney"] = Field("none", description="mel: slaney divides each triangle by its width")
    center: bool = Field(True, description="mel, spectrogram: frames are centred, the clip's ends mirrored")
    preemphasis: float = Field(0.97, ge=0, le=1, description="fbank, mfcc: pre-emphasis coefficient")
    waveform_scale: float = Field(1.0, gt=0, description="factor on the waveform (32768 for int16-scaled front ends)")
    dither: float = Field(0.0, ge=0, description="Gaussian noise on each frame, in units of the scaled waveform")

    @model_validator(mode="before")
    @classmethod
    def _unnormalised(cls, values: Any) -> Any:
        """An encoder takes samples as they are."""
        encoder = isinstance(values, dict) and values.get("name") == "hf"
        return {"norm": "none", **values} if encoder else values

    @model_validator(mode="after")
    def _applies(self) -> "Features":
        if (self.name == "hf") != (self.hf is not None):
            raise ValueError("name=hf and a section hf, which names an encoder, belong together: give both or neither")
        if self.name == "hf" and self.norm != "none":
            raise ValueError(f"norm={self.norm} changes what an encoder was trained on: leave it out with name=hf")
        idle = [key for key in IDLE[self.name] if getattr(self, key) != type(self).model_fields[key].default]
        if self.scale != "db" and self.top_db is not None:
            raise ValueError(f"top_db is for scale=db, not scale={self.scale}; leave it out")
        if idle:
            raise ValueError(f"{idle[0]} has no effect with name={self.name}; leave it out")
        return self


_TRANSFORM = ("fft", "power", "scale", "top_db", "mel_scale", "mel_norm", "center")
_KALDI = ("ceps", "preemphasis", "dither")
_WAVEFORM = (*_KALDI, *_TRANSFORM, "bins", "window", "frame_length", "frame_shift", "low_freq", "high_freq")
IDLE = {  # name -> the keys that it does not read
    "fbank": ("ceps", *_TRANSFORM),
    "mfcc": _TRANSFORM,
    "mel": _KALDI,
    "spectrogram": (*_KALDI, "bins", "low_freq", "high_freq", "mel_scale", "mel_norm"),
    "waveform": _WAVEFORM,
    "hf": (*_WAVEFORM, "waveform_scale"),
}
