"""What an exported file says of itself: texts by name, which every reader of ONNX, torch or safetensors finds.

classes      JSON list, in the order of the probabilities          sample_rate  Hz, of the waveform that goes in
task         softmax (one label a clip) or bce (any number)        channels     of the waveform
threshold    a lower probability is unknown; empty: none           seconds      of the windows that the network hears
settings     JSON of the run's sections audio, features, model, objective, evaluation, its precision and augment.speed
run, checkpoint, versions                                          where it comes from
"""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dist_train import config as configuration
from dist_train.inference import Model

SECTIONS = ("audio", "features", "model", "objective", "evaluation")
PACKAGES = ("dist-train", "torch", "onnx", "onnxruntime")


def facts(model: Model, run: str) -> dict[str, str]:
    """All of it; `run`: the run's name. Nothing of this machine: no path, no address."""
    config = model.config
    plain: dict[str, Any] = configuration.plain(config)
    settings = {section: plain[section] for section in SECTIONS}
    settings["model"] |= {"pretrained": None}
    settings["augment"] = {"speed": plain["augment"]["speed"]}  # with objective.speed_classes it sizes the head
    settings["precision"] = plain["precision"]
    return {
        "classes": json.dumps(list(model.classes), ensure_ascii=False),
        "task": "bce" if model.several else "softmax",
        "sample_rate": str(model.sample_rate),
        "channels": str(model.channels),
        "seconds": f"{model.seconds:g}",
        "threshold": "" if model.threshold is None else repr(model.threshold),
        "run": run,
        "checkpoint": model.path.name,
        "settings": json.dumps(settings, ensure_ascii=False),
        "versions": json.dumps({"python": platform.python_version()} | _versions()),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
