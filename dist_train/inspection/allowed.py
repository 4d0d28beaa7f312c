"""Overlaps that are known and accepted: those of published folds, and what a file of the user's lists.

A line of the file is a group, or two groups or two samples' names parted by a tab; `#` begins a comment line.

UrbanSound8K   five recordings lie in two of its ten folds; which, the data itself says
ESC-10, ESC-50 recordings 151080 (fold 3) and 151085 (fold 5) hold the same crying, the one with pauses cut out: quarter
               second by quarter second their waveforms correlate by .97 to .99
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dist_train.inspection.division import Division
from dist_train.inspection.leaks import Leak
from dist_train.inspection.ledger import Ledger

URBAN_SIZES = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)
"""Clips in UrbanSound8K's folds 1 to 10: what it is recognised by."""
URBAN_KNOWN = 5
ESC_PAIRS = (("151080", "151085"),)


@dataclass(frozen=True)
class Allowed:
    """Names of groups, and pairs of names of groups or samples."""

    groups: frozenset[str] = frozenset()
    pairs: frozenset[frozenset[str]] = field(default_factory=frozenset)

    def takes(self, ledger: Ledger, leak: Leak) -> bool:
        """Whether every sample of the leak is of one allowed group, or the leak is between two that may be."""
        groups = [ledger.group_name(row) if ledger.group[row] >= 0 else "" for row in leak.rows.tolist()]
        if len(set(groups)) == 1 and groups[0] in self.groups:
            return True
        if frozenset(groups) in self.pairs:
            return True
        return len(leak.rows) == 2 and frozenset(map(ledger.name, leak.rows.tolist())) in self.pairs


def read(path: Path, ledger: Ledger) -> Allowed:
    """A file of what is accepted. ValueError for a line that names nothing of this data: it would be a slip."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--allow {path}: cannot be read as UTF-8 text ({error})") from None
    groups = {ledger.group_name(row) for row in np.flatnonzero(ledger.group >= 0).tolist()}
    names = {ledger.name(row) for row in range(len(ledger))}
    alone, pairs = set[str](), set[frozenset[str]]()
    for number, line in enumerate(lines, 1):
        fields = [part.strip() for part in line.split("\t") if part.strip()]
        if not fields or fields[0].startswith("#"):
            continue
        both = len(fields) == 2 and (groups.issuperset(fields) or names.issuperset(fields))
        if not both and (len(fields) != 1 or fields[0] not in groups):
            raise ValueError(
                f"{path} line {number}: is no group of {ledger.source}, nor two groups or samples and a tab"
            )
        if both:
            pairs.add(frozenset(fields))
        else:
            alone.add(fields[0])
    return Allowed(frozenset(alone), frozenset(pairs))


def official(ledger: Ledger, division: Division, leaks: Iterable[Leak]) -> tuple[str, Allowed]:
    """(data set, what is known of its own folds) for folds as they were published; ("", nothing) for any others."""
    if division.rule != "folds":
        return "", Allowed()
    sizes = np.bincount(ledger.fold[ledger.fold >= 0]).tolist()
    if sizes == [0, *URBAN_SIZES]:
        groups = {leak.name for leak in leaks if leak.kind == "group"}
        # More than are known of: these are not the published folds, though of their sizes.
        return "UrbanSound8K", Allowed(frozenset(groups if len(groups) <= URBAN_KNOWN else ()))
    if sizes in ([0, *[80] * 5], [0, *[400] * 5]) and _crying(ledger).issuperset(ESC_PAIRS[0]):
        return f"ESC-{len(ledger) // 40}", Allowed(pairs=frozenset(map(frozenset, ESC_PAIRS)))
    return "", Allowed()


def _crying(ledger: Ledger) -> set[str]:
    """The groups of ESC's class of crying babies, which is spelled in two ways."""
    crying = [number for number, name in enumerate(ledger.classes) if name.lower() in ("baby cry", "crying baby")]
    return {ledger.group_name(row) for row in np.flatnonzero(np.isin(ledger.label, crying)).tolist()}
