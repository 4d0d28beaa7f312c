"""Figures of classes by column -> a row a class, the ones that want attention first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dist_train.report.guesses import Counts
from dist_train.scored import Scored

MOST = 1000  # classes that are shown


@dataclass(frozen=True)
class Row:
    """A class. None: it means nothing there. `span`: interval of the recall, of several labels of the average
    precision; `taken`: (class, clips) that it is most often taken for."""

    number: int
    name: str
    clips: int
    trained: int | None
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    span: tuple[float, float] | None
    taken: tuple[str, int] | None


def of(
    scored: Scored,
    columns: dict[str, list[float | None]],
    counts_CC: Counts | None,
    trained: Sequence[int] | None,
    spans: Sequence[tuple[float, float] | None] = (),
) -> tuple[list[Row], int]:
    """Rows in the order of classes, and how many were left out: beyond MOST those with the best F1 are."""
    size = len(scored.classes)
    f1 = [value if value is not None else 2.0 for value in columns.get("f1", [None] * size)]
    kept = sorted(sorted(range(size), key=lambda number: f1[number])[:MOST])
    ends = spans or [None] * size
    rows = [_row(scored, columns, counts_CC, trained, ends[number], number) for number in kept]
    return rows, size - len(rows)


def _row(
    scored: Scored,
    columns: dict[str, list[float | None]],
    counts_CC: Counts | None,
    trained: Sequence[int] | None,
    span: tuple[float, float] | None,
    number: int,
) -> Row:
    def figure(name: str) -> float | None:
        return columns[name][number] if name in columns else None

    taken = None
    if counts_CC is not None:
        wrong = counts_CC[number].copy()
        wrong[number] = 0
        other = int(np.argmax(wrong))
        taken = (scored.classes[other], int(wrong[other])) if wrong[other] else None
    return Row(
        number,
        scored.classes[number],
        int(figure("support") or 0),
        trained[number] if trained is not None else None,
        figure("precision"),
        figure("recall"),
        figure("f1"),
        figure("average_precision"),
        span,
        taken,
    )
