"""An Audit -> words: a verdict for each division, its leaks by name, and tables."""

from collections.abc import Iterator

import numpy as np

from dist_train.inspection import stats
from dist_train.inspection.audit import Audit, Finding
from dist_train.inspection.leaks import KINDS, Leak
from dist_train.inspection.ledger import Ledger
from dist_train.sheet import Sheet, share

NAMED = 10  # leaks of a kind by name, and samples of a leak
MEANINGS = {
    "group": "the same group",
    "recording": "the same recording",
    "bytes": "equal bytes",
    "overlap": "overlapping time of one recording",
    "sound": "near-duplicates by ear",
}
PARTS = 12  # columns of the table of balance


def lines(found: Audit) -> Iterator[str]:
    """The leaks by name, then the verdicts."""
    for finding in found.findings:
        yield from _named(found.ledger, finding)
    if not found.findings:
        yield f"{found.ledger.source}: has neither folds nor splits: audit a rule with --split (docs/audit.md)"
    for finding in found.findings:
        yield from _verdict(found, finding)


def _named(data: Ledger, finding: Finding) -> Iterator[str]:
    for kind in KINDS:
        some = [leak for leak in finding.leaks if leak.kind == kind]
        for leak in some[:NAMED]:
            yield f"{finding.division.rule}: {_leak(data, finding, leak)}"
        if len(some) > NAMED:
            yield f"{finding.division.rule}: {kind}: {len(some) - NAMED} more (--json names all)"
    for leak, why in finding.known:
        yield f"{finding.division.rule}: {why}: {_leak(data, finding, leak)}"


def _leak(data: Ledger, finding: Finding, leak: Leak) -> str:
    part, names = finding.division.part, finding.division.names
    said = []
    for number in np.unique(part[leak.rows]).tolist():
        rows = leak.rows[part[leak.rows] == number].tolist()
        more = f" and {len(rows) - 2} more" if len(rows) > 3 else ""
        shown = rows[:2] if more else rows
        said.append(f"{names[number]}: {', '.join(map(data.name, shown))}{more}")
    name = f" ({leak.name})" if leak.name else ""
    return f"{MEANINGS[leak.kind]}{name}: {'; '.join(said[:NAMED])}"


def _verdict(found: Audit, finding: Finding) -> Iterator[str]:
    rule = finding.division.rule
    looked = [MEANINGS[kind] for kind in KINDS if kind != "sound" or found.listened]
    if found.ledger.one is None:
        looked.remove(MEANINGS["bytes"])
    listed = f"{', '.join(looked[:-1])} or {looked[-1]}"
    known = f"; known overlaps, listed above: {len(finding.known)}" if finding.known else ""
    if not finding.leaks:
        yield f"{rule}: sound: no two parts share {listed}{known}"
    else:
        helped = f"{finding.helped} of {finding.tested} tested samples"
        percent = 100 * finding.helped / max(1, finding.tested)
        yield f"{rule}: LEAKS: {helped} ({percent:.1f} %) have a relative in training{known}"
    kin = found.ledger.kin()
    if len(np.unique(kin[kin >= 0])) == (kin >= 0).sum():
        yield f"{rule}: no group or recording has two samples: if some belong together, nothing here says so (--group)"
    yield from _worth(finding, rule)
    yield from _thin(found.ledger, finding, rule)


def _worth(finding: Finding, rule: str) -> Iterator[str]:
    tested = sum(score.tested for score in finding.scores)
    if not tested:
        yield f"{rule}: nothing trains or nothing is tested: there is nothing to score"
        return
    right, common = (sum(getattr(score, name) for score in finding.scores) / tested for name in ("right", "common"))
    told = f"knowing the group alone scores {right:.4f}, the commonest class {common:.4f}"
    if right > common:
        told += ": a score on this division tells that much about memory of recordings, not about new ones"
    yield f"{rule}: {told}"


def _thin(data: Ledger, finding: Finding, rule: str) -> Iterator[str]:
    """Classes that are tested without being trained."""
    for part in finding.division.tested:
        trained = np.unique(data.label[finding.division.trains(part)])
        tested = np.unique(data.label[finding.division.part == part])
        if len(strange := np.setdiff1d(tested, trained)):
            names = ", ".join(data.classes[number] for number in strange[:NAMED].tolist())
            yield f"{rule}: {finding.division.names[part]} tests classes that nothing trains: {names}"


def sheets(found: Audit) -> list[Sheet]:
    """Balance, leaks and lookup of each division; then what the shards hold."""
    made: list[Sheet] = []
    for finding in found.findings:
        made += [_balance(found.ledger, finding), _leaks(found, finding), _lookup(finding)]
    if not found.findings:
        counts = np.bincount(found.ledger.label, minlength=len(found.ledger.classes)).tolist()
        rows = [
            (name, share(count, len(found.ledger))) for name, count in zip(found.ledger.classes, counts, strict=True)
        ]
        made.append(Sheet("classes", ("class", "samples"), rows[: stats.SHOWN]))
    return made + (stats.sheets(found.stats)[:2] if found.stats else [])


def _balance(data: Ledger, finding: Finding) -> Sheet:
    names, part = finding.division.names, finding.division.part
    there = [number for number in range(len(names)) if (part == number).any()][:PARTS]
    table = np.zeros((len(data.classes), len(names)), np.int64)
    np.add.at(table, (data.label, part), 1)
    order = np.argsort(-table.sum(1), kind="stable").tolist()
    rows = [(data.classes[row], str(table[row].sum()), *(str(table[row, number]) for number in there)) for row in order]
    more = f", the {stats.SHOWN} largest classes of {len(rows)}" if len(rows) > stats.SHOWN else ""
    ratio = table.sum(1).max() / max(1, table.sum(1).min())
    title = f"{finding.division.rule}: balance (largest class / smallest: {ratio:.1f}){more}"
    return Sheet(title, ("class", "all", *(names[number] for number in there)), rows[: stats.SHOWN])


def _leaks(found: Audit, finding: Finding) -> Sheet:
    rows = []
    for kind in KINDS:
        some = [leak for leak in finding.leaks if leak.kind == kind]
        known = sum(leak.kind == kind for leak, _ in finding.known)
        looked = found.listened if kind == "sound" else found.ledger.one is not None if kind == "bytes" else True
        samples = len(np.unique(np.concatenate([leak.rows for leak in some]))) if some else 0
        helped = share(int(finding.exposed[kind].sum()), finding.tested)
        rows.append(
            (
                MEANINGS[kind],
                *((str(len(some)), str(samples), helped, str(known)) if looked else ("not looked for",) * 4),
            )
        )
    head = ("shared", "leaks", "samples in them", "tested with a relative in training", "known")
    return Sheet(f"{finding.division.rule}: leaks", head, rows)


def _lookup(finding: Finding) -> Sheet:
    scores = finding.scores
    tested = max(1, sum(score.tested for score in scores))
    rows = [
        (
            score.part,
            str(score.tested),
            f"{score.common / max(1, score.tested):.4f}",
            f"{score.right / max(1, score.tested):.4f}",
        )
        for score in scores
    ]
    if len(rows) > 1:
        common, right = (sum(getattr(score, name) for score in scores) / tested for name in ("common", "right"))
        rows.append(("all", str(tested), f"{common:.4f}", f"{right:.4f}"))
    return Sheet(
        f"{finding.division.rule}: what scores without hearing",
        ("tested", "samples", "commonest class", "group alone"),
        rows,
    )
