"""One clip's audio, as packing codes it -> the .npy of its features, as a run that hears the audio would make them.

In: bytes of a WAV and a `Recipe`. Out: bytes of a (frames, bins) array, float32 or float16, neither normalised nor
augmented. The arithmetic is the front end's own, on one thread: the same bytes on any number of workers.
"""

import io
import json
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_train import config as configuration
from dist_train import packed
from dist_train.archive import level
from dist_train.archive.row import BYTES
from dist_train.frontend import FrontEnd
from dist_train.packed import Stored
from dist_train.payload import ALIGN, RawBatch
from dist_train.settings import Augment
from dist_train.settings.features import READ_BY
from dist_train.view import VIEW_ROW
from dist_train.window import full_windows

TYPES = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True)
class Recipe:
    """What is made of each clip; `kind`: one of TYPES."""

    stored: Stored
    kind: str

    def record(self) -> bytes:
        """features.json."""
        return (json.dumps(self.stored.record(), indent=1) + "\n").encode()

    def settles(self, given: dict[str, Any]) -> dict[str, Any]:
        """Options of packing that the configuration settles. ValueError where one is given otherwise."""
        sections = self.stored.sections()
        assert sections is not None, "a recipe knows its settings"
        rate, channels = sections[0].sample_rate, sections[0].channels
        settled = {"sample_rate": rate, "channels": channels if isinstance(channels, int) else 1, "codec": "pcm16"}
        for name, value in settled.items():
            if given.get(name, value) != value:
                option = f"--{name.replace('_', '-')} {given[name]}"
                raise ValueError(f"{option}: --features settles it, {value} by its CONFIG; leave it out")
        return settled


def recipe(path: Path, kind: str) -> Recipe:
    """The features that a configuration asks for. ValueError where they cannot be made in advance."""
    config = configuration.load(path)
    audio, features = config.audio, config.features
    if kind not in TYPES:
        raise ValueError(f"--feature-type {kind}: is none of {', '.join(TYPES)}")
    if features.name not in READ_BY["window"]:  # what is made of frames of samples
        raise ValueError(f"{path}: features.name={features.name} makes no features of audio; give another")
    if audio.channels == "first":
        raise ValueError(f"{path}: audio.channels=first cannot be packed as features; set mono or a number")
    if audio.target_db is not None and audio.level == "crop":
        raise ValueError(f"{path}: audio.level=crop needs windows, and clips are packed whole; set audio.level=clip")
    return Recipe(packed.stored_as(audio, features), kind)


def extract(wav: bytes, made: Recipe) -> bytes:
    """The .npy of a clip. ValueError where float16 cannot hold it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        feat_TF = _features(wav, made.stored)
    finally:
        torch.set_num_threads(threads)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(feat_TF, TYPES[made.kind])
    if not np.isfinite(array).all():
        raise ValueError(f"has features that {made.kind} does not hold")
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _features(wav: bytes, stored: Stored) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    front, said = _front(stored), level.read(io.BytesIO(wav), 0, len(wav), "wav")
    rows = np.zeros(1, VIEW_ROW)
    for name in ("frames", "rate", "rms", "codec", "channels"):
        rows[name] = getattr(said, name)
    plan = full_windows(rows, np.zeros(1, np.int64), front.audio, said.frames / said.rate + 1)
    width = BYTES[said.codec] * said.channels
    first, count = int(plan["first"][0]), int(plan["count"][0])
    data = np.zeros((1, -(-max(count * width, 1) // ALIGN) * ALIGN), np.uint8)
    begin, end = max(first, 0), min(first + count, said.frames)
    heard = np.frombuffer(wav, np.uint8)[said.offset + begin * width : said.offset + end * width]
    data[0, (begin - first) * width :][: len(heard)] = heard
    batch = front(RawBatch(plan, torch.from_numpy(data)), training=False)
    return batch.feat_BTF[0].numpy()


@lru_cache(maxsize=2)
def _front(stored: Stored) -> FrontEnd:
    sections = stored.sections()
    assert sections is not None, "a recipe knows its settings"
    audio, features = sections
    # The window is the clip, whatever its length: `seconds` only has to hold a frame.
    audio = audio.model_copy(update={"seconds": 60.0})
    features = features.model_copy(update={"norm": "none"})
    return FrontEnd(audio, Augment(speed=[Fraction(1)]), features, seed=0, device="cpu", listen=0)  # type: ignore[call-arg]
