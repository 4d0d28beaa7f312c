"""Steps of a run -> a profile of them: RUN/trace/rank0-steps-F-T.json.gz and a table of the costliest operations.

The trace opens in https://ui.perfetto.dev or chrome://tracing.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from dist_train import disk

_ROWS = 30  # of the table


class Trace:
    """A profile of steps `span` (first, last; both in it). Without a span, or without a folder, it does nothing."""

    def __init__(
        self, span: tuple[int, int] | None, folder: Path | None, device: torch.device, say: Callable[[str], None]
    ) -> None:
        """`folder`: of the traces, None on ranks that write none; `say`: takes the line that says where it lies."""
        self.span = span if folder is not None else None
        self.folder, self.device, self.say = folder, device, say
        self.path: Path | None = None  # of the trace, once it is written
        self._profile: profile | None = None
        self._first = self._last = 0

    def before(self, step: int) -> None:
        """Step `step` (from 1 on) is about to run. A run resumed inside the span profiles what is left of it."""
        if self.span is None or self._profile is not None or not self.span[0] <= step <= self.span[1]:
            return
        kinds = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
            torch.cuda.synchronize(self.device)  # what was queued before is not of this step
        else:  # a torch built for CUDA would speak of an error where there is no GPU
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")
        self._profile, self._first, self._last = profile(activities=kinds, acc_events=True), step, step - 1
        self._profile.start()

    def after(self, step: int) -> None:
        """Step `step` has run; after the last one of the span the trace is written."""
        if self._profile is None or self.span is None:
            return
        self._last = step
        if step >= self.span[1]:
            self.close()

    def close(self) -> None:
        """Write what there is: a run may end inside the span, by an error too, which a failing profile may not hide."""
        found, self._profile, self.span = self._profile, None, None
        if found is None:
            return
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            found.stop()
            if self._last >= self._first:
                self._write(found)
        except (OSError, RuntimeError) as error:
            self.say(f"no profile of steps {self._first} to {self._last}: {error}")

    def _write(self, found: profile) -> None:
        assert self.folder is not None
        name = f"rank0-steps-{self._first}-{self._last}"
        path = self.folder / f"{name}.json.gz"
        order = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=order, row_limit=_ROWS)
        self.folder.mkdir(parents=True, exist_ok=True)
        found.export_chrome_trace(str(path))
        disk.replace(self.folder / f"{name}.txt", lambda file: file.write(table.encode()))
        self.path = path
        self.say(
            f"profile of steps {self._first} to {self._last}: {path} (for ui.perfetto.dev; a table lies beside it)"
        )
