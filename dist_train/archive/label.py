"""The small members beside a sample's audio -> its class names, fold, split and group.

A sample's label is in KEY.json ("label", "labels" or "class"), else in KEY.cls, else in KEY.txt. Several labels are a
list in the JSON or joined with `;`. Names stay the text they are: `007`, `on` and `yes` are names, not numbers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dist_train.archive.row import SPLITS

LABEL_SUFFIXES = ("json", "cls", "txt")
JSON_KEYS = ("label", "labels", "class")
SPLIT_NAMES = SPLITS | {"": 0, "val": 2, "validation": 2, "dev": 2, "eval": 3, "evaluation": 3}


@dataclass(frozen=True)
class Label:
    """names: at least one, each once; fold -1 and split and group 0: none."""

    names: tuple[str, ...]
    fold: int
    split: int
    group: int


def read(parts: Mapping[str, bytes], known: Mapping[str, str] | None) -> Label:
    """From the members' bytes by suffix; `known` is what `known_classes` gives, None where any class is welcome.

    ValueError (the reason only): no label, one that is not known, a fold or split that is none.
    """
    record = _json(parts["json"]) if "json" in parts else {}
    value = next((record[key] for key in JSON_KEYS if record.get(key) is not None), None)
    if value is None:
        value = next((_text(parts[suffix]) for suffix in ("cls", "txt") if suffix in parts), None)
    if value is None:
        raise ValueError("no label: its .json has no 'label', and there is no .cls or .txt")
    fold, split = _fold(record.get("fold")), _split(record.get("split"))
    return Label(_names(value, known), fold, split, group(record.get("group")))


def known_classes(classes: Sequence[str]) -> dict[str, str]:
    """What a label may say -> the class it means: its name or, unless a class is called by a number, its number."""
    numbers = {} if any(map(is_number, classes)) else {str(number): name for number, name in enumerate(classes)}
    return numbers | {name: name for name in classes}


def group(name: Any) -> int:
    """First 8 bytes, little-endian, of sha256 of the name; 0 for none."""
    if name is None or name == "":
        return 0
    return int.from_bytes(hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).digest()[:8], "little")


def is_number(name: str) -> bool:
    """Whether a name is a whole number as it is written: `7` and `-1`, not `007`."""
    return name.removeprefix("-").isdecimal() and name.isascii() and str(int(name)) == name


def order(names: set[str]) -> list[str]:
    """Class names without a classes.txt: sorted as text, or as numbers where all are numbers."""
    return sorted(names, key=int) if all(map(is_number, names)) else sorted(names)


def _json(raw: bytes) -> dict[str, Any]:
    try:
        record = json.loads(raw)
    except ValueError:
        raise ValueError("its .json is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("its .json is not an object with a 'label'")
    return record


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError("its label is not UTF-8 text") from None


def _names(value: Any, known: Mapping[str, str] | None) -> tuple[str, ...]:
    if isinstance(value, str) and ";" in value and value not in (known or ()):
        value = [part.strip() for part in value.split(";") if part.strip()]
    values = value if isinstance(value, list) else [value]
    names = tuple(dict.fromkeys(_name(value, known) for value in values))
    if not names:
        raise ValueError("no label: its list of labels is empty")
    return names


def _name(value: Any, known: Mapping[str, str] | None) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError(f"its label {value!r} is neither a name nor a whole number")
    name = str(value)
    if known is None:
        return name
    if name not in known:
        raise ValueError(f"its class {name!r} is not in classes.txt")
    return known[name]


def _fold(value: Any) -> int:
    if value is None or value == "":
        return -1
    number = str(value)
    if isinstance(value, bool) or not is_number(number) or not -1 <= int(number) < 1 << 15:
        raise ValueError(f"its fold {value!r} is not a whole number from 0 to 32767")
    return int(number)


def _split(value: Any) -> int:
    name = "" if value is None else str(value).strip().lower()
    if name not in SPLIT_NAMES:
        raise ValueError(f"its split {value!r} is not train, valid or test")
    return SPLIT_NAMES[name]
