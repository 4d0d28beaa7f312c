"""features.hf and model -> a pretrained encoder with the model on top, on all ranks alike.

Rank 0 loads first, and brings an encoder of the hub into the cache while the others wait; then they read it from there,
or on another machine bring it themselves, under the hub's own lock.
"""

from typing import Any

from torch import nn

from dist_train import models
from dist_train.models import hub
from dist_train.models.encoder import Encoded, Encoder, freeze_idle
from dist_train.settings import Config
from dist_train.window import window_samples
from dist_train.world import World


def encoded(config: Config, classes: int, world: World) -> nn.Module:
    """The network of features.name=hf. ValueError where encoder, audio and model do not fit together."""
    settings = config.features.hf
    assert settings is not None
    encoder, rate = _loaded(settings.model_dump(), world)
    _fits(config, settings.name, encoder, rate)
    sizes = config.model.sizes()
    model = Encoded(encoder, models.build(config.model.name, encoder.hidden, classes, **sizes))
    freeze_idle(model, window_samples(config.audio))
    return model


def _loaded(given: dict[str, Any], world: World) -> tuple[Encoder, int]:
    made: list[tuple[Encoder, int]] = []
    world.lead(lambda: made.append(hub.load(**given)))
    return made[0] if made else hub.load(**given)


def _fits(config: Config, name: str, encoder: Encoder, rate: int) -> None:
    audio, evaluation, most = config.audio, config.evaluation, encoder.prepare.most
    if audio.sample_rate != rate:
        raise ValueError(f"audio.sample_rate={audio.sample_rate}: {name} hears {rate} Hz; set audio.sample_rate={rate}")
    longest, key = audio.seconds, "audio.seconds"
    if evaluation.clip == "full" and evaluation.max_seconds > longest:
        longest, key = evaluation.max_seconds, "evaluation.max_seconds"
    if most is not None and longest * rate > most:
        raise ValueError(f"{key}={longest:g}: {name} hears at most {most / rate:g} s of a clip; lower it")
