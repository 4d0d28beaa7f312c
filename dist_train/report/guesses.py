"""Scores of clips -> what was taken for what: the matrix, the pairs that are confused, the worst mistakes.

A big matrix is shown in part: the classes of most mistakes, all others as one row and one column.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.scored import Scored
from dist_train.scoring import figures

MOST = 40  # classes of a matrix that is shown in part
WHOLE = 60  # classes up to which it is shown whole
_AT_ONCE = 1 << 14  # clips looked through at once

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Matrix:
    """`counts` rows: truth, columns: guess, of classes `numbers` (the last may be -1: all others). `similar`: places of
    the rows such that classes that are confused stand side by side."""

    numbers: list[int]
    names: list[str]
    counts: Counts
    similar: list[int]
    left_out: int

    def level(self, row: int, column: int) -> int:
        """0 to 5, the shade of a cell: its share of the row."""
        total = int(self.counts[row].sum())
        share = int(self.counts[row, column]) / total if total else 0.0
        return 0 if not share else 1 + min(4, int(share * 5))


@dataclass(frozen=True)
class Mistake:
    """A clip whose guess is wrong: `number` in the scores; probabilities of the truth and of the guess."""

    number: int
    key: str
    truth: list[int]
    guess: list[int]
    of_truth: float
    of_guess: float
    loss: float
    top: list[tuple[int, float]]


def guesses(scored: Scored) -> NDArray[np.int64]:
    """(N,) the likeliest class of each clip."""
    return np.asarray(scored.probability_NC.argmax(1), np.int64)


def counts(scored: Scored) -> Counts:
    """(C, C) clips by truth and guess, without those that cannot be read."""
    size, good = len(scored.classes), ~scored.bad
    flat = scored.truth[good].astype(np.int64) * size + guesses(scored)[good]
    return np.bincount(flat, minlength=size * size).reshape(size, size)


def matrix(scored: Scored, counts_CC: Counts) -> Matrix:
    """The matrix as it is shown: whole up to WHOLE classes, else the MOST classes with most mistakes and the others."""
    size = len(scored.classes)
    if size <= WHOLE:
        return Matrix(list(range(size)), list(scored.classes), counts_CC, _similar(counts_CC), 0)
    wrong_C = counts_CC.sum(0) + counts_CC.sum(1) - 2 * counts_CC.diagonal()
    kept = np.sort(np.argsort(-wrong_C, kind="stable")[:MOST])
    group = np.full(size, MOST)
    group[kept] = np.arange(MOST)
    shown = np.zeros((MOST + 1, MOST + 1), np.int64)
    np.add.at(shown, (group[:, None], group[None, :]), counts_CC)
    names = [*(scored.classes[number] for number in kept.tolist()), f"{size - MOST} other classes"]
    return Matrix([*kept.tolist(), -1], names, shown, [*_similar(shown[:-1, :-1]), MOST], size - MOST)


def pairs(counts_CC: Counts, most: int = 12) -> list[tuple[int, int, int]]:
    """(truth, guess, clips) of what is confused most."""
    wrong_CC = counts_CC.copy()
    np.fill_diagonal(wrong_CC, 0)
    flat = wrong_CC.ravel()
    places = np.argsort(-flat, kind="stable")[:most] if len(flat) else np.empty(0, np.int64)
    return [(*divmod(int(place), len(wrong_CC)), int(flat[place])) for place in places if flat[place]]


def worst(scored: Scored, losses_N: Floats, wrong_N: Marks, most: int) -> list[Mistake]:
    """The readable clips that are wrong, those of the highest loss first."""
    there = np.flatnonzero(wrong_N & ~scored.bad)
    order = there[np.argsort(-losses_N[there], kind="stable")][:most]
    return [_mistake(scored, int(number), float(losses_N[number])) for number in order]


def judged(scored: Scored) -> tuple[Floats, Marks]:
    """(N,) loss of each clip in nats, and whether it is wrong: its guess, or any label at a probability of 1/2."""
    losses_N, wrong_N = np.empty(len(scored.keys)), np.empty(len(scored.keys), np.bool_)
    for start in range(0, len(losses_N), _AT_ONCE):
        here = slice(start, start + _AT_ONCE)
        truth, probability_NC = scored.truth[here], scored.probability_NC[here]
        some = Scored(scored.keys[here], scored.classes, truth, probability_NC, scored.bad[here])
        losses_N[here] = figures.losses(some)
        if scored.several:
            wrong_N[here] = ((probability_NC > 0.5) != (truth > 0)).any(1)
        else:
            wrong_N[here] = ~figures.right(some)
    return losses_N, wrong_N


def _mistake(scored: Scored, number: int, loss: float) -> Mistake:
    p_C = scored.probability_NC[number]
    order = np.argsort(-p_C, kind="stable")
    if scored.several:
        truth, guess = np.flatnonzero(scored.truth[number] > 0).tolist(), np.flatnonzero(p_C > 0.5).tolist()
    else:
        truth, guess = [int(scored.truth[number])], [int(order[0])]
    of_truth = float(p_C[truth].min()) if truth else 0.0
    top = [(int(place), float(p_C[place])) for place in order[:4]]
    return Mistake(number, str(scored.keys[number]), truth, guess, of_truth, float(p_C[order[0]]), loss, top)


def _similar(counts_CC: Counts) -> list[int]:
    """Places in the order of the Fiedler vector of the graph of confusions: neighbours are what is confused."""
    size = len(counts_CC)
    if size < 3:
        return list(range(size))
    share = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    link = share + share.T + 1e-3
    np.fill_diagonal(link, 0)
    _, vectors = np.linalg.eigh(np.diag(link.sum(1)) - link)
    vector = vectors[:, 1] * (np.sign(vectors[np.abs(vectors[:, 1]).argmax(), 1]) or 1)
    place = np.empty(size, np.int64)
    place[np.argsort(vector, kind="stable")] = np.arange(size)
    return [int(one) for one in place]
