"""Clips of an evaluation, found again: which run's set a scored clip lies in, its sound, its embedding.

Shards may be gone, or hold features; then there is a reason in place of a sound, and the page says it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dist_train import embeddings, feed, packed, saved
from dist_train.feed import Views
from dist_train.inspection import hearing
from dist_train.report import media
from dist_train.report.folder import Folder, Run
from dist_train.report.media import Media
from dist_train.saved import Saved
from dist_train.scored import Scored
from dist_train.shards import ShardSet
from dist_train.view import View
from dist_train.world import World

Progress = Callable[[int, int], None]
_LOOKED = 100  # clips whose keys are compared


@dataclass(frozen=True)
class Found:
    """The sets of each run; None and why not, where its shards cannot be opened."""

    views: list[Views | None] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str:
        """The first run's reason, empty where all are there."""
        return self.reasons[0] if self.reasons else ""


def find(folder: Folder) -> Found:
    """Open the sets of every run."""
    found = Found()
    for run in folder.runs:
        try:
            found.views.append(feed.views(run.config))
        except (ValueError, OSError) as error:
            found.views.append(None)
            found.reasons.append(str(error))
    return found


class Groups:
    """The recording or speaker of scored clips, by their keys; None of all where a set cannot be opened."""

    def __init__(self, folder: Folder, found: Found) -> None:
        keys: list[NDArray[np.str_]] = []
        groups: list[NDArray[np.uint64]] = []
        for run, views in zip(folder.runs, found.views, strict=True):
            view = _scored(views)
            if run.scored is None:
                continue
            if view is None or not _same(view, run.scored):
                keys = []
                break
            keys.append(run.scored.keys)
            groups.append(view.rows(np.arange(len(view)))["group"].astype(np.uint64))
        whole = np.concatenate(keys) if keys else np.array([], np.str_)
        self._keys_N, first = np.unique(whole, return_index=True)
        self._group_N = np.concatenate(groups)[first] if keys else None

    def of(self, scored: Scored) -> NDArray[np.uint64] | None:
        """In the order of these scores."""
        if self._group_N is None:
            return None
        place_N = np.searchsorted(self._keys_N, scored.keys).clip(max=len(self._keys_N) - 1)
        return self._group_N[place_N] if np.array_equal(self._keys_N[place_N], scored.keys) else None


def sounds(
    folder: Folder, found: Found, keys: Sequence[str], audible: bool, progress: Progress
) -> dict[str, Media | str]:
    """The media of clips by key; a reason for a clip that cannot be heard."""
    places: dict[str, tuple[ShardSet, int]] = {}
    for run, views in zip(folder.runs, found.views, strict=True):
        view = _scored(views)
        if view is None or run.scored is None or packed.of_view(view) is not None:
            continue
        numbers = {key: number for number, key in enumerate(run.scored.keys.tolist())}
        if len(numbers) != len(view):
            continue
        for key in keys:
            if key not in places and key in numbers and view.key(numbers[key]) == key:
                places[key] = view.place(numbers[key])
    made: dict[str, Media | str] = {}
    for number, (key, (one, row)) in enumerate(places.items(), 1):
        made[key] = _media(one, row, audible)
        progress(number, len(places))
    return made


def _media(one: ShardSet, row: int, audible: bool) -> Media | str:
    try:
        files = hearing.opened(one)
        try:
            return media.render(hearing.sound(one, files, row), audible)
        finally:
            files.close()
    except (ValueError, OSError) as error:
        return str(error)


def _scored(views: Views | None) -> View | None:
    return (views.evaluation or views.valid) if views is not None else None


def _same(view: View, scored: Scored) -> bool:
    """Whether these are the clips that were scored, by their number and the keys of some."""
    count = len(scored.keys)
    numbers = np.linspace(0, count - 1, min(count, _LOOKED)).astype(np.int64).tolist()
    return len(view) == count and all(view.key(number) == scored.keys[number] for number in numbers)


def network(run: Run, views: Views, place: World) -> Saved:
    """The run's network, with the front end that its clips need. ValueError: there is no sound checkpoint."""
    return saved.load(run.path, (), place, packed.of_view(views.train))


def embedded(
    made: Saved, run: Run, views: Views, numbers: NDArray[np.int64], progress: Progress
) -> NDArray[np.float32]:
    """(n, E) embeddings of scored clips, NaN for those that cannot be read. ValueError: they cannot be had."""
    view = _scored(views)
    if view is None or run.scored is None or not _same(view, run.scored):
        raise ValueError("the shards hold other clips than were scored, or the same in another order")
    return embeddings.embed(made.model, view.only(numbers), made.config, made.front, progress).vectors_NE
