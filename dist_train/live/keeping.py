"""Labels that were heard -> the sound around each, as WAV files in folders of their classes.

A folder of them is a source for `make_shards.py pack`, once someone has heard them and moved those that are wrong.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dist_train.live import take
from dist_train.live.ring import Ring


@dataclass(frozen=True)
class _Wanted:
    first: int
    end: int
    place: Path
    prefix: str


class Keeping:
    """Pieces of a stream that are to be kept, each written when all of it was heard."""

    def __init__(self, root: Path, rate: int, margin: float) -> None:
        """`margin`: seconds before and after what is asked for."""
        self.root, self.rate, self.margin = root, rate, round(margin * rate)
        self._wanted: list[_Wanted] = []

    def want(self, label: str, start: float, end: float, when: datetime) -> Path:
        """Keep from `start` to `end` seconds of the stream. The folder that it will lie in."""
        place = self.root / take.folder(label)
        first, last = round(start * self.rate) - self.margin, round(end * self.rate) + self.margin
        self._wanted.append(_Wanted(first, last, place, f"{when:%Y%m%d-%H%M%S}-"))
        return place

    def write(self, ring: Ring, last: bool = False) -> list[Path]:
        """The files of what was heard whole by now; `last`: of all, the stream is over. OSError: from the disk."""
        ready = [one for one in self._wanted if last or one.end <= ring.end]
        self._wanted = [one for one in self._wanted if one not in ready]
        paths = []
        for one in ready:
            first, end = max(one.first, ring.first), min(one.end, ring.end)
            if first < end:
                paths.append(take.write(one.place, one.prefix, ring.view(first, end), self.rate))
        return paths
