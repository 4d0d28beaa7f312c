"""A rank's route -> the shards that it should have by now: those of each lane's present window, then those of the next."""

from collections import deque

from dist_train.route import Route, Stop

WORTH = 0.5  # share of a shard from which on all of it is fetched: below, ranges are fewer bytes than that


class Ahead:
    """Moves along a route. `least`: shards of which the host reads a smaller share are left out."""

    def __init__(self, route: Route, least: float) -> None:
        self.least = least
        self.lanes = [route.stops(lane) for lane in range(route.order.lanes)]
        self.stops: list[deque[Stop]] = [deque() for _ in self.lanes]
        self.until = 0  # position at which a window ends

    def move(self, position: int) -> list[int] | None:
        """The shards' numbers, the soonest needed first, when all before `position` was read; None: as before."""
        if position < self.until:
            return None
        for stops, lane in zip(self.stops, self.lanes, strict=True):
            while stops and stops[0].end <= position:
                stops.popleft()
            while len(stops) < 2 and (stop := next(lane, None)) is not None:
                if stop.end > position:
                    stops.append(stop)
        self.until = min((stops[0].end for stops in self.stops if stops), default=2**63)
        along = sorted((stop for stops in self.stops for stop in stops), key=lambda stop: stop.begin)
        return list(
            dict.fromkeys(
                number for stop in along for number, share in stop.shares.items() if share >= max(self.least, 1e-9)
            )
        )
