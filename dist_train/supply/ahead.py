"""What is read next -> the shards that should be in the cache by now, the soonest needed first."""

from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dist_train.supply.route import Route, Stop
from dist_train.view import View

WORTH = 0.75  # share of a shard from which on all of it is fetched: a shard that two hosts share costs at most 1.25
NEVER = 2**63


class Plan(Protocol):
    """Moves along with the reading."""

    def move(self, read: int, asked: int) -> list[int] | None:
        """The numbers of the files to have when all before position `read` was read and what lies at `asked` is to be
        read next; None: as before."""


class Ahead:
    """Along a route: the shards of each lane's windows that are being read, and of the one after these."""

    def __init__(self, route: Route, view: View) -> None:
        self.route = route
        firsts = np.cumsum(view.sizes) - view.sizes
        self.files: list[int] = view.rows(firsts)["file"].tolist()  # of each shard of the order
        # In one lane each host reads of all shards, this epoch one part and the next another: sooner or later all.
        self.least = WORTH if route.order.lanes > 1 else 0.0
        self.lanes = [route.stops(lane) for lane in range(route.order.lanes)]
        self.stops: list[deque[Stop]] = [deque() for _ in self.lanes]
        self.over = self.due = -1  # positions: where a window ends, where the next begins

    @property
    def advice(self) -> str | None:
        """What the user should know about the lanes."""
        route, lanes = self.route, self.route.order.lanes
        groups = -(-route.batch_size // route.order.micro_batch)
        if lanes == 1 or lanes % groups == 0 or route.host == (0, route.batch_size):
            return None
        text = f"data.lanes={lanes} is no multiple of the {groups} groups a step, so each host reads of all shards"
        return f"{text}, as ranges; set data.lanes={groups}"

    def move(self, read: int, asked: int) -> list[int] | None:
        """As Plan says."""
        if read < self.over and asked < self.due:
            return None
        for stops, lane in zip(self.stops, self.lanes, strict=True):
            while stops and stops[0].end <= read:
                stops.popleft()
            while not stops or stops[-1].begin <= asked:
                stop = next(lane, None)
                if stop is None:
                    break
                if stop.end > read:
                    stops.append(stop)
        self.over = min((stops[0].end for stops in self.stops if stops), default=NEVER)
        self.due = min((begin for stops in self.stops if stops and (begin := stops[-1].begin) > asked), default=NEVER)
        along = sorted((stop for stops in self.stops for stop in stops), key=lambda stop: stop.begin)
        shares = [pair for stop in along for pair in stop.shares.items()]
        return list(dict.fromkeys(self.files[number] for number, share in shares if share >= self.least))


class Pass:
    """One pass over some samples: the shards of which it reads enough, all from the start."""

    def __init__(self, view: View, ids: NDArray[np.int64]) -> None:
        """ids: in the order of reading."""
        samples = np.array([shard["samples"] for one in view.sets for shard in one.info["shards"]])
        found, first, counts = np.unique(view.rows(ids)["file"], return_index=True, return_counts=True)
        worth = counts >= WORTH * samples[found]
        self.files: list[int] | None = found[worth][np.argsort(first[worth])].tolist()

    def move(self, read: int, asked: int) -> list[int] | None:
        """As Plan says."""
        files, self.files = self.files, None
        return files
