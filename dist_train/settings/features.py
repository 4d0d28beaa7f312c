"""Settings of features: from waveforms to frames x bins, and their normalisation. docs/features.md tells all of it."""

from typing import Any, Literal

from pydantic import Field, model_validator

from dist_train.settings.encoder import Encoder
from dist_train.settings.section import Section

Preset = Literal[
    "kaldi",
    "macls",
    "macls_mel",
    "macls_spectrogram",
    "macls_mfcc",
    "3dspeaker",
    "wespeaker",
    "speechbrain",
    "panns",
    "vggish",
    "crnn",
    "cnn4",
    "resnetish",
]


class Features(Section):
    """Waveform to frames x bins, and their normalisation."""

    name: Literal["fbank", "mfcc", "mel", "spectrogram", "torchaudio_mfcc", "waveform", "packed", "hf"] = Field(
        "fbank",
        description="Kaldi Fbank or MFCC; torchaudio's MelSpectrogram, Spectrogram or MFCC; samples (for m5); "
        "packed: features that make_shards pack --features put into the shards; hf: a pretrained encoder of samples",
    )
    hf: Encoder | None = Field(None, description="name=hf: a pretrained encoder of transformers; null: none")
    preset: Preset | None = Field(
        None, description="a whole front end as that system has it; the keys it fixes may not be given beside it"
    )
    bins: int = Field(80, ge=4, le=512, description="mel bins")
    ceps: int = Field(13, ge=1, le=512, description="mfcc, torchaudio_mfcc: cepstral coefficients")
    norm: Literal["cmn", "cmvn", "dataset", "clip", "batch", "none"] = Field(
        "cmn", description="mean (and deviation) removed: of the utterance, of the training view, of the clip, ..."
    )
    window: Literal["povey", "hamming", "hanning", "rectangular", "blackman", "bartlett", "kaiser"] = Field(
        "povey", description="window"
    )
    window_periodic: bool | None = Field(
        None, description="window of period = length, or symmetric; null: symmetric for fbank and mfcc, else periodic"
    )
    blackman_coeff: float = Field(0.42, ge=0, le=1, description="fbank, mfcc with window=blackman: its constant term")
    kaiser_beta: float = Field(12.0, ge=0, le=100, description="window=kaiser: its shape")
    frame_length: float = Field(25.0, gt=0, description="frame length, ms")
    frame_shift: float = Field(10.0, gt=0, description="frame shift, ms")
    win_length: int | None = Field(
        None, ge=2, le=65536, description="frame length, samples, in the place of frame_length"
    )
    hop_length: int | None = Field(
        None, ge=1, le=1 << 20, description="frame shift, samples, in the place of frame_shift"
    )
    low_freq: float = Field(20.0, ge=0, description="lowest frequency of the mel bank, Hz")
    high_freq: float = Field(0.0, description="highest frequency, Hz; 0 or less: counted from the Nyquist frequency")
    fft: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="transform length, samples; null: the frame's length, for fbank and mfcc the next power of two",
    )
    power: float = Field(2.0, gt=0, le=4, description="exponent of the magnitude: 1 or 2 (all but mfcc)")
    scale: Literal["linear", "ln", "db"] = Field("ln", description="fbank (not db), mel, spectrogram: scale of values")
    amin: float | None = Field(
        None, gt=0, le=1, description="least value before a logarithm; null: 1e-10, for fbank and mfcc 1.1920929e-07"
    )
    log_offset: float = Field(0.0, ge=0, le=1e6, description="fbank, mel, spectrogram: added before the logarithm")
    top_db: float | None = Field(
        None, gt=0, description="scale=db: a clip's values stay within so many dB; null: no limit, torchaudio_mfcc 80"
    )
    mel_scale: Literal["htk", "slaney"] = Field("htk", description="mel, torchaudio_mfcc: formula of the mel scale")
    mel_norm: Literal["none", "slaney"] = Field(
        "none", description="mel, torchaudio_mfcc: slaney divides each triangle by its width"
    )
    mel_slopes: Literal["both", "lower"] = Field(
        "both", description="mel, torchaudio_mfcc: lower gives both sides of a triangle the width of its lower one"
    )
    center: bool = Field(True, description="mel, spectrogram, torchaudio_mfcc: frames are centred, the ends padded")
    pad_mode: Literal["reflect", "constant", "replicate", "circular"] = Field(
        "reflect", description="center=true: what lies past a clip's ends (constant: zeros)"
    )
    pad: int = Field(0, ge=0, le=1 << 20, description="mel, spectrogram, torchaudio_mfcc: zeros at both ends, samples")
    normalized: Literal["none", "window", "frame_length"] = Field(
        "none", description="mel, spectrogram, torchaudio_mfcc: spectrum over the window's norm, or over sqrt(fft)"
    )
    dct_norm: Literal["ortho", "none"] = Field("ortho", description="torchaudio_mfcc: scaling of the cosine transform")
    log_mels: bool = Field(False, description="torchaudio_mfcc: ln(x + 1e-6) of the mel bins in the place of dB")
    preemphasis: float = Field(0.97, ge=0, le=1, description="fbank, mfcc: pre-emphasis coefficient")
    remove_dc: bool = Field(True, description="fbank, mfcc: each frame's mean is taken off")
    snip_edges: bool = Field(
        True, description="fbank, mfcc: only frames that lie within the clip; false: one each shift, the ends mirrored"
    )
    use_energy: bool = Field(False, description="fbank: one more column, the log energy; mfcc: it replaces C0")
    raw_energy: bool = Field(True, description="use_energy: energy before pre-emphasis and window, or after")
    energy_floor: float = Field(1.0, ge=0, description="use_energy: least energy; 0: 1.1920929e-07")
    htk_compat: bool = Field(False, description="fbank, mfcc: the energy (mfcc: or C0, times sqrt 2) comes last")
    lifter: float = Field(22.0, ge=0, description="mfcc: cepstral lifter; 0: none")
    vtln_warp: float = Field(1.0, gt=0.5, lt=2, description="fbank, mfcc: vocal tract length factor; 1: none")
    vtln_low: float = Field(100.0, gt=0, description="vtln_warp: lower end of the warped range, Hz")
    vtln_high: float = Field(-500.0, description="vtln_warp: upper end, Hz; under 0: counted from the Nyquist one")
    waveform_scale: float = Field(1.0, gt=0, description="factor on the waveform (32768 for int16-scaled front ends)")
    dither: float = Field(
        0.0, ge=0, description="fbank, mfcc: Gaussian noise in training, in units of the scaled waveform"
    )

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
        given = {key for key in READ_BY if self.given(key)}
        if self.top_db is not None and self.name in ("mel", "spectrogram") and self.scale != "db":
            raise ValueError(f"top_db is for scale=db, not scale={self.scale}; leave it out")
        for key, names in READ_BY.items():
            if key in given and self.name not in names:
                raise ValueError(f"{key} has no effect with name={self.name}; leave it out")
        for key, other, idle in _idle(self):
            if key in given and idle:
                raise ValueError(f"{key} has no effect with {other}={getattr(self, other)}; leave it out")
        if self.name == "fbank" and (self.power not in (1, 2) or self.scale == "db"):
            raise ValueError("fbank has power=1 or 2 and scale=ln or linear; give one of them, or name=mel")
        return self


