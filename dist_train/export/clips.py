"""Real clips to check a file with: recordings that the user names, or those that a run was scored on.

Out: waves (1, T) or (1, T, C) float32 at the run's rate, exactly what evaluation hears of each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_train import feed
from dist_train.export.beside import Wave
from dist_train.inference import Model
from dist_train.inference.ahead import Bad
from dist_train.inference.ahead import clips as decoded
from dist_train.inference.sound import Named
from dist_train.reader import Reader
from dist_train.resample import Resamplers
from dist_train.sources.recordings import SUFFIXES
from dist_train.supply import source
from dist_train.view import View
from dist_train.waves import Waves
from dist_train.window import full_windows

_HOUR = 3600.0  # longer clips are heard in part


@dataclass(frozen=True)
class Real:
    """A clip; truth: its class's number, or (C,) 1 for a label; None: nobody said it."""

    name: str
    wave: Wave
    truth: Any = None


def listed(paths: Sequence[Path]) -> list[Path]:
    """Files, and all recordings in folders. ValueError: a folder without any."""
    files: list[Path] = []
    for path in paths:
        inside = (
            sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        )
        if not inside:
            raise ValueError(f"{path}: no recording lies there; name a file, or a folder of recordings")
        files += inside
    return files


def recordings(paths: Sequence[Path], model: Model) -> Iterator[Real]:
    """Those of `listed`. ValueError: none there, or one that cannot be read."""
    files = listed(paths)
    for found in decoded((Named(str(file), file) for file in files), None, model.config.audio, None):
        if isinstance(found, Bad):
            raise ValueError(str(found))
        whole = found.frames_TC.dtype == np.int16
        frames_TC = found.frames_TC.astype(np.float32) * np.float32(2.0**-15 if whole else 1.0)
        yield Real(found.name, _heard(frames_TC, model))


def scored(model: Model) -> View | None:
    """The clips that the run was scored on; None: it has none, or its shards are not here."""
    try:
        views = feed.views(model.config)
    except (ValueError, OSError):
        return None
    return views.evaluation or views.valid


def trained(model: Model) -> View:
    """The clips that the run learnt from. ValueError: its shards are not here."""
    return feed.views(model.config).train


def packed(view: View, model: Model, most: int) -> Iterator[Real]:
    """Evenly spaced clips of shards, at most so many; those that cannot be read are left out."""
    config, audio = model.config, model.config.audio
    ids = np.unique(np.linspace(0, len(view) - 1, min(len(view), most)).astype(np.int64))
    waves, files = Waves(audio, [], Resamplers(torch.device("cpu"))), source.of_view(view, config)
    plans = (full_windows(view.rows(ids[one : one + 1]), ids[one : one + 1], audio, _HOUR) for one in range(len(ids)))
    reader = Reader(files, plans, 1, 2, False)
    truths = view.targets(ids) if model.several else view.rows(ids)["label"].tolist()
    try:
        for raw, number, truth in zip(reader, ids.tolist(), truths, strict=True):
            if raw.bad:
                continue
            wave_CT = waves(raw.data, raw.plan, int(raw.plan["window"].max()), None, np.zeros(1))[0]
            yield Real(view.key(number), _heard(wave_CT.T.numpy(), model), truth)
    finally:
        reader.close()
        files.close()


def waves(clips: Iterable[Real]) -> Iterator[Wave]:
    """The sound alone."""
    return (clip.wave for clip in clips)


def _heard(frames_TC: Wave, model: Model) -> Wave:
    whole = isinstance(model.config.audio.channels, int)
    return np.array(frames_TC[None] if whole else frames_TC[None, :, 0], np.float32)
