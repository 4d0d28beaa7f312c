"""Embeddings of scored clips -> a map: points of classes by colour and shape, in a box of WIDTH x at most HEIGHT units.

At most MOST clips, evenly spread over the evaluation. Eight colours by six shapes tell 48 classes apart; where there
are more, those with the most clips on the map have them and the others are small grey dots.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dist_train.report import tsne
from dist_train.scored import Scored

WIDTH, HEIGHT, EDGE = 640, 480, 14
MOST = 1500
COLOURS, SHAPES = 8, 6
_WRONG = 200  # wrong clips that are listed


@dataclass(frozen=True)
class Point:
    """A clip on the map."""

    x: float
    y: float
    key: str
    truth: str
    guess: str
    wrong: bool


@dataclass(frozen=True)
class Group:
    """The points of a class; colour and shape -1: one of the others."""

    name: str
    colour: int
    shape: int
    points: list[Point]


@dataclass(frozen=True)
class Plane:
    """`shown` of `clips`; `wrong`: places of wrong clips as (group, point)."""

    groups: list[Group]
    shown: int
    clips: int
    wrong: list[tuple[int, int]]
    height: float
    width: int = WIDTH


def sample(clips: int) -> NDArray[np.int64]:
    """Numbers of at most MOST clips, evenly spread."""
    return np.arange(clips) if clips <= MOST else np.arange(MOST) * clips // MOST


def lay(
    scored: Scored,
    numbers: NDArray[np.int64],
    vectors_NE: NDArray[np.float32],
    wrong_N: NDArray[np.bool_],
    progress: Callable[[int, int], None] | None = None,
) -> Plane | None:
    """The map of clips `numbers`; `wrong_N`: of all clips. None: fewer than three have an embedding."""
    good = np.isfinite(vectors_NE).all(1)
    if good.sum() < 3:
        return None
    places_N2, height = _inside(tsne.tsne(vectors_NE[good], progress=progress))
    kept = numbers[good]
    labels = [_label(scored, int(number)) for number in kept]
    order = [label for label, _ in Counter(labels).most_common()]
    named = sorted(order[: COLOURS * SHAPES])
    groups = [Group(_name(scored, one), *_look(number), []) for number, one in enumerate(named)]
    where = {label: number for number, label in enumerate(named)}
    if len(order) > len(named):
        groups.append(Group(f"{len(order) - len(named)} other classes", -1, -1, []))
    for number, label, (x, y) in zip(kept.tolist(), labels, places_N2.tolist(), strict=True):
        groups[where.get(label, len(named))].points.append(_point(scored, number, label, x, y, bool(wrong_N[number])))
    wrong = [(g, p) for g, group in enumerate(groups) for p, point in enumerate(group.points) if point.wrong]
    return Plane(groups, len(kept), len(scored.keys), wrong[:_WRONG], height)


def _look(number: int) -> tuple[int, int]:
    """Colour and shape of a class: neighbours differ in both."""
    return number % COLOURS, (number % COLOURS + number // COLOURS) % SHAPES


def _point(scored: Scored, number: int, label: int, x: float, y: float, wrong: bool) -> Point:
    guess = int(scored.probability_NC[number].argmax())
    names = scored.classes
    return Point(round(x, 1), round(y, 1), str(scored.keys[number]), _name(scored, label), names[guess], wrong)


def _label(scored: Scored, number: int) -> int:
    """A clip's class; of several labels the first, -1 for none."""
    if not scored.several:
        return int(scored.truth[number])
    there = np.flatnonzero(scored.truth[number] > 0)
    return int(there[0]) if len(there) else -1


def _name(scored: Scored, label: int) -> str:
    return scored.classes[label] if label >= 0 else "no label"


def _inside(places_N2: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Turned so that the map is wider than high, and scaled to the box, one scale for both ways; its height then."""
    places_N2 = tsne.principal(torch.from_numpy(places_N2)).numpy()
    low, high = places_N2.min(0), places_N2.max(0)
    room = np.array([WIDTH - 2 * EDGE, HEIGHT - 2 * EDGE])
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    height = max(HEIGHT / 3, float((high - low)[1]) * scale + 2 * EDGE)
    return np.asarray((places_N2 - (low + high) / 2) * scale + np.array([WIDTH, height]) / 2), round(height, 1)
