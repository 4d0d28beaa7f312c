"""What is told of data, as tables of text: a title, a head, rows. `tools` lays them out for a terminal."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sheet:
    """One table; every row has as many fields as the head."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[Sequence[str]]


def separated(rows: Iterable[Sequence[object]]) -> str:
    """The text of a CSV file."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def share(part: float, whole: float) -> str:
    """`12 (3.4 %)`."""
    return f"{part:g} ({100 * part / whole:.1f} %)" if whole else f"{part:g}"
