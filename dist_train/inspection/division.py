"""A rule that divides samples -> which part each is in, which parts are tested, and what each is trained on.

folds        the folds in the data: each is tested once, all the others train
splits       the splits in the data: valid and test are tested, train (and what has no split) trains
group, group:K   K folds (5) that keep groups, recordings and equal bytes together, as `pack --folds K` makes them
every:N      every Nth sample is tested, from the first on, in the order of the table or the index
random:P     a share P is tested, drawn at random; random:P:SEED draws another
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dist_train import order
from dist_train.archive.row import SPLITS
from dist_train.inspection.ledger import Ledger, Numbers
from dist_train.sources import folds

RULES = "folds, splits, group[:K], every:N, random:P[:SEED]"
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Division:
    """part (N,) numbers `names`; tested: the parts that are; training: those that always train, None: all others."""

    rule: str
    part: Numbers
    names: tuple[str, ...]
    tested: tuple[int, ...]
    training: tuple[int, ...] | None = None

    def trains(self, part: int) -> NDArray[np.bool_]:
        """(N,) whether a sample trains when `part` is tested."""
        return self.part != part if self.training is None else np.isin(self.part, self.training)


def make(ledger: Ledger, rule: str | None) -> list[Division]:
    """The division that a rule makes; without one those that the data has, perhaps none. ValueError: no such rule."""
    if rule is None:
        return [division for division in (_folds(ledger), _splits(ledger)) if division is not None]
    name, _, rest = rule.partition(":")
    if rule in ("folds", "splits"):
        division = _folds(ledger) if rule == "folds" else _splits(ledger)
        if division is None:
            raise ValueError(f"--split {rule}: {ledger.source} has no {rule}; other rules are {RULES}")
        return [division]
    if name == "every" and re.fullmatch(r"0*[1-9]\d{0,8}", rest) and int(rest) > 1:
        return [_two(rule, np.arange(len(ledger)) % int(rest) == 0)]
    if name == "random" and (match := re.fullmatch(r"(0?\.\d+)(?::(\d{1,9}))?", rest)) and float(match[1]) > 0:
        return [_two(rule, _drawn(len(ledger), float(match[1]), int(match[2] or 0)))]
    if name == "group" and re.fullmatch(r"(:[1-9]\d{0,3})?", rule[len(name) :]):
        return [_grouped(ledger, rule, int(rest or FOLDS))]
    raise ValueError(f"--split {rule}: is none of {RULES}")


def _folds(ledger: Ledger) -> Division | None:
    return _numbered("folds", ledger.fold) if (ledger.fold >= 0).any() else None


def _numbered(rule: str, fold: Numbers) -> Division:
    there, part = np.unique(fold, return_inverse=True)
    names = tuple("none" if number < 0 else str(number) for number in there.tolist())
    return Division(rule, part.astype(np.int64), names, tuple(np.flatnonzero(there >= 0).tolist()))


def _splits(ledger: Ledger) -> Division | None:
    tested = [SPLITS[name] for name in ("valid", "test")]
    if not np.isin(ledger.split, tested).any():
        return None
    there = tuple(number for number in tested if (ledger.split == number).any())
    return Division("splits", ledger.split, tuple(SPLITS), there, (SPLITS["none"], SPLITS["train"]))


def _two(rule: str, tested: NDArray[np.bool_]) -> Division:
    return Division(rule, tested.astype(np.int64), ("train", "test"), (1,))


def _drawn(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """(count,) a share of all, drawn without a library's generator: the same under every version."""
    chosen = order.shuffle(np.arange(count, dtype=np.int64), order.key(seed, count))[: max(1, round(share * count))]
    tested = np.zeros(count, np.bool_)
    tested[chosen] = True
    return tested


def _grouped(ledger: Ledger, rule: str, k: int) -> Division:
    columns = {"group": ledger.group, "recording": ledger.recording, "digest": ledger.digest}
    bonds = [
        [(kind, code) for kind, code in zip(columns, codes, strict=True) if code >= 0]
        for codes in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]
    labels = [(ledger.classes[number],) for number in ledger.label.tolist()]
    names = [ledger.name(row) for row in range(len(ledger))]
    return _numbered(rule, np.array(folds.assign(names, labels, bonds, k), np.int64))
