"""A table with UrbanSound8K's columns and known leaks: what it holds is told by its own plan, not by the auditor."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class"
CLASSES = ("air_conditioner", "car_horn", "dog_bark", "siren")
EVERY = 10


@dataclass
class Planted:
    """path: the table. Of the rule every:10 the recordings on both sides, the pairs that overlap in time, and how many
    tested rows have a relative in training; right: what the group alone gets of them, common: the commonest class."""

    path: Path
    groups: set[str] = field(default_factory=set)
    overlaps: set[frozenset[str]] = field(default_factory=set)
    helped: int = 0
    tested: int = 0
    right: int = 0
    common: int = 0


def make(path: Path, leaking: int = 7, overlapping: int = 4, rows: int = 600, seed: int = 0) -> Planted:
    """`rows` rows; every tenth is tested. Of the tested ones `leaking` share a recording with the row behind them, and
    `overlapping` of these share time with it as well; all other recordings lie on one side."""
    random = np.random.default_rng(seed)
    planted = Planted(path, tested=rows // EVERY)
    leaky = random.choice(rows // EVERY, leaking, replace=False) * EVERY
    lines, labels = [], []
    recording = 1000
    for number in range(rows):
        label = int(random.integers(len(CLASSES)))
        start, previous = 4.0 * (number % 3), number - 1
        if previous in leaky.tolist():
            label, place = labels[previous], leaky.tolist().index(previous)
            start = float(lines[previous].split(",")[2]) + (1.5 if place < overlapping else 4.0)
        elif number % EVERY in (0, 2, 5, 8):
            recording += 1  # else: another cut of the recording before, both in training
        elif number % EVERY != 1:
            start = 4.0 * (number % EVERY)
        else:
            recording += 1
        name = f"{recording}-{label}-0-{number}.wav"
        lines.append(f"{name},{recording},{start},{start + 4.0},1,{number % 10 + 1},{label},{CLASSES[label]}")
        labels.append(label)
        if previous in leaky.tolist():
            planted.groups.add(str(recording))
            if place < overlapping:
                planted.overlaps.add(frozenset({_said(lines[previous]), _said(lines[number])}))
    _count(planted, lines, labels, set(leaky.tolist()))
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return planted


def _said(line: str) -> str:
    name, _, start, end, *_ = line.split(",")
    return f"{name} [{float(start):g} s to {float(end):g} s]"


def _count(planted: Planted, lines: list[str], labels: list[int], leaky: set[int]) -> None:
    """Group and class agree in a leaky pair, so the group alone gets each of these right."""
    counts = np.bincount([label for number, label in enumerate(labels) if number % EVERY], minlength=len(CLASSES))
    common = int(counts.argmax())
    tested = range(0, len(lines), EVERY)
    planted.helped = len(leaky)
    planted.common = sum(labels[number] == common for number in tested)
    planted.right = sum(number in leaky or labels[number] == common for number in tested)