_KALDI, _MEL = ("fbank", "mfcc"), ("mel", "torchaudio_mfcc")
_STFT = (*_MEL, "spectrogram")
_KALDI_KEYS = (
    *("preemphasis", "remove_dc", "snip_edges", "use_energy", "raw_energy", "energy_floor", "htk_compat"),
    *("vtln_warp", "vtln_low", "vtln_high", "blackman_coeff", "dither"),
)
_FRAMES = ("window", "window_periodic", "kaiser_beta", "frame_length", "frame_shift", "win_length", "hop_length", "fft")
READ_BY: dict[str, tuple[str, ...]] = {  # key -> the names that read it; `norm` is for all
    **dict.fromkeys(("bins", "low_freq", "high_freq"), (*_KALDI, *_MEL)),
    **dict.fromkeys(_FRAMES, (*_KALDI, *_STFT)),
    **dict.fromkeys(_KALDI_KEYS, _KALDI),
    **dict.fromkeys(("mel_scale", "mel_norm", "mel_slopes"), _MEL),
    **dict.fromkeys(("center", "pad_mode", "pad", "normalized"), _STFT),
    **dict.fromkeys(("scale", "log_offset"), ("fbank", "mel", "spectrogram")),
    "ceps": ("mfcc", "torchaudio_mfcc"),
    "power": ("fbank", *_STFT),
    "amin": (*_KALDI, "mel", "spectrogram"),
    "top_db": _STFT,
    "dct_norm": ("torchaudio_mfcc",),
    "log_mels": ("torchaudio_mfcc",),
    "lifter": ("mfcc",),
    "waveform_scale": (*_KALDI, *_STFT, "waveform"),
}


def _idle(features: Features) -> tuple[tuple[str, str, bool], ...]:
    """(key, the key that makes it idle, whether it does)."""
    one = features
    return (
        ("frame_length", "win_length", one.win_length is not None),
        ("frame_shift", "hop_length", one.hop_length is not None),
        ("blackman_coeff", "window", one.window != "blackman"),
        ("kaiser_beta", "window", one.window != "kaiser"),
        ("window_periodic", "window", one.window == "rectangular"),
        ("amin", "scale", one.scale == "linear" and one.name != "mfcc"),
        ("log_offset", "scale", one.scale == "linear"),
        ("top_db", "log_mels", one.log_mels),
        ("pad_mode", "center", not one.center),
        ("raw_energy", "use_energy", not one.use_energy),
        ("energy_floor", "use_energy", not one.use_energy),
        ("htk_compat", "use_energy", one.name == "fbank" and not one.use_energy),
        ("vtln_low", "vtln_warp", one.vtln_warp == 1),
        ("vtln_high", "vtln_warp", one.vtln_warp == 1),
    )
