"""A Sample: one recording, or a cut of one, with its labels; and how the fields of a table or a path become one.

Comes in: text from tables and paths. Goes out: Samples, or a ValueError naming the row and the way to mend it.
"""

import math
import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""What tables and folders call a split -> what it is called here."""
MAX_FOLD = 32767  # an index row holds the fold in 16 bits


@dataclass(frozen=True, slots=True)
class Sample:
    """path: the file; source: its path below the source, for people and keys; start, end: a cut, in seconds."""

    path: Path
    source: str
    labels: tuple[str, ...]
    fold: int | None = None
    split: str | None = None
    group: str | None = None
    start: float | None = None
    end: float | None = None
    where: str = ""

    @property
    def name(self) -> str:
        """How messages name it: `dogs/a.wav` or `dogs/a.wav [1.5 s to 3.0 s]`."""
        if self.start is None and self.end is None:
            return self.source
        end = "end" if self.end is None else f"{self.end} s"
        return f"{self.source} [{self.start or 0.0} s to {end}]"


@dataclass(frozen=True)
class Source:
    """What a layout found: its name, the samples, what was left out or assumed, a line each, and the classes in order
    where the data set fixes it."""

    layout: str
    samples: list[Sample]
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] | None = None


def nfc(text: str) -> str:
    """Text in Unicode's composed form: macOS stores `é` in two code points, a table mostly in one."""
    return unicodedata.normalize("NFC", text)


def below(path: Path, root: Path) -> str:
    """The path below `root`, spelled."""
    return spelled(path.relative_to(root))


def spelled(path: Path) -> str:
    """A path as text, with forward slashes; bytes that are no UTF-8 become replacement characters."""
    return nfc(os.fsencode(path.as_posix()).decode("utf-8", "replace"))


def label(text: str, where: str) -> str:
    """A class name: any script, spaces inside, no control characters."""
    name = nfc(text.strip())
    if not name:
        raise ValueError(f"{where}: the label is empty; give the recording a class or drop the row")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise ValueError(f"{where}: the label {name!r} holds control characters; rename the class")
    return name


def fold(text: str, where: str) -> int | None:
    """A fold number, or None for an empty field."""
    if not text.strip():
        return None
    if not re.fullmatch(r"\d{1,5}", text.strip(), re.ASCII) or int(text) > MAX_FOLD:
        raise ValueError(f"{where}: fold {text!r} is no whole number from 0 to {MAX_FOLD}")
    return int(text)


def split(text: str, where: str) -> str | None:
    """`train`, `valid` or `test`, or None for an empty field."""
    if not text.strip():
        return None
    found = SPLITS.get(text.strip().lower())
    if found is None:
        raise ValueError(f"{where}: split {text!r} is none of {', '.join(SPLITS)}")
    return found


def cut(start: str, end: str, where: str) -> tuple[float | None, float | None]:
    """The bounds of a cut in seconds; an empty field is the recording's own start or end."""
    bounds = _seconds(start, "start", where), _seconds(end, "end", where)
    if bounds[1] is not None and bounds[1] <= (bounds[0] or 0.0):
        raise ValueError(f"{where}: end {end!r} is not after start {start or '0'!r}")
    return bounds


def _seconds(text: str, column: str, where: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{where}: {column} {text!r} is no number of seconds from 0 up")
    return value


def existing(folder: Path, text: str, where: str) -> Path:
    """The file that a table's row names, relative to `folder`; ValueError where there is none. Backslashes are taken as
    part of the name first, then as Windows writes paths."""
    for spelling in dict.fromkeys((text, text.replace("\\", "/"))):
        for written in (spelling, *(unicodedata.normalize(form, spelling) for form in ("NFC", "NFD"))):
            path = folder / written
            if path.is_file():
                return path
    raise ValueError(f"{where}: there is no file {folder / text}; paths are relative to {folder}")


def distinct(samples: list[Sample]) -> None:
    """ValueError where two samples are the same file and cut: one recording would be counted twice."""
    seen: dict[str, Sample] = {}
    for sample in samples:
        first = seen.setdefault(sample.name, sample)
        if first is not sample:
            place = f"{sample.where or sample.path}: {sample.name} appears twice"
            remedy = "drop one (several labels of one recording are joined with ;)"
            raise ValueError(f"{place}, first at {first.where or first.path}; {remedy}")
