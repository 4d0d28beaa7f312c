"""`--part I/N` -> which shards of a packing one of N machines makes, and what all of them leave behind.

    DEST/.packing/plan-2-of-3.json    what part 2 packs: parts that have not the same list are refused
    DEST/.packing/done-2-of-3.json    its shards and what it left out; written when the part is whole

`index` takes the parts together: tars, index and left_out.tsv are those of one machine's packing, byte for byte.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

WORK, PLAN, LOCK = ".packing", "plan.json", "lock"
PLANS = re.compile(r"plan-(\d+)-of-(\d+)\.json")
MAX = 100_000
Thing = TypeVar("Thing")


@dataclass(frozen=True, order=True)
class Part:
    """Part `number` of `of`, from 1 on. The only part of one is the whole."""

    number: int = 1
    of: int = 1

    def __str__(self) -> str:
        return f"part {self.number}/{self.of}"

    @property
    def whole(self) -> bool:
        """Whether there are no other parts."""
        return self.of == 1

    def own(self, things: Sequence[Thing]) -> list[Thing]:
        """What of a list is this part's: every `of`-th."""
        return list(things[self.number - 1 :: self.of])

    def file(self, kind: str) -> str:
        """`plan` -> `plan-2-of-3.json`; of the whole `plan.json`."""
        return f"{kind}.json" if self.whole else f"{kind}-{self.number}-of-{self.of}.json"


WHOLE = Part()


def parse(text: str) -> Part:
    """`2/3` -> Part(2, 3). ValueError for what is no part."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MAX:
        raise ValueError(f"--part {text}: is not I/N, such as 2/3 for the second of three machines")
    return Part(int(found[1]), int(found[2]))


def planned(root: Path) -> dict[Part, dict[str, Any]]:
    """The plans that lie in a folder of shards, by part."""
    names = {path.name: path for path in (root / WORK).glob("plan*.json")}
    found = {}
    for name, path in sorted(names.items()):
        if match := PLANS.fullmatch(name):
            found[Part(int(match[1]), int(match[2]))] = read(path)
        elif name == PLAN:
            found[WHOLE] = read(path)
    return found


def read(path: Path) -> dict[str, Any]:
    """A record of a packing. ValueError where it is damaged."""
    try:
        fields: Any = json.loads(path.read_bytes())
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: is damaged; delete the folder {path.parent.parent} and pack again")
    return fields


def merged(root: Path, names: Sequence[str]) -> list[tuple[str, str]] | None:
    """What all parts left out, sorted; None where a folder was not packed in parts. `names`: the tars that are there.

    ValueError where a part or one of its tars is missing, or parts are of different packings.
    """
    plans = planned(root)
    if not plans or WHOLE in plans:
        return None
    parts = sorted(plans)
    for other in parts[1:]:
        agree(str(root), parts[0], plans[parts[0]], other, plans[other])
    every = [Part(number, parts[0].of) for number in range(1, parts[0].of + 1)]
    if missing := [part for part in every if not (root / WORK / part.file("done")).is_file()]:
        rest = f" and {len(missing) - 4} more" if missing[4:] else ""
        text = f"{', '.join(map(str, missing[:4]))}{rest} not packed yet, or not copied here with .packing"
        raise ValueError(f"{root}: {text}: pack with --part {missing[0].number}/{missing[0].of}")
    left_out = list[tuple[str, str]]()
    for part in every:
        done = read(root / WORK / part.file("done"))
        if gone := sorted(set(done["shards"]) - set(names)):
            raise ValueError(f"{root / gone[0]}: of {part}, is not there: pack with --part {part.number}/{part.of}")
        left_out += [(name, reason) for name, reason in done["left_out"]]
    return sorted(left_out)


def agree(place: str, one: Part, plan: dict[str, Any], other: Part, theirs: dict[str, Any]) -> None:
    """ValueError unless two plans are parts of one packing."""
    if one.of != other.of and not (one.whole or other.whole):
        raise ValueError(f"{place}: holds {other} and {one}: all machines pack with the same N of --part I/N")
    if changed := differing(theirs["options"], plan["options"], one, other):
        raise ValueError(f"{place}: {'; '.join(changed)}: give all parts the same options")
    if theirs.get("list") != plan["list"]:
        counts = f"{plan.get('clips')} clips in {plan['shards']} shards, {theirs.get('clips')} in {theirs['shards']}"
        text = f"{_said(one)} and {_said(other)} have different lists of recordings ({counts})"
        raise ValueError(f"{place}: {text}: all parts need the same SOURCE and options")


def differing(old: dict[str, Any], new: dict[str, Any], now: Part, before: Part) -> list[str]:
    """A text for each option that is not what it was."""
    names = [name for name in new if old.get(name) != new[name]]
    if now == before:
        return [f"{name} was {old.get(name)!r}, is {new[name]!r}" for name in names]
    return [f"{name} is {old.get(name)!r} in {_said(before)}, {new[name]!r} in {_said(now)}" for name in names]


def _said(part: Part) -> str:
    return "the whole packing" if part.whole else str(part)
