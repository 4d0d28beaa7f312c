"""Which changes of windows cannot work, and which leave no trace in the features. In: settings. Out: lines of text.

`impossible` is refused when a configuration is read; `traceless` is warned of when a run begins.
"""

from collections.abc import Iterator

from dist_train.settings.features import Features
from dist_train.settings.sound import Audio, Augment

SPECTRA = ("fbank", "mfcc", "mel", "spectrogram", "torchaudio_mfcc")


def impossible(audio: Audio, augment: Augment, features: Features) -> Iterator[str]:
    """What is wrong, with the key and how to mend it."""
    half = audio.sample_rate / 2
    for name, settings in (("low_pass", augment.low_pass), ("high_pass", augment.high_pass)):
        if settings is not None and settings.hz[1] > half:
            yield (
                f"augment.{name}.hz reaches to {settings.hz[1]:g} Hz, and audio.sample_rate={audio.sample_rate} has "
                f"nothing over {half:g}: lower it"
            )
    if augment.codec is not None and augment.codec.band_hz is not None and augment.codec.band_hz >= half:
        yield (
            f"augment.codec.band_hz={augment.codec.band_hz:g} takes nothing off audio.sample_rate={audio.sample_rate}, "
            f"which ends at {half:g} Hz: lower it or leave it out"
        )
    if features.name in ("waveform", "hf") and augment.cutmix.probability > 0 and augment.cutmix.part == "box":
        yield f"augment.cutmix.part=box cuts frames x bins and features.name={features.name} has none: set part=time"


def traceless(audio: Audio, augment: Augment, features: Features) -> list[str]:
    """Gains that the norm takes off again, down to the floor under the logarithm; signs that a spectrum does not have.

    A gain counts where it changes a ratio: to white noise of a given deviation or the steps of a codec behind it, to
    dither, to a partner in mixup or CutMix.
    """
    lines = []
    log = features.name in ("mfcc", "torchaudio_mfcc") or (features.name in SPECTRA and features.scale != "linear")
    norms = ("cmn", "cmvn", "clip") if log else ("cmvn", "clip")
    last = audio.target_db is not None and audio.level == "crop"  # the gain then comes behind noise and codec
    if (
        augment.gain_db is not None
        and augment.gain_probability > 0
        and features.name in (*SPECTRA, "waveform")
        and features.norm in norms
        and not _pairs(augment)
        and not features.dither
        and (last or not _absolute(augment))
    ):
        values = "a logarithm" if log else "linear values"
        lines.append(f"augment.gain_db does nothing: features.norm={features.norm} takes a gain off {values} again")
    if augment.polarity > 0 and features.name in SPECTRA and not augment.mixup.probability:
        lines.append(f"augment.polarity does nothing: features.name={features.name} does not know a sound's sign")
    return lines


def _pairs(augment: Augment) -> bool:
    """Whether two windows meet at levels of their own."""
    return augment.cutmix.probability > 0 or (augment.mixup.probability > 0 and augment.mixup.kind == "linear")


def _absolute(augment: Augment) -> bool:
    """Whether something has a level of its own."""
    white, codec = augment.white, augment.codec
    noisy = white is not None and white.sigma is not None and white.probability > 0
    return noisy or (codec is not None and codec.probability > 0)
