"""Probabilities of a clip's classes -> what a person asks of them: the label, the best few, whether it is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of one sound.

    source: the file's name, or `array 0`; label, probability: the best guess, known or not; probabilities: (C,) float64
    in the order of `classes`; top: the best few (label, probability), best first; labels: what is said: the best guess
    if it is known, and of a model of several labels a clip all that reach the threshold; seconds: length of the sound.
    """

    source: str
    label: str
    probability: float
    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]
    top: tuple[tuple[str, float], ...]
    labels: tuple[str, ...]
    seconds: float

    @property
    def known(self) -> bool:
        """Whether the threshold is reached; always, where there is none."""
        return bool(self.labels)

    @property
    def said(self) -> str:
        """The labels as one text, best first; `unknown` where none is known."""
        return "; ".join(self.labels) if self.labels else UNKNOWN

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        fields = {"source": self.source, "seconds": self.seconds, "label": self.label, "probability": self.probability}
        return fields | {"known": self.known, "labels": list(self.labels), "top": [list(pair) for pair in self.top]}


def judged(
    source: str,
    probabilities: NDArray[np.float64],
    classes: tuple[str, ...],
    seconds: float,
    several: bool,
    top: int,
    threshold: float | None,
) -> Prediction:
    """The prediction of one sound. Of equal probabilities the first class goes first, as in scores."""
    order = np.argsort(-probabilities, kind="stable")
    pairs = tuple((classes[number], float(probabilities[number])) for number in order)
    if several:
        labels = tuple(name for name, value in pairs if threshold is not None and value >= threshold)
    else:
        labels = (pairs[0][0],) if threshold is None or pairs[0][1] >= threshold else ()
    return Prediction(source, *pairs[0], probabilities, classes, pairs[: max(1, top)], labels, seconds)
