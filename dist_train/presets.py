"""Front ends of other systems: `features.preset` -> the keys of `audio` and `features` that it fixes. Plain data."""

from typing import Any

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # compute-fbank-feats with its defaults
    "kaldi": {"features": {"bins": 23, "norm": "none", "waveform_scale": 32768.0, "dither": 1.0}},
    # AudioClassification-Pytorch: level of each clip to -20 dB, Fbank of [-1, 1], mean removed
    "macls": {"audio": {"target_db": -20.0}, "features": {"bins": 80, "norm": "cmn"}},
    # 3D-Speaker: FBank(80, mean_nor=True)
    "3dspeaker": {"features": {"bins": 80, "norm": "cmn"}},
    # WeSpeaker: int16 scale, hamming, dither 1
    "wespeaker": {
        "features": {"bins": 80, "norm": "cmn", "window": "hamming", "waveform_scale": 32768.0, "dither": 1.0}
    },
}
COMMON = {
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


def preset(name: str) -> dict[str, dict[str, Any]]:
    """Every key of `audio` and `features` that the named system fixes. ValueError, naming the known, for another."""
    if name not in PRESETS:
        raise ValueError(f"features.preset: `{name}` is not known; choose one of {', '.join(PRESETS)}")
    return {section: keys | PRESETS[name].get(section, {}) for section, keys in COMMON.items()}


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
