"""A run's metrics.jsonl as it grows -> epoch, loss, time left."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dist_train.settings import Config


class Watch:
    """The training lines of one run; `epoch` and `loss` are of the last one, None before there is one."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.path, self.epochs = folder / "metrics.jsonl", config.run.epochs
        self.most = config.run.max_steps
        self.epoch: float | None = None
        self.loss: float | None = None
        self.share = 0.0  # of the run that is done
        self._first: tuple[float, float] | None = None  # when this watch first saw lines, and the share then
        self._offset, self._rest = 0, b""

    def look(self) -> None:
        """Read what is new."""
        with suppress(OSError):
            if self.path.stat().st_size < self._offset:  # cut at a checkpoint, from which the run goes on
                self._offset, self._rest, self.epoch, self._first = 0, b"", None, None
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                with suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line))
            if self._first is None and self.epoch is not None:
                self._first = time.monotonic(), self.share

    def _take(self, record: dict[str, Any]) -> None:
        if record["kind"] != "train":
            return
        self.epoch, self.loss = float(record["epoch"]), record["loss"]
        self.share = max(self.epoch / self.epochs, record["step"] / self.most if self.most else 0.0)
        self.share = min(self.share, 1.0)

    @property
    def left(self) -> float | None:
        """Seconds, at the rate since this watch first saw lines; None where it has seen them but once."""
        if self._first is None or self.share <= self._first[1]:
            return None
        begun, share = self._first
        return (time.monotonic() - begun) / (self.share - share) * (1 - self.share)
