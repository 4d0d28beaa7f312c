"""Scores of a run -> what result.json and scores.npz hold. In: the run's parts, its last scores; out: plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.frontend import FrontBatch
from dist_train.parts import Parts
from dist_train.scores import Scores
from dist_train.view import View


def summary(parts: Parts, kind: str, scores: Scores | None) -> dict[str, Any]:
    """result.json, but for what the record alone knows. `kind`: the set that `scores` are of."""
    progress, classes = parts.progress, list(parts.views.train.classes)
    result: dict[str, Any] = {"metric": parts.metric, "value": scores.values[parts.metric] if scores else None}
    result |= scores.values if scores else {}
    result |= {
        "set": kind if scores else None,
        "step": progress.step,
        "epoch": progress.consumed / progress.samples,
        "clips": scores.clips if scores else 0,
        "checkpoint": f"step-{progress.step:08d}.pt",
        "stream": f"{progress.stream:016x}",
        "classes": classes,
    }
    if scores is not None and scores.confusion is None:
        columns = scores.classes
        rows = zip(classes, *columns.values(), strict=True)
        return result | {"per_class": {name: dict(zip(columns, figures, strict=True)) for name, *figures in rows}}
    return result | {"confusion": scores.confusion.tolist() if scores and scores.confusion is not None else None}


def arrays(scores: Scores, view: View, classes: Sequence[str]) -> dict[str, NDArray[Any]]:
    """scores.npz: what the scores are computed from, a row a clip.

    keys (N,), classes (C,), truth (N,) class number, or (N, C) 1 for a label, probability (N, C), bad (N,): unreadable,
    and given a wrong probability.
    """
    bad = np.zeros(scores.clips, np.bool_)
    bad[[number for number, _ in scores.bad]] = True
    return {
        "keys": np.array([view.key(number) for number in range(scores.clips)]),
        "classes": np.array(classes),
        "truth": scores.truth.numpy(),
        "probability": scores.probability_NC.numpy(),
        "bad": bad,
    }


def titles(batch: FrontBatch, classes: Sequence[str], count: int) -> list[str]:
    """Names of the classes of a batch's first rows; several of a clip are joined with `;`."""
    if batch.target_BC is None:  # classes of other speeds lie behind those of factor 1
        return [classes[number % len(classes)] for number in batch.label_B[:count].tolist()]
    rows = batch.target_BC[:count].tolist()
    return [";".join(name for name, there in zip(classes, row, strict=True) if there) for row in rows]
