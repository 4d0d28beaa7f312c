"""Class names and their order -> each sample's final labels.

Comes in: samples, and a --classes file if there is one. Goes out: samples with the names to store, the classes in
order (a class's number is its place), and a line for everything that was dropped.

A classes file has one class a line and fixes the order; what it does not name is dropped. `new <- old1, old2` takes
several old names together under a new one (one old name: renames); for names that hold commas the same line can be
written with tabs, `new<TAB>old1<TAB>old2`. Empty lines, and lines that start with `# `, are passed over.
"""

import dataclasses
from collections import Counter
from pathlib import Path

from dist_train.archive.label import order
from dist_train.sources import text
from dist_train.sources.samples import Sample, label

ARROW = "<-"


def read(path: Path) -> dict[str, str]:
    """A classes file as {old name: name to store}; the stored names' first appearances are the order of classes."""
    try:
        lines = text.read(path).splitlines()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}; --classes wants a text file") from None
    names, defined = dict[str, str](), set[str]()
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        if not line.strip() or line.startswith("# "):
            continue
        new, olds = _line(line, where)
        if new in defined:
            raise ValueError(f"{where}: class {new!r} is there twice; keep one line a class")
        defined.add(new)
        for old in olds:
            if old in names:
                raise ValueError(f"{where}: {old!r} already goes to {names[old]!r}; name it once")
            names[old] = new
    if not names:
        raise ValueError(f"{path}: names no class")
    return names


def _line(line: str, where: str) -> tuple[str, list[str]]:
    """(name to store, old names that become it)."""
    if "\t" in line.strip():
        new, *olds = line.strip().split("\t")
    elif ARROW in line:
        new, _, rest = line.partition(ARROW)
        olds = rest.split(",")
    else:
        new, olds = line, [line]
    return label(new, where), [label(old, where) for old in olds]


def choose(samples: list[Sample], names: dict[str, str] | None) -> tuple[list[Sample], tuple[str, ...], list[str]]:
    """(samples, classes in order, notes). Without `names` all classes stay, sorted (numbers by value)."""
    found = {name for sample in samples for name in sample.labels}
    if names is None:
        return samples, tuple(order(found)), []
    chosen, dropped = [], Counter[str]()
    for sample in samples:
        dropped.update(name for name in sample.labels if name not in names)
        labels = tuple(dict.fromkeys(names[name] for name in sample.labels if name in names))
        if labels:
            chosen.append(dataclasses.replace(sample, labels=labels))
    if not chosen:
        raise ValueError(f"the classes file names none of the source's classes: {', '.join(order(found)[:10])}")
    notes = [_dropped(dropped, len(samples) - len(chosen))] if dropped else []
    if absent := [old for old in names if old not in found]:
        notes.append(f"the classes file names what no recording has: {', '.join(absent)}")
    return chosen, tuple(dict.fromkeys(names.values())), notes


def _dropped(counts: Counter[str], clips: int) -> str:
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())[:10])
    more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
    return f"{clips} clips are dropped, for the classes file does not name {listed}{more}"
