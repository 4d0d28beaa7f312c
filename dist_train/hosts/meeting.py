"""A store that ranks share -> a name that only the ranks of this start know, for all that they say there afterwards.

    rank    here/R = its word                         seen/R = the name
    rank 0                     room/R = word, name                       until all have seen it

torchrun starts ranks anew on the store of the ranks before, whose addresses still lie there: a rank that came first
would connect to a process that is gone. A restart's number would not do, since hosts count their own restarts.
"""

import secrets
import time
from typing import Protocol

PAUSE, LONGEST = 0.01, 0.2  # seconds between two looks


class Store(Protocol):
    """Such as a TCPStore of torch."""

    def set(self, key: str, value: str) -> None:
        """Overwrite."""

    def get(self, key: str) -> bytes:
        """The value of a key that is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""


def name(store: Store, rank: int, size: int, seconds: float) -> str:
    """The same new word on all ranks. Errors: `TimeoutError` where one does not come in time."""
    return _give(store, size, seconds) if rank == 0 else _take(store, rank, seconds)


def _give(store: Store, size: int, seconds: float) -> str:
    mine, answered, missing = secrets.token_hex(8), dict[int, str](), set(range(1, size))
    until, pause = time.monotonic() + seconds, PAUSE
    while True:
        for rank in sorted(missing):
            if _read(store, f"seen/{rank}") == mine:
                missing.discard(rank)
                continue
            word = _read(store, f"here/{rank}")  # of a rank before, perhaps: then another will follow
            if word is not None and answered.get(rank) != word:
                store.set(f"room/{rank}", f"{word} {mine}")
                answered[rank] = word
        if not missing:
            return mine
        pause = _wait(until, pause, f"rank {min(missing)} did not come within {seconds:g} s")


def _take(store: Store, rank: int, seconds: float) -> str:
    mine = secrets.token_hex(8)
    store.set(f"here/{rank}", mine)
    until, pause = time.monotonic() + seconds, PAUSE
    while True:
        word, _, found = (_read(store, f"room/{rank}") or "").partition(" ")
        if word == mine:
            store.set(f"seen/{rank}", found)
            return found
        pause = _wait(until, pause, f"rank 0 did not come within {seconds:g} s")


def _read(store: Store, key: str) -> str | None:
    return store.get(key).decode() if store.check([key]) else None


def _wait(until: float, pause: float, late: str) -> float:
    if time.monotonic() > until:
        raise TimeoutError(late)
    time.sleep(pause)
    return min(2 * pause, LONGEST)
