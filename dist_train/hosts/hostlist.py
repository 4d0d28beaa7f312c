"""Slurm's short form of a list of machines (`gpu[03-05,9],login1`) -> the first of them, on which rank 0 runs."""

import re

_FIRST = re.compile(r"(?:[^,\[]|\[[^\]]*\])*")
_RANGE = re.compile(r"\[(\d+)[^\]]*\]")


def first(text: str) -> str:
    """Name of the first machine: `gpu03`; of an empty list, an empty one."""
    found = _FIRST.match(text)
    return _RANGE.sub(r"\1", found[0]) if found is not None else ""
