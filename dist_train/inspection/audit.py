"""Data -> is it sound to score on: leaks between its parts, what they are worth, and a verdict in words.

    ledger, division --leaks--> what is in two parts --allowed--> what is known of
                     --lookup--> what knowing the group alone would score
    shards --hearing--> prints, peaks --twins--> near-duplicates

`Audit.leaks` is true where something is in two parts that nobody said to be known: exit code 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.inspection import allowed, clipping, division, hearing, leaks, ledger, lookup, prints, stats, twins
from dist_train.inspection.allowed import Allowed
from dist_train.inspection.clipping import Peak
from dist_train.inspection.division import Division
from dist_train.inspection.leaks import KINDS, Leak
from dist_train.inspection.ledger import Ledger
from dist_train.inspection.lookup import Score
from dist_train.inspection.prints import Print

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, of how many)."""
Pairs = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Finding:
    """Of one division: leaks that are not known, known ones and by whom, whom the former help by kind, what the group
    alone scores."""

    division: Division
    leaks: list[Leak]
    known: list[tuple[Leak, str]]
    exposed: dict[str, NDArray[np.bool_]]
    scores: list[Score]

    @property
    def helped(self) -> int:
        """Tested samples with a relative in training, of any kind, known leaks left out."""
        return int(np.any(list(self.exposed.values()), axis=0).sum())

    @property
    def tested(self) -> int:
        """Samples that are tested."""
        return int(np.isin(self.division.part, self.division.tested).sum())


@dataclass(frozen=True, eq=False)
class Audit:
    """All findings; stats: numbers of the shards, None for a table; listened: whether near-duplicates were sought."""

    ledger: Ledger
    findings: list[Finding]
    stats: dict[str, Any] | None
    listened: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def leaks(self) -> bool:
        """Whether anything is in two parts that is not known of."""
        return any(finding.leaks for finding in self.findings)


def audit(
    path: str | Path,
    rule: str | None = None,
    allow: Path | None = None,
    group: str | None = None,
    quick: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Audit:
    """Audit shards or a table. quick: shards are not heard. ValueError: bad input; OSError: a shard was cut."""
    data = ledger.read(path, group)
    divisions = division.make(data, rule)
    accepted = allowed.read(allow, data) if allow else Allowed()
    if data.one is None:
        return Audit(data, [_find(data, one, accepted, None) for one in divisions], None)
    if quick or "features" in data.one.info:
        return Audit(data, [_find(data, one, accepted, None) for one in divisions], stats.measure(data.one))
    sketches = twins.Sketches()
    peaks = _listen(data, sketches, progress)
    numbers = stats.measure(data.one, peaks)
    pairs = _alike(data, divisions, sketches, progress)
    return Audit(data, [_find(data, one, accepted, pairs) for one in divisions], numbers, listened=True)


def _find(data: Ledger, one: Division, accepted: Allowed, heard: Pairs | None) -> Finding:
    found = leaks.find(data, one, heard)
    official, published = allowed.official(data, one, found)
    known, unknown = list[tuple[Leak, str]](), list[Leak]()
    for leak in found:
        if published.takes(data, leak):
            known.append((leak, f"known in the official folds of {official}"))
        elif accepted.takes(data, leak):
            known.append((leak, "allowed"))
        else:
            unknown.append(leak)
    return Finding(one, unknown, known, leaks.exposed(data, one, unknown), lookup.scores(data, one))


def _listen(data: Ledger, sketches: twins.Sketches, progress: Progress) -> Iterator[Peak | str]:
    """Peaks of all rows, in order; their sketches are kept on the way."""
    assert data.one is not None

    def tick(done: int, total: int) -> None:
        progress("listening", done, total)

    for row, heard in enumerate(hearing.hear(data.one, range(len(data)), _job, tick)):
        if isinstance(heard, str):
            yield heard
        else:
            sketches.add(row, heard[0].sketch)
            yield heard[1]


def _job(sound: hearing.Sound) -> tuple[Print, Peak]:
    return prints.take(sound), clipping.measure(sound)


def _alike(data: Ledger, divisions: list[Division], sketches: twins.Sketches, progress: Progress) -> Pairs:
    """Pairs in different parts that sound alike and are not one group or of equal bytes, which is told elsewhere."""
    one = data.one
    assert one is not None

    def apart(pairs: Pairs) -> NDArray[np.bool_]:
        first, second = pairs[:, 0], pairs[:, 1]
        tied = (data.digest[first] == data.digest[second]) | (
            (data.group[first] == data.group[second]) & (data.group[first] >= 0)
        )
        parted = np.zeros(len(pairs), np.bool_)
        for parts in divisions:
            parted |= parts.part[first] != parts.part[second]
        parted &= ~tied
        return parted

    files = hearing.opened(one)
    try:
        found = twins.alike(
            sketches.candidates(apart),
            lambda row: prints.take(hearing.sound(one, files, row)),
            lambda done, total: progress("comparing", done, total),
        )
        return np.array(list(found), np.int64).reshape(-1, 2)
    finally:
        files.close()


def plain(found: Audit) -> dict[str, Any]:
    """All of it as JSON would have it."""
    name = found.ledger.name

    def leak(one: Leak) -> dict[str, Any]:
        return {"kind": one.kind, "name": one.name, "samples": [name(row) for row in one.rows.tolist()]}

    return {
        "source": found.ledger.source,
        "samples": len(found.ledger),
        "leaks": found.leaks,
        "divisions": [
            {
                "rule": one.division.rule,
                "tested": one.tested,
                "with_relative_in_training": one.helped,
                "by_kind": {kind: int(one.exposed[kind].sum()) for kind in KINDS},
                "group_lookup": {
                    score.part: {"tested": score.tested, "right": score.right, "commonest": score.common}
                    for score in one.scores
                },
                "leaks": [leak(each) for each in one.leaks],
                "known": [leak(each) | {"why": why} for each, why in one.known],
            }
            for one in found.findings
        ],
        "stats": found.stats,
    }
