"""What a run says of its speed: clips a second, operations a second, memory, the slowest rank. All between log lines.

step ----------- Stopwatch: this rank's own seconds, up to where the ranks' gradients meet
log line ------- Speed.figures: one row a rank, added over ranks; the clock stands still in evaluations
"""

import os
import re
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from dist_train.storage import Source
from dist_train.traffic import Traffic
from dist_train.world import World

Found = TypeVar("Found")

LEAST = 0.01  # TFLOP/s that are shown to a person; a test's tiny network has none to speak of
_TIMED = 64  # steps between two log lines whose seconds are taken at most

# Dense TFLOP/s of (bf16, fp16, tf32, fp32) by the maker's data sheets, sparsity left out; the first name whose
# words all stand in the device's name is taken, so `H100 PCIe` stands before `H100`.
_PEAKS: dict[str, tuple[float | None, float | None, float | None, float]] = {
    "GB200": (2500, 2500, 1250, 80),
    "B200": (2250, 2250, 1125, 75),
    "GH200": (989.4, 989.4, 494.7, 66.9),
    "H200 NVL": (835, 835, 417.5, 60),
    "H200": (989.4, 989.4, 494.7, 66.9),
    "H100 PCIe": (756, 756, 378, 51),
    "H100 NVL": (835, 835, 417.5, 60),
    "H100": (989.4, 989.4, 494.7, 66.9),
    "A100": (312, 312, 156, 19.5),
    "A40": (149.7, 149.7, 74.8, 37.4),
    "A30": (165, 165, 82, 10.3),
    "A10G": (70, 70, 35, 35),
    "A10": (125, 125, 62.5, 31.2),
    "L40S": (362, 362, 183, 91.6),
    "L40": (181, 181, 90.5, 90.5),
    "L4": (121, 121, 60, 30.3),
    "T4": (None, 65, None, 8.1),
    "V100 PCIE": (None, 112, None, 14),
    "V100": (None, 125, None, 15.7),
    "RTX 5090": (209.5, 209.5, 104.8, 104.8),
    "RTX 4090": (165.2, 165.2, 82.6, 82.6),
    "RTX 3090": (71, 71, 35.6, 35.6),
    "RTX 6000 Ada": (364.2, 364.2, 182.1, 91.1),
    "RTX A6000": (154.8, 154.8, 77.4, 38.7),
}


def peak(device: str, half: torch.dtype | None, tf32: bool) -> float | None:
    """Largest dense FLOP/s of a GPU by its name, e.g. `NVIDIA H100 80GB HBM3`; None where it is not known.

    `half`: the autocast type, or None for fp32, whose convolutions run in TF32 where `tf32` allows it.
    """
    known = by_name(device, _PEAKS)
    if known is None:
        return None
    bf16, fp16, narrow, fp32 = known
    found = bf16 if half is torch.bfloat16 else fp16 if half is torch.float16 else None
    if half is None:
        found = narrow if tf32 and narrow is not None else fp32
    return found * 1e12 if found is not None else None


def by_name(device: str, table: Mapping[str, Found]) -> Found | None:
    """The first entry of a table whose name's words all stand in the device's name."""
    words = set(re.split(r"[^A-Za-z0-9]+", device.upper()))
    return next((found for name, found in table.items() if set(name.upper().split()) <= words), None)


def device_peak(device: torch.device, half: torch.dtype | None, wide: torch.dtype) -> float | None:
    """`peak` of a device of this process; None for a CPU, and for fp64."""
    if device.type != "cuda" or wide is torch.float64:
        return None
    return peak(torch.cuda.get_device_name(device), half, torch.backends.cudnn.allow_tf32)


