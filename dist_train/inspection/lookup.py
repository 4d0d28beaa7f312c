"""What knowing a sample's group alone would score, without hearing anything: the measure of a leak by groups.

A tested sample gets the commonest class of its group (or recording) among what trains; where the group does not train,
the commonest class of all that does. Equal counts: the class with the lower number. Without a leak that is the score of
the commonest class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train.inspection.division import Division
from dist_train.inspection.ledger import Ledger, Numbers


@dataclass(frozen=True)
class Score:
    """Of one tested part: how many samples, how many right by the group, how many right by the commonest class."""

    part: str
    tested: int
    right: int
    common: int


def scores(ledger: Ledger, division: Division) -> list[Score]:
    """One score a tested part; parts that nothing trains for are left out."""
    kin, found = ledger.kin(), []
    for part in division.tested:
        trained, tested = division.trains(part), division.part == part
        if not trained.any():
            continue
        counts = np.bincount(ledger.label[trained], minlength=len(ledger.classes))
        common = int(counts.argmax())
        guess = _guess(kin, ledger.label, trained & (kin >= 0), kin[tested], len(ledger.classes), common)
        truth = ledger.label[tested]
        right, plain = int((guess == truth).sum()), int((truth == common).sum())
        found.append(Score(division.names[part], len(truth), right, plain))
    return found


def _guess(
    kin: Numbers, label: Numbers, known: NDArray[np.bool_], asked: Numbers, classes: int, common: int
) -> Numbers:
    """(asked,) the commonest label of each group among the known rows, `common` for a group that is not there."""
    if not known.any():
        return np.full(len(asked), common, np.int64)
    both, count = np.unique(kin[known] * classes + label[known], return_counts=True)
    group, number = both // classes, both % classes
    order = np.lexsort((number, -count, group))
    names, first = np.unique(group[order], return_index=True)
    place = np.minimum(np.searchsorted(names, asked), len(names) - 1)
    return np.where(names[place] == asked, number[order][first][place], common)
