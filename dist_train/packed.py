"""Features made in advance: which front end they are of, and how a run hears them (features.name=packed).

In: `features` of the index of shard sets, which make_shards put there. Out: `Stored`, refusals, and the settings of
audio in which a sample is a frame and a channel a bin, so that windows, tiles, masks and mixtures are as of waveforms.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dist_train.archive.index import front_digest
from dist_train.features import extractor
from dist_train.settings import Audio, Config, Features
from dist_train.shards import ShardSet
from dist_train.view import View

HEARD = ("sample_rate", "channels", "target_db")  # of audio: what features depend on
LATER = {"norm", "dither", "preset"}  # of features: what a run decides, or has no part in stored ones


@dataclass(frozen=True)
class Stored:
    """A front end whose features lie in shards. `bins`: of all `channels` together; `rate`: frames a second, rounded;
    `settings`: JSON of its audio and features, empty where nobody said."""

    bins: int
    channels: int
    rate: int
    settings: str

    @property
    def digest(self) -> str:
        """What tells one front end from another."""
        return front_digest(self.bins, self.channels, json.loads(self.settings) if self.settings else None)

    def sections(self) -> tuple[Audio, Features] | None:
        """Its settings; None where nobody said. ValueError where this program does not know them."""
        if not self.settings:
            return None
        said = json.loads(self.settings)
        return Audio(**said["audio"]), Features(**said["features"])

    def frames(self, seconds: float) -> int:
        """Frames of a window of so many seconds: those that its waveform would have."""
        return _frames(self, seconds)

    def said(self) -> str:
        """For messages."""
        text = json.loads(self.settings) if self.settings else {"audio": {}, "features": {"name": "unknown"}}
        keys = [f"{key}={value}" for part in ("features", "audio") for key, value in text[part].items()]
        return f"{self.bins} bins at {self.rate} frames a second ({', '.join(keys)})"

    def record(self) -> dict[str, Any]:
        """What features.json and the index hold."""
        fields = {"bins": self.bins, "channels": self.channels, "rate": self.rate, "digest": self.digest}
        return fields | {"settings": json.loads(self.settings) if self.settings else None}


@lru_cache(maxsize=64)
def _frames(stored: Stored, seconds: float) -> int:
    sections = stored.sections()
    if sections is None:
        return max(1, round(seconds * stored.rate))
    audio, features = sections
    return extractor(audio, features, torch.device("cpu")).frames(round(seconds * audio.sample_rate))


def stored_as(audio: Audio, features: Features) -> Stored:
    """How a front end's features are stored: neither normalised nor dithered."""
    bank = extractor(audio, features, torch.device("cpu"))
    channels = audio.channels if isinstance(audio.channels, int) else 1
    keys = features.model_dump(exclude_defaults=True, exclude=LATER) | {"name": features.name}
    said = {"audio": {key: getattr(audio, key) for key in HEARD}, "features": keys}
    rate = max(1, round(audio.sample_rate / bank.shift))
    return Stored(bank.bins * channels, channels, rate, json.dumps(said, sort_keys=True))


def of_set(one: ShardSet) -> Stored | None:
    """The front end of a set of shards; None: it holds audio."""
    fields = one.info.get("features")
    if fields is None:
        return None
    settings = json.dumps(fields["settings"], sort_keys=True) if fields["settings"] else ""
    return Stored(fields["bins"], fields["channels"], fields["rate"], settings)


def of_view(view: View) -> Stored | None:
    """The front end of a view, whose sets agree."""
    return of_set(view.sets[0])


def agree(config: Config, sets: Sequence[ShardSet]) -> None:
    """ValueError where shards do not hold what the run is told to take, or not all of them the same."""
    first, wanted = of_set(sets[0]), config.features.name == "packed"
    for one in sets:
        found = of_set(one)
        if found is None and wanted:
            how = f"python tools/make_shards.py pack SOURCE {one.root} --features CONFIG"
            raise ValueError(f"{one.root}: holds audio, and features.name=packed takes features: pack them by {how}")
        if found is not None and not wanted:
            what = f"holds features, {found.said()}, and no audio"
            raise ValueError(f"{one.root}: {what}; set features.name=packed, or name shards of audio")
        if found != first:
            assert found is not None and first is not None
            raise ValueError(
                f"{one.root}: holds features of another front end than {sets[0].root}: {found.said()}; there "
                f"{first.said()}; pack both with one CONFIG"
            )
    if first is not None and first.frames(config.audio.seconds) < 1:
        raise ValueError(f"audio.seconds={config.audio.seconds:g} is shorter than a frame of the packed features")


def same(saved: dict[str, Any] | None, stored: Stored | None) -> None:
    """ValueError where a model was trained on the packed features of another front end. `saved`: in its checkpoint."""
    if (saved["digest"] if saved else None) != (stored.digest if stored else None):
        trained = "audio" if saved is None else f"features {saved['settings']}"
        given = "audio" if stored is None else f"features {stored.said()}"
        raise ValueError(
            f"the checkpoint's model was trained on {trained}, the shards hold {given}: give the same kind"
        )


def unpacked(config: Config, saved: dict[str, Any] | None) -> Config:
    """The configuration by which a model that was trained on packed features hears audio. `saved`: in its checkpoint.

    ValueError where nobody said what the features were of. Without packed features the configuration as it is.
    """
    if saved is None:
        return config
    if saved["settings"] is None:
        raise ValueError("the model was trained on packed features of an unknown front end: it cannot hear audio")
    said = saved["settings"]
    audio = config.audio.model_copy(update=said["audio"])
    features = Features(**said["features"], norm=config.features.norm)
    return config.model_copy(update={"audio": audio, "features": features})


def made_by(config: Config, stored: Stored | None) -> Config:
    """The configuration with the front end by which the stored features were made, where somebody said it."""
    return unpacked(config, stored.record()) if stored is not None and stored.settings else config


def heard(audio: Audio, stored: Stored | None) -> Audio:
    """The settings of audio for windows of stored features: a sample is a frame, a channel a bin."""
    if stored is None:
        return audio
    seconds = stored.frames(audio.seconds) / stored.rate
    return audio.model_copy(update={"sample_rate": stored.rate, "seconds": seconds, "channels": stored.bins})


def sound(feat_BCT: Tensor) -> Tensor:
    """(B,) whether there is any sound in rows of stored features: silence has the same frame all the time."""
    return ((feat_BCT != feat_BCT[..., :1]) & (feat_BCT != 0)).flatten(1).any(1)