class Stopwatch:
    """Seconds of a rank's own work in its steps. On CUDA by events, read when they are over anyway: no step waits."""

    def __init__(self, device: torch.device, on: bool) -> None:
        self.cuda, self.on = device.type == "cuda", on
        self._events: list[tuple[Any, Any]] = []
        self._shares: list[float] = []  # groups' worth of work in each timed step
        self._groups, self._seconds, self._begun = 0, 0.0, 0.0

    def start(self) -> None:
        """A step begins; its data is there."""
        number = len(self._shares)
        if not self.on or number >= _TIMED:
            return
        if not self.cuda:
            self._begun = time.perf_counter()
            return
        if number == len(self._events):
            self._events.append((_event(), _event()))
        self._events[number][0].record()

    def stop(self, groups: int) -> None:
        """All `groups` of this rank are done but for the last backward, which may wait for other ranks."""
        if not self.on or not groups:
            return
        self._groups += groups
        number = len(self._shares)
        if number >= _TIMED:
            return
        if self.cuda:
            self._events[number][1].record()
        else:
            self._seconds += time.perf_counter() - self._begun
        self._shares.append(groups - 2 / 3)  # a backward is two thirds of the work

    def take(self) -> tuple[float, int]:
        """Since the last call: mean seconds of a group's forward and backward, groups."""
        shares, groups, seconds = self._shares, self._groups, self._seconds
        self._shares, self._groups, self._seconds = [], 0, 0.0
        if self.cuda:
            pairs = zip(self._events, shares, strict=False)
            over = [(begin.elapsed_time(end) / 1000, share) for (begin, end), share in pairs if end.query()]
            seconds, shares = sum(time for time, _ in over), [share for _, share in over]
        return seconds / sum(shares) if shares else 0.0, groups


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class Speed:
    """Figures between log lines, equal calls on all ranks. `flops`: of training on a clip; `top`: FLOP/s of a rank."""

    def __init__(self, world: World, clip_seconds: float, watch: Stopwatch) -> None:
        self.world, self.clip_seconds, self.watch = world, clip_seconds, watch
        self.flops: float | None = None
        self.top: float | None = None
        self._clock = time.monotonic()
        self._consumed = 0
        self._waited = 0.0
        self._seconds = self._data = 0.0  # of the whole run
        self._clips = 0
        self._traffic: Traffic | None = None

    def begin(self, consumed: int, source: Source | None = None) -> None:
        """Training begins, or goes on, at a position. `source`: of this rank's bytes."""
        self._clock, self._consumed = time.monotonic(), consumed
        self._traffic = Traffic(source) if source is not None else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still: an evaluation is not training."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._clock += time.monotonic() - begun

    def figures(self, consumed: int, waited: float) -> dict[str, Any]:
        """What a training record says of speed. `waited`: seconds that this rank has waited for data, in all."""
        now = time.monotonic()
        seconds, clips, data = max(1e-9, now - self._clock), consumed - self._consumed, waited - self._waited
        self._seconds, self._clips, self._data = self._seconds + seconds, self._clips + clips, self._data + data
        self._clock, self._consumed, self._waited = now, consumed, waited
        rate = clips / seconds
        found: dict[str, Any] = {
            "clips_per_second": rate,
            "audio_per_second": rate * self.clip_seconds,
            "data_wait": data / seconds,
        }
        if self.flops is not None:
            found["tflops"] = self.flops * rate / 1e12
            if self.top is not None:
                found["peak_share"] = self.flops * rate / (self.top * self.world.size)
        if (memory := peak_memory(self.world.device)) is not None:
            found["peak_memory"] = memory
        own, groups = self.watch.take()
        if self._traffic is not None:
            found |= self._traffic.figures(self.world)
        return found | self._ranks(own + data / max(1, groups))

    def _ranks(self, own: float) -> dict[str, Any]:
        """Each rank's own seconds a group, and the slowest one: ranks may have unequally many groups."""
        if self.world.size == 1:
            return {}
        row_R = torch.zeros(self.world.size, dtype=torch.float64)
        row_R[self.world.rank] = own
        seconds = self.world.add(row_R).tolist()
        rank, by = slowest(seconds)
        return {"rank_seconds": seconds, "slowest_rank": rank, "slowest_by": by}

    def summary(self) -> str | None:
        """One line on the steps that this process trained; None if there were none."""
        if not self._clips:
            return None
        rate, wait = self._clips / self._seconds, self._data / self._seconds
        tera = self.flops * rate / 1e12 if self.flops is not None else 0.0
        power = f", {tera:.3g} TFLOP/s" if tera >= LEAST else ""
        return f"trained at {rate:.1f} clips/s{power}, {wait:.0%} of the time waiting for data"


def slowest(seconds: list[float]) -> tuple[int, float]:
    """Of at least two ranks the slowest, and the share by which it is slower than the median of the others."""
    rank = max(range(len(seconds)), key=seconds.__getitem__)
    others = statistics.median(seconds[:rank] + seconds[rank + 1 :])
    return rank, seconds[rank] / others - 1 if others > 0 else 0.0


def peak_memory(device: torch.device) -> float | None:
    """GiB: on CUDA the most that tensors took since the last call, elsewhere what the process holds; None: unknown."""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return most / 2**30
    with suppress(OSError, ValueError, IndexError, AttributeError):  # Linux has it
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    return None
