"""A view's shards -> what reads their bytes: local files, ranges of an object store, or both."""

from collections.abc import Sequence
from pathlib import Path

from dist_train.settings import Config
from dist_train.storage import Files, Source
from dist_train.stores.bucket import remote
from dist_train.stores.remote import PATIENCE
from dist_train.supply.ranges import Ranges
from dist_train.view import View


class Mixed:
    """Shards of several sources: `numbers[file]` is the source and the file's number there."""

    far = True

    def __init__(self, sources: Sequence[Source], numbers: Sequence[tuple[int, int]]) -> None:
        self.sources, self.numbers = list(sources), list(numbers)

    def read_rows(
        self, files: Sequence[int], offsets: Sequence[int], buffers: Sequence[memoryview]
    ) -> dict[int, OSError]:
        """As their sources do, one source after the other."""
        failed = dict[int, OSError]()
        for number, source in enumerate(self.sources):
            rows = [row for row, file in enumerate(files) if self.numbers[file][0] == number]
            own = [self.numbers[files[row]][1] for row in rows]
            bad = source.read_rows(own, [offsets[row] for row in rows], [buffers[row] for row in rows])
            failed |= {rows[place]: error for place, error in bad.items()}
        return failed

    def traffic(self) -> tuple[int, int, int]:
        """The sources' sums."""
        known = [found for source in self.sources if (found := source.traffic()) is not None]
        fetched, requests, repeated = (sum(column) for column in zip(*known, strict=True))
        return fetched, requests, repeated

    def close(self) -> None:
        """Close all of them."""
        for source in self.sources:
            source.close()


def of_view(view: View, config: Config | None = None) -> Source:
    """What reads a view's shards, as a configuration says."""
    return source(view.files, view.bytes, config.patience if config is not None else PATIENCE, view.times)


def source(
    files: Sequence[Path | str], sizes: Sequence[int], patience: float = PATIENCE, times: Sequence[int] | None = None
) -> Source:
    """What reads `files`, paths or addresses, that had `sizes` bytes when they were indexed. `times`: see `Files`."""
    times = times or [0] * len(files)
    far = [remote(file) for file in files]
    if not any(far):
        return Files(files, sizes=sizes, times=times)
    away = [number for number, there in enumerate(far) if there]
    ranges = Ranges([str(files[number]) for number in away], [sizes[number] for number in away], patience)
    if all(far):
        return ranges
    here = [number for number, there in enumerate(far) if not there]
    place = {file: (0, own) for own, file in enumerate(here)} | {file: (1, own) for own, file in enumerate(away)}
    own_sizes, own_times = ([column[number] for number in here] for column in (sizes, times))
    near = Files([files[number] for number in here], sizes=own_sizes, times=own_times)
    return Mixed([near, ranges], [place[file] for file in range(len(files))])
