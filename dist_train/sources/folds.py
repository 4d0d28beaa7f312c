"""Samples without folds -> folds 1..K: class-balanced, with nothing of one recording on both sides.

Samples that share a bond (a file, a group, equal bytes), or are joined by a chain of bonds, are one unit and go to one
fold. Units are placed from the largest to the smallest (equal ones in a fixed random order), each where its classes
are rarest so far, then where the fold is smallest. Each step takes the fold that adds least to the sum over classes and
folds of count² / total, so that this sum ends no higher than it would on average if units were dealt at random.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence


def assign(
    names: Sequence[str], labels: Sequence[tuple[str, ...]], bonds: Sequence[Sequence[Hashable]], k: int
) -> list[int]:
    """The fold of each sample, 1..k; depends on nothing but the arguments. ValueError where k is not possible."""
    units = _units(bonds)
    if not 2 <= k <= len(units):
        fewer = f"--folds {len(units)}, or " if len(units) > 1 else ""
        raise ValueError(
            f"{k} folds are not possible: separate recordings or groups: {len(units)}; give {fewer}--folds 0 for none"
        )
    units.sort(key=lambda unit: (-len(unit), hashlib.sha256(names[unit[0]].encode()).digest()))
    total = Counter(label for sample in labels for label in sample)
    counts: list[Counter[str]] = [Counter() for _ in range(k)]
    sizes = [0] * k
    folds = [0] * len(names)
    for unit in units:
        held = Counter(label for sample in unit for label in labels[sample])
        shares = [(label, count / total[label]) for label, count in held.items()]
        costs = [sum(share * count[label] for label, share in shares) for count in counts]
        best = min(range(k), key=lambda fold: (costs[fold], sizes[fold]))
        counts[best].update(held)
        sizes[best] += len(unit)
        for sample in unit:
            folds[sample] = best + 1
    return folds


def thin(labels: Sequence[tuple[str, ...]], folds: Sequence[int], k: int) -> list[str]:
    """The classes that some fold lacks, sorted."""
    held: dict[str, set[int]] = {}
    for sample, fold in zip(labels, folds, strict=True):
        for label in sample:
            held.setdefault(label, set()).add(fold)
    return sorted(label for label, found in held.items() if len(found) < k)


def _units(bonds: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Samples joined by equal bonds, each list in order: union-find with halved paths."""
    parent = list(range(len(bonds)))

    def top(sample: int) -> int:
        while parent[sample] != sample:
            parent[sample] = parent[parent[sample]]
            sample = parent[sample]
        return sample

    first: dict[Hashable, int] = {}
    for sample, held in enumerate(bonds):
        for bond in held:
            one, other = sorted((top(first.setdefault(bond, sample)), top(sample)))
            parent[other] = one
    units: dict[int, list[int]] = {}
    for sample in range(len(bonds)):
        units.setdefault(top(sample), []).append(sample)
    return list(units.values())
