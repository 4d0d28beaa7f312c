"""Front ends of other systems: `features.preset` -> the keys of `audio` and `features` that it fixes. Plain data.

Each is a group of keys that several systems share, and what it changes of them. docs/features.md says where they are
from.
"""

from typing import Any

from dist_train.settings.features import READ_BY, Features

Keys = dict[str, dict[str, Any]]

KALDI: Keys = {
    "audio": {"sample_rate": 16000, "channels": "mono", "target_db": None},
    "features": {
        "name": "fbank",
        "window": "povey",
        "frame_length": 25.0,
        "frame_shift": 10.0,
        "low_freq": 20.0,
        "high_freq": 0.0,
        "preemphasis": 0.97,
        "waveform_scale": 1.0,
        "dither": 0.0,
    },
}
TORCHAUDIO: Keys = {  # the defaults of torchaudio's transforms, as macls takes them
    "audio": {"sample_rate": 16000, "channels": "mono", "target_db": -20.0},
    "features": {
        "window": "hanning",
        "win_length": 400,
        "hop_length": 200,
        "fft": 400,
        "power": 2.0,
        "center": True,
        "waveform_scale": 1.0,
        "norm": "cmn",
    },
}
MEL: Keys = {
    "audio": {"channels": "mono", "target_db": None},
    "features": {
        "name": "mel",
        "window": "hanning",
        "low_freq": 0.0,
        "high_freq": 0.0,
        "power": 2.0,
        "mel_scale": "htk",
        "mel_norm": "none",
        "center": True,
        "waveform_scale": 1.0,
    },
}
BANK = {"bins": 128, "low_freq": 0.0, "high_freq": 0.0, "mel_scale": "htk", "mel_norm": "none"}

PRESETS: dict[str, tuple[Keys, Keys]] = {
    # compute-fbank-feats with its defaults
    "kaldi": (KALDI, {"features": {"bins": 23, "norm": "none", "waveform_scale": 32768.0, "dither": 1.0}}),
    # AudioClassification-Pytorch: level of each clip to -20 dB, Fbank of [-1, 1], mean removed
    "macls": (KALDI, {"audio": {"target_db": -20.0}, "features": {"bins": 80, "norm": "cmn"}}),
    # its other features: torchaudio's transforms with their defaults, linear, mean removed
    "macls_mel": (TORCHAUDIO, {"features": {"name": "mel", "scale": "linear"} | BANK}),
    "macls_spectrogram": (TORCHAUDIO, {"features": {"name": "spectrogram", "scale": "linear"}}),
    "macls_mfcc": (TORCHAUDIO, {"features": {"name": "torchaudio_mfcc", "ceps": 40, "top_db": 80.0} | BANK}),
    # 3D-Speaker: FBank(80, mean_nor=True)
    "3dspeaker": (KALDI, {"features": {"bins": 80, "norm": "cmn"}}),
    # WeSpeaker: int16 scale, hamming, dither 1
    "wespeaker": (
        KALDI,
        {"features": {"bins": 80, "norm": "cmn", "window": "hamming", "waveform_scale": 32768.0, "dither": 1.0}},
    ),
    # SpeechBrain: lobes.features.Fbank(n_mels=80) and sentence mean normalisation (spkrec-ecapa-voxceleb)
    "speechbrain": (
        MEL,
        {
            "audio": {"sample_rate": 16000},
            "features": {"window": "hamming", "win_length": 400, "hop_length": 160, "fft": 400, "bins": 80}
            | {"mel_slopes": "lower", "pad_mode": "constant", "scale": "db", "top_db": 80.0, "norm": "cmn"},
        },
    ),
    # PANNs (audioset_tagging_cnn): librosa's mel bank, dB without a limit; the network normalises
    "panns": (
        MEL,
        {
            "audio": {"sample_rate": 32000},
            "features": {"win_length": 1024, "hop_length": 320, "fft": 1024, "bins": 64, "low_freq": 50.0}
            | {"high_freq": 14000.0, "mel_scale": "slaney", "mel_norm": "slaney", "scale": "db", "norm": "none"},
        },
    ),
    # AudioSet's VGGish: ln(magnitude + 0.01), triangles linear in mel as Kaldi's are
    "vggish": (
        KALDI,
        {
            "features": {"window": "hanning", "window_periodic": True, "remove_dc": False, "preemphasis": 0.0}
            | {"power": 1.0, "log_offset": 0.01, "bins": 64, "low_freq": 125.0, "high_freq": 7500.0, "norm": "none"},
        },
    ),
    # crnn-audio-classification: linear power, each clip whitened
    "crnn": (
        MEL,
        {
            "audio": {"sample_rate": 44100},
            "features": {"win_length": 2048, "hop_length": 1024, "fft": 2048, "bins": 128, "scale": "linear"}
            | {"norm": "clip"},
        },
    ),
    # four-block CNN on stereo dB, each batch standardised
    "cnn4": (
        MEL,
        {
            "audio": {"sample_rate": 44100, "channels": 2},
            "features": {"win_length": 1024, "hop_length": 512, "fft": 1024, "bins": 64, "scale": "db"}
            | {"top_db": 80.0, "norm": "batch"},
        },
    ),
    # ResNetish and VGGish of FSDKaggle2018: ln without an offset, but finite; how it is normalised is left open
    "resnetish": (
        MEL,
        {
            "audio": {"sample_rate": 44100},
            "features": {"win_length": 1024, "hop_length": 441, "fft": 1024, "bins": 64, "scale": "ln"}
            | {"amin": 1.1754944e-38},
        },
    ),
}


def preset(name: str) -> Keys:
    """Every key of `audio` and `features` that the named system fixes, those that stay as they are by default too.

    ValueError, naming the known, for another name.
    """
    if name not in PRESETS:
        raise ValueError(f"features.preset: `{name}` is not known; choose one of {', '.join(PRESETS)}")
    shared, own = PRESETS[name]
    fixed = {section: keys | own.get(section, {}) for section, keys in shared.items()}
    kind, spans = fixed["features"]["name"], {"win_length": "frame_length", "hop_length": "frame_shift"}
    idle = {other for key, other in spans.items() if key in fixed["features"]}
    fields = Features.model_fields
    default = {key: fields[key].default for key, names in READ_BY.items() if kind in names and key not in idle}
    return fixed | {"features": default | fixed["features"]}


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration's values with the keys that its preset fixes. ValueError where one is given otherwise."""
    features = values.get("features")
    name = features.get("preset") if isinstance(features, dict) else None
    if name is None:
        return values
    out = dict(values)
    for section, keys in preset(name).items():
        given = values.get(section, {})
        if not isinstance(given, dict):
            continue
        for key, value in keys.items():
            if key in given and given[key] != value:
                raise ValueError(f"{section}.{key}: features.preset={name} fixes it to {value}; leave it out")
        out[section] = {**given, **keys}
    return out
