"""Launcher's environment -> this process's rank, device and process groups; the few collectives; the agreed stop.

The only file that touches `torch.distributed` (but for the DDP wrapper) and the launchers' environment variables.
torchrun and `accelerate launch` set RANK, LOCAL_RANK, WORLD_SIZE, ...; Slurm's own variables are the fallback.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dist_train import repeatable
from dist_train.hosts import hostlist, interface, meeting, orphan

T = TypeVar("T")
_NOTICE = 5.0  # seconds that a rank waits for its own SIGTERM: torchrun's agents look every 0.1 s
_BEAT = 5.0  # seconds between two signs of life of rank 0, at most
_GLOO = re.compile(r"\[[^]]*gloo/[^]]*\] *")  # the source line before gloo's own words
_CUT = re.compile(r"gloo/|Application timeout|[Cc]onnection (closed|reset|refused)|[Ss]ocket (closed|[Tt]imeout)")


@dataclass(frozen=True)
class Place:
    """Where a process stands among the others, as its launcher says."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "python"
    job: str = ""  # torchrun's name of the job, the same when it starts its ranks anew

    @property
    def hosts(self) -> bool:
        """Whether there are several hosts."""
        return self.local_size < self.size


@dataclass
class World:
    """This process among its ranks. `device` is its own; collectives are no-ops in a world of one."""

    place: Place
    device: torch.device
    backend: str
    threads: int
    timeout: float = 600.0  # seconds that a rank may be silent
    side: Any = None  # gloo group for host tensors
    patient: Any = None  # gloo group for waits on work that rank 0 does alone
    _flag: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    _work: Any = None

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def size(self) -> int:
        return self.place.size

    @property
    def first(self) -> bool:
        return self.place.rank == 0

    @property
    def host(self) -> range:
        """The ranks of this one's host; launchers number them one after another."""
        first = self.place.rank - self.place.local_rank
        return range(max(first, 0), min(first + self.place.local_size, self.size))

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place; device tensors by the main group, host tensors by gloo."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.side if tensor.device.type == "cpu" else None)
        return tensor

    def broadcast_bytes(self, data: bytes | None) -> bytes:
        """Rank 0's bytes on every rank (a checkpoint, statistics)."""
        if self.size == 1:
            assert data is not None
            return data
        length = torch.tensor([len(data) if data is not None else 0])
        dist.broadcast(length, 0, group=self.side)
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        if not self.first:
            buffer = torch.empty(int(length), dtype=torch.uint8)
        if len(buffer):
            dist.broadcast(buffer, 0, group=self.side)
        return buffer.numpy().tobytes()

    def lead(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 alone; every rank gets its value, or raises its `ValueError` or `OSError` (as one).

        It may take longer than `timeout`: rank 0 gives signs of life, so that its death or a cut link does not.
        """
        if self.size == 1:
            return work()
        box: list[Any] = [None, None]
        if self.first:
            with self._alive():
                try:
                    box[0] = work()
                except (ValueError, OSError) as error:
                    box[1] = str(error)
        else:
            while self._sign(1):
                pass
        dist.broadcast_object_list(box, 0, group=self.patient)
        if box[1] is not None:
            raise ValueError(box[1])
        return box[0]  # type: ignore[no-any-return]

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Rank 0 tells the others every few seconds that it still works, and then that it is done."""
        done, failed = threading.Event(), []

        def beat() -> None:
            try:
                while not done.wait(min(_BEAT, self.timeout / 4)):
                    self._sign(1)
            except RuntimeError as error:
                failed.append(error)

        thread = threading.Thread(target=beat, name="alive", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if failed:
            raise failed[0]
        self._sign(0)

    def _sign(self, working: int) -> int:
        """Rank 0's flag on every rank: 1 while it works alone."""
        flag = torch.tensor([working])
        dist.broadcast(flag, 0, group=self.patient)
        return int(flag)

    def collect(self, value: T) -> list[T]:
        """Every rank's value, on every rank (small host objects)."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.side)
        return values

    def gather_rows(self, rows: torch.Tensor, sizes: list[int]) -> torch.Tensor | None:
        """Host rows (sizes[rank], ...) of all ranks, joined by rank, on rank 0; None elsewhere."""
        if self.size == 1:
            return rows
        padded = torch.zeros(max(sizes), *rows.shape[1:], dtype=rows.dtype)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes] if self.first else None
        dist.gather(padded, parts, dst=0, group=self.side)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]) if parts else None

    def agree(self, wish: int) -> int:
        """Largest wish of all ranks **one call ago**: the exchange of this call overlaps the work until the next."""
        if self.size == 1:
            return wish
        agreed = self.settle()
        self._flag.fill_(wish)
        self._work = dist.all_reduce(self._flag, op=dist.ReduceOp.MAX, group=self.side, async_op=True)
        return agreed

    def settle(self) -> int:
        """Finish the exchange that `agree` began; its largest wish."""
        if self._work is None:
            return 0
        self._work.wait()
        self._work = None
        return int(self._flag)

    def stop(self) -> None:
        """Leave the process groups."""
        if self.size > 1 and dist.is_initialized():
            self._work = None
            dist.destroy_process_group()

    def linger(self) -> None:
        """Leave time for one's own SIGTERM, as the last act of a rank that ends because other ranks were told to.

        When a machine joins, each agent notices for itself, and stops its ranks. One that saw its ranks leave before it
        noticed would take the run for done.
        """
        if self.place.launcher == "torchrun" and self.place.hosts:
            time.sleep(_NOTICE)


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """The launcher's numbers. Errors: `ValueError` where accelerate started one process for several."""
    get = environment.get
    if "RANK" in environment and "WORLD_SIZE" in environment:
        size = int(get("WORLD_SIZE", "1"))
        launcher = "accelerate" if "ACCELERATE_MIXED_PRECISION" in environment else "torchrun"
        local = int(get("LOCAL_RANK", "0")), int(get("LOCAL_WORLD_SIZE", get("WORLD_SIZE", "1")))
        job = get("TORCHELASTIC_RUN_ID", "none")
        return Place(int(get("RANK", "0")), size, *local, launcher, job if job != "none" else "")
    if get("ACCELERATE_USE_CPU", "").lower() in ("1", "true") and "MASTER_ADDR" in environment:
        raise ValueError(
            "accelerate started one process for several (its CPU launcher needs MPI); use "
            "`accelerate launch --config_file configs/accelerate/cpu.yaml -m dist_train ...` or torchrun"
        )
    size = int(get("SLURM_STEP_NUM_TASKS") or get("SLURM_NTASKS") or "1")
    if size > 1 and "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        nodes = int(get("SLURM_STEP_NUM_NODES") or get("SLURM_NNODES") or "1")
        return Place(int(get("SLURM_PROCID", "0")), size, int(get("SLURM_LOCALID", "0")), -(-size // nodes), "slurm")
    return Place()


def place_or_first() -> Place:
    """The launcher's numbers, or rank 0 where they are refused."""
    try:
        return place()
    except ValueError:
        return Place()


def start(timeout: float, threads: int | None = None, deterministic: bool | None = None) -> World:
    """Join the process group; choose device, backend and threads. `timeout`: seconds of a collective."""
    here = place()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's agent, or accelerate's
        orphan.die_with_parent()
    device, backend = _device(here)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = threads or max(1, cores // here.local_size)
    torch.set_num_threads(threads)
    repeatable.switch(device.type == "cpu" if deterministic is None else deterministic)
    world = World(here, device, backend, threads, timeout)
    if here.size > 1:
        _join(here, device, backend, timeout)
        limit = timedelta(seconds=timeout)
        world.side, world.patient = (dist.new_group(backend="gloo", timeout=limit) for _ in range(2))
    return world


def loss(error: BaseException) -> str | None:
    """What a collective says where a rank is gone or does not answer; None for another error."""
    text = str(error).strip().partition("\n")[0]
    if not isinstance(error, dist.DistError) and _CUT.search(text) is None:
        return None
    return _GLOO.sub("", text)[:200]


def mixed_precision(environment: Mapping[str, str] = os.environ) -> str | None:
    """What `accelerate launch` was told (`bf16`, `fp16`, `no`), None without it."""
    return environment.get("ACCELERATE_MIXED_PRECISION")


def _device(here: Place) -> tuple[torch.device, str]:
    if torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true"):
        count = torch.cuda.device_count()
        device = torch.device("cuda", here.local_rank % count)
        torch.cuda.set_device(device)
        return device, "nccl" if here.local_size <= count else "gloo"  # NCCL refuses two ranks on one GPU
    if here.size == 1 and torch.backends.mps.is_available():
        return torch.device("mps"), "gloo"
    return torch.device("cpu"), "gloo"


def _join(here: Place, device: torch.device, backend: str, timeout: float) -> None:
    if here.launcher == "slurm":
        # not SLURM_LAUNCH_NODE_IPADDR: srun may run on a machine that has no rank
        os.environ.setdefault("MASTER_ADDR", hostlist.first(os.environ.get("SLURM_STEP_NODELIST", "")) or "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000))
    if here.hosts and "GLOO_SOCKET_IFNAME" not in os.environ:
        name = interface.toward(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        os.environ.update({"GLOO_SOCKET_IFNAME": name} if name else {})
    meet = dist.rendezvous("env://", here.rank, here.size, timeout=timedelta(seconds=timeout))  # type: ignore[attr-defined]
    store = next(meet)[0]
    try:
        start = meeting.name(store, here.rank, here.size, timeout)
    except TimeoutError as error:
        raise dist.DistStoreError(str(error)) from None
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(start, store),  # type: ignore[attr-defined]
        rank=here.rank,
        world_size=here.size,
        timeout=timedelta(seconds=timeout),
        device_id=device if backend == "nccl" else None,
    )
