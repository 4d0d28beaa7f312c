"""A run's folder without the training: the network as it begins, its statistics, its checkpoint; and what it scores."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from clips import sound
from launches import SETTINGS

from dist_train import config as configuration
from dist_train.checkpoint import Checkpoints
from dist_train.options import Options
from dist_train.packing import pack
from dist_train.packlist import key
from dist_train.parts import Parts
from dist_train.samples import Sample
from dist_train.scores import Scores
from dist_train.view import View
from dist_train.world import Place, World

WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
FORMS = (  # name, rate, channels, seconds, subtype
    ("a.wav", 44100, 2, 1.0, "PCM_16"),
    ("b.flac", 48000, 1, 0.9, "PCM_24"),
    ("c.ogg", 22050, 2, 1.3, "VORBIS"),
    ("d.mp3", 44100, 1, 0.7, "MPEG_LAYER_III"),
    ("e.opus", 48000, 1, 0.5, "OPUS"),
    ("f.wav", 8000, 1, 2.1, "ULAW"),
    ("g.wav", 16000, 1, 0.05, "FLOAT"),
    ("h.wav", 16000, 2, 0.4, "PCM_16"),
)


def recordings(folder: Path) -> list[Path]:
    """Two classes of recordings in eight forms: stereo, other rates, one shorter than a window, one half silent."""
    made = []
    for label in ('犬, "dog"', "rain <b>"):
        (folder / label).mkdir(parents=True)
        for number, (name, rate, channels, seconds, subtype) in enumerate(FORMS):
            wave = sound(round(rate * seconds), channels, seed=number + 20 * (label[0] == "r"))
            if number == 1:
                wave[: len(wave) // 2] = 0
            path = folder / label / name
            form = {"opus": "OGG"}.get(name[2:], name[2:].upper())
            soundfile.write(path, wave, rate, subtype, format=form)
            made.append(path)
    return made


def packed(source: Path, dest: Path, **options: Any) -> Path:
    """Shards of recordings, in two folds."""
    assert pack(source, dest, Options(folds=2, workers=1, **options)).indexed
    return dest


def untrained(folder: Path, shards: Path, *overrides: str) -> Parts:
    """The parts of a run whose checkpoint lies in `folder`."""
    data = {"shards": [str(shards)], "eval_folds": [1], "threads": 1}
    values = SETTINGS | {"data": data, "augment": {"speed": [1]}}
    if any(text.startswith("model=") for text in overrides):
        del values["model"]
    text = str(configuration.yaml.safe_dump(values))
    folder.mkdir(parents=True)
    (folder / "given.yaml").write_text(text)
    config = configuration.load(folder / "given.yaml", list(overrides))
    parts = Parts(config, WORLD)
    with torch.no_grad():
        for number, parameter in enumerate(parts.model.parameters()):  # zeros and ones hide errors
            generator = torch.Generator().manual_seed(number)
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)
    if config.features.norm == "dataset":
        parts.front.statistics = parts.measure()
    (folder / "config.yaml").write_text(configuration.dump(config))
    saver = Checkpoints(folder / "checkpoints", 1, print)
    saver.save(1, parts.payload(torch.zeros(1)))
    saver.wait()
    return parts


def scored(parts: Parts) -> tuple[View, Scores]:
    """The evaluation set, and its scores."""
    view = parts.views.evaluation
    assert view is not None
    scores = parts.score(view, lambda: False)
    assert scores is not None and not scores.bad
    return view, scores


def by_key(paths: list[Path], source: Path) -> dict[str, Path]:
    """The recordings by their keys in shards."""
    names = [path.relative_to(source).as_posix() for path in paths]
    return {key(Sample(path, name, ())): path for path, name in zip(paths, names, strict=True)}


def ordered(view: View, paths: dict[str, Path]) -> list[Path]:
    """The recordings of a view."""
    return [paths[view.key(number)] for number in np.arange(len(view)).tolist()]
