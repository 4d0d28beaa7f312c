"""The runs of a plan, each at a place as one comes free, to the end of all or to a signal.

waiting -> running -> finished | failed | stopped
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from dist_train.crossval import book
from dist_train.crossval.child import Child, spent
from dist_train.crossval.places import Place
from dist_train.crossval.plan import Turn
from dist_train.crossval.watch import Watch

_PAUSE = 0.2  # seconds between two looks
_GRACE = 120.0  # seconds for a run to save and end
_ONCE = 0.3  # seconds within which signals are one: `timeout` and some shells pass a Ctrl-C on that had come already


def wider(place: Place, number: int, runs: int, spots: int) -> Place:
    """Of five runs at two places the fifth will be alone: it has the threads of both.

    That goes by a run's number among all, not by what is free when it begins: threads change the last bits of weights.
    """
    last = runs % spots
    return replace(place, threads=place.threads * spots // last) if number >= runs - last > 0 else place


@dataclass
class Standing:
    """Where a turn stands. state: waiting, running, finished, failed, stopped; said: a failed run's last lines."""

    turn: Turn
    watch: Watch
    state: str = "waiting"
    seconds: float = 0.0
    place: Place | None = None
    code: int = 0
    said: tuple[str, ...] = ()


class Course:
    """All turns of a plan; `standings` in their order."""

    def __init__(self, file: str, turns: Sequence[Turn], show: Callable[[Sequence[Standing]], None]) -> None:
        """`show` is called a few times a second with all standings."""
        self.file, self.show = file, show
        self.standings = [Standing(turn, Watch(turn.folder, turn.config), seconds=spent(turn)) for turn in turns]
        for standing in self.standings:
            if book.finished(standing.turn):
                standing.state = "finished"
        self.signal: int | None = None
        self._children: dict[int, tuple[Standing, Child]] = {}  # by number of the place
        self._told, self._when = 0, -_ONCE  # how often a stop was asked for, and when last

    def run(self, places: Sequence[Place]) -> None:
        """Train what is not finished. After a signal all runs have saved and ended, and `signal` is its number."""
        with self._heard():
            try:
                while self._fill(places) or self._children:
                    time.sleep(_PAUSE)
                    self._look()
                    self.show(self.standings)
                    if self.signal is not None:
                        self._stop()
                        return
            finally:
                for standing, child in self._children.values():  # where this ends by an error, or at once
                    child.kill()
                    standing.state = "stopped"
                    self.show(self.standings)
        self.show(self.standings)

    def _fill(self, places: Sequence[Place]) -> bool:
        """Start waiting turns at free places. Whether any was started."""
        free = [number for number in range(len(places)) if number not in self._children]
        waiting = [one for one in self.standings if one.state == "waiting"]
        if self._hopeless():
            return False
        for number, standing in zip(free, waiting, strict=False):
            place = wider(places[number], self.standings.index(standing), len(self.standings), len(places))
            child = Child(standing.turn, place, self.file)
            self._children[number] = standing, child
            standing.state, standing.place = "running", place
        return bool(free and waiting)

    def _hopeless(self) -> bool:
        """One failed before any finished: the others would fail alike, and are not begun."""
        states = {one.state for one in self.standings}
        return "failed" in states and "finished" not in states

    def _look(self) -> None:
        for number, (standing, child) in list(self._children.items()):
            code, standing.seconds = child.poll(), child.seconds
            standing.watch.look()
            if code is None:
                continue
            del self._children[number]
            standing.code = code
            if code == 0 and book.finished(standing.turn):
                standing.state = "finished"
            elif code == 0 or self.signal is not None:
                standing.state = "stopped"  # by its own STOP file or signal
            else:
                standing.state, standing.said = "failed", tuple(child.last())

    def _stop(self) -> None:
        """Ask all runs to save and end, and wait for them; a second signal kills them."""
        for _, child in self._children.values():
            child.stop()
        until = time.monotonic() + _GRACE
        while self._children and time.monotonic() < until and self._told < 2:
            time.sleep(_PAUSE)
            self._look()
            self.show(self.standings)

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Signals that end a program ask for a stop here."""
        names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
        before = {number: signal.signal(number, self._hear) for number in (getattr(signal, name) for name in names)}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def _hear(self, number: int, frame: Any) -> None:
        self.signal = self.signal or number
        now = time.monotonic()
        self._told += now - self._when >= _ONCE
        self._when = now
