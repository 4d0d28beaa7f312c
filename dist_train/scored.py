"""A run's scores.npz -> what each clip was given: keys, truth, probabilities. Nothing is unpickled."""

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train import disk

_FIELDS = ("keys", "classes", "truth", "probability", "bad")


@dataclass(frozen=True)
class Scored:
    """A row a clip: `truth` (N,) class numbers, or (N, C) 1 for a label; `bad` (N,): unreadable, its row is wrong."""

    keys: NDArray[np.str_]
    classes: tuple[str, ...]
    truth: NDArray[Any]
    probability_NC: NDArray[np.float64]
    bad: NDArray[np.bool_]

    @property
    def several(self) -> bool:
        """Whether clips have any number of labels."""
        return self.truth.ndim == 2


def read(path: Path) -> Scored:
    """A scores.npz, or that of a run's folder. ValueError: there is none, or it is not one."""
    file = path / "scores.npz" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no scores there; a run writes them when it is finished, if it has an evaluation set")
    try:
        with np.load(file, allow_pickle=False) as held:
            keys, classes, truth, probability_NC, bad = (held[name] for name in _FIELDS)
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error):  # what NumPy says of any file that is none of its own
            raise ValueError(f"{file}: not the scores of a run (no .npz of arrays); train or evaluate again") from error
        raise ValueError(f"{file}: not the scores of a run ({error}); train or evaluate again") from error
    if not len(keys) == len(truth) == len(probability_NC) == len(bad) or probability_NC.shape[1:] != classes.shape:
        raise ValueError(f"{file}: not the scores of a run (lengths differ); train or evaluate again")
    return Scored(keys, tuple(str(name) for name in classes), truth, probability_NC, bad)


def write(path: Path, scored: Scored) -> None:
    """Write a scores.npz, whole or not at all."""
    values = (scored.keys, np.array(scored.classes), scored.truth, scored.probability_NC, scored.bad)
    disk.replace(path, lambda file: np.savez(file, allow_pickle=False, **dict(zip(_FIELDS, values, strict=True))))


def pool(parts: Sequence[Scored]) -> Scored:
    """The clips of all folds as one. ValueError: other classes, another task, or a clip in two parts."""
    first = parts[0]
    if any(part.classes != first.classes or part.several != first.several for part in parts):
        raise ValueError("scores of different classes or tasks cannot be pooled; name runs of one data set")
    keys = np.concatenate([part.keys for part in parts])
    if len(np.unique(keys)) < len(keys):
        twice, _ = Counter(keys.tolist()).most_common(1)[0]
        raise ValueError(f"clip {twice} is scored in two parts; name runs that hold out different folds")
    return Scored(
        keys,
        first.classes,
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.probability_NC for part in parts]),
        np.concatenate([part.bad for part in parts]),
    )
