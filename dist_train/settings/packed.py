"""What features.name=packed leaves no room for: keys that need waveforms, of which the shards hold none."""

from fractions import Fraction

from dist_train.settings.sound import Audio, Augment

ON_FEATURES = {"mixup", "spec"}  # of augment; all other keys need waveforms
OF_WAVES = ("sample_rate", "channels", "target_db", "level")  # of audio; settled when the features were packed


def refusal(audio: Audio, augment: Augment) -> str | None:
    """The first key that asks for what packed features cannot give, and how to mend it; None: there is none."""
    for key in OF_WAVES:
        if audio.given(key):
            return f"audio.{key} was settled when the features were packed, features.name=packed cannot change it"
    if audio.crop == "active":
        return "audio.crop=active needs waveforms and features.name=packed has none: set audio.crop=random"
    if audio.short == "random_pad":
        return "audio.short=random_pad needs waveforms and features.name=packed has none: set audio.short=pad"
    if list(augment.speed) != [Fraction(1)]:
        return "augment.speed needs waveforms and features.name=packed has none: set augment.speed=[1]"
    for key in Augment.model_fields:
        if key not in ON_FEATURES | {"speed"} and augment.given(key):
            return f"augment.{key} needs waveforms and features.name=packed has none: leave it out"
    if augment.mixup.kind != "linear":
        return f"augment.mixup.kind={augment.mixup.kind} needs waveforms and features.name=packed has none: set linear"
    return None
