"""Names of a file's weights -> the system that they are from, and the front end that they were trained with.

Weights are worth little on other features: a network of one front end scores by chance on another's.
"""

from collections.abc import Collection
from typing import Any

from dist_train import config as configuration
from dist_train import presets
from dist_train.settings import Config

TITLES = {
    **{"3dspeaker": "3D-Speaker", "speechbrain": "SpeechBrain", "wespeaker": "WeSpeaker", "macls": "macls"},
    **{"panns": "PANNs", "dist_train": "dist_train"},
}
_OURS = ("audio.sample_rate", "audio.channels", "audio.target_db")
_FREE = ("features.dither", "features.preset")  # noise in training; a name for the others


def systems(architecture: str, names: Collection[str], file: str) -> tuple[str, ...]:
    """Whose weights these may be, the likeliest first; empty for networks of systems without a front end to name.

    SpeechBrain's and 3D-Speaker's ECAPA have the same names, and so have 3D-Speaker's and WeSpeaker's CAM++: there the
    file's name decides, if it can.
    """
    if "projection.weight" in names or any(".conv2_1." in name or ".se_res2block." in name for name in names):
        return ("wespeaker",)
    if architecture in ("tdnn", "resnet_se", "res2net") or {"fc.weight", "output.weight"} & set(names):
        known = ("ecapa", "campplus", "eres2net", "tdnn", "resnet_se", "res2net", "cnn6", "cnn10", "cnn14")
        return ("macls",) if architecture.startswith(known) else ()
    if architecture in ("cnn6", "cnn10", "cnn14"):
        return ("panns",)
    if architecture == "ecapa":
        by_name = {"embedding_model": "speechbrain", "ecapa": "3dspeaker"}
        named = [system for start, system in by_name.items() if file.startswith(start)]
        return (named[0],) if named else ("speechbrain", "3dspeaker")
    if architecture == "campplus":
        named = [
            s for start, s in {"campplus_": "3dspeaker", "avg_model": "wespeaker"}.items() if file.startswith(start)
        ]
        return (named[0],) if named else ("3dspeaker", "wespeaker")
    return ("3dspeaker",) if architecture.startswith(("eres2net", "xvector")) else ()


def needs(system: str) -> dict[str, Any]:
    """The settings of a system's front end, by their keys."""
    return dict(configuration.flat(presets.preset(system)))


def trained_with(values: dict[str, Any]) -> dict[str, Any]:
    """The front end in the configuration of one of our checkpoints."""
    flat = dict(configuration.flat(values))
    return {key: value for key, value in flat.items() if key.startswith("features.") or key in _OURS}


def differences(needed: dict[str, Any], config: Config) -> list[str]:
    """`key: needed, not given` for each setting of the front end that is another one."""
    now = dict(configuration.flat(configuration.plain(config)))
    return [
        f"{key}={value}, not {now[key]}"
        for key, value in needed.items()
        if key in now and key not in _FREE and now[key] != value
    ]


def warning(found: tuple[str, ...], config: Config, needed: dict[str, Any] | None = None) -> str | None:
    """One line where the front end is none of those that the weights may need. `needed`: known exactly."""
    if needed is None and (config.features.preset or "").startswith(found):
        return None
    by_system = {system: needed if needed is not None else needs(system) for system in found}
    apart = {system: differences(settings, config) for system, settings in by_system.items()}
    if not apart or not all(apart.values()):
        return None
    nearest = min(apart, key=lambda system: len(apart[system]))
    whose = " or ".join(TITLES[system] for system in found)
    preset = f" (features.preset={nearest})" if needed is None else ""
    return (
        f"the front end is not the one of these weights ({whose}); {TITLES[nearest]}'s has "
        f"{'; '.join(apart[nearest])}{preset}"
    )
