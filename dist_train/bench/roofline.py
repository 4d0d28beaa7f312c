"""Each stage against its floor on this machine: measured memory bandwidth and rate of fp32 products, one core.

A stage of the front end costs what the front end takes with it less what it takes without it, batch after batch.
"""

import os
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from dist_train.bench import chain, fbank, material, reading, roof, training
from dist_train.bench.pair import Side, seconds
from dist_train.bench.row import Row, Work
from dist_train.frontend import FrontEnd
from dist_train.payload import RawBatch
from dist_train.reader import Reader
from dist_train.settings import Audio, Augment, Features
from dist_train.storage import Files

BATCH, MODEL = 64, "ecapa"
STAGES = ("plain", "speed", "level", "mean", "SpecAugment")


@dataclass(frozen=True)
class Machine:
    """Bytes a second of a copy (read and written), in memory and in cache, and fp32 operations a second of products."""

    memory: float
    cache: float
    products: float


def machine(work: Work) -> Machine:
    """The best of a few, on one core."""
    side = work.size(2048, 1024)
    matrix = torch.randn(side, side)
    product = min(seconds(lambda: torch.mm(matrix, matrix)) for _ in range(work.times))
    return Machine(
        copying(work.size(256, 64) * 2**20, 1, work.times), copying(2**18, 64, work.times), 2 * side**3 / product
    )


def copying(size: int, repeats: int, times: int) -> float:
    """Bytes a second that a copy of `size` bytes reads and writes."""
    source = torch.ones(size // 4)
    target = torch.ones_like(source)

    def run() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return 2 * 4 * source.numel() * repeats / min(seconds(run) for _ in range(times))


def step_by_step() -> dict[str, tuple[Audio, Augment, Features]]:
    """Front ends, each with one stage more than the one before."""
    full, changes = chain.settings()
    plain, still = Audio(), Augment(speed=["1"])  # type: ignore[call-arg, list-item]
    moving, bare, mean = Augment(), Features(norm="none"), Features()  # type: ignore[call-arg]
    settings = (
        *((plain, still, bare), (plain, moving, bare), (full, moving, bare), (full, moving, mean)),
        (full, changes, mean),
    )
    return dict(zip(STAGES, settings, strict=True))


def held(view: Any, audio: Audio, augment: Augment) -> tuple[RawBatch, Reader]:
    """One batch, and the reader whose memory it is."""
    reader = Reader(Files(view.files), reading.requests(view, BATCH, chain.planner(view, audio, augment)), depth=1)
    return next(reader), reader


def measured(work: Work) -> dict[str, float]:
    """Microseconds a clip of each stage of the front end."""
    view = material.opened(material.shard_folder(work, work.size(2048, 512), 3.0))
    sides: dict[str, Side] = {}
    readers = []
    for name, (audio, augment, features) in step_by_step().items():
        raw, reader = held(view, audio, augment)
        sides[name] = partial(FrontEnd(audio, augment, features, seed=0, device="cpu", listen=0), raw, True)
        readers.append(reader)
    wave_BT, bank = material.waves(work, BATCH), fbank.bank()
    stream = reading.Stream(view, BATCH, reading.whole(view))
    sides |= {"Fbank": lambda: bank(wave_BT), "read": lambda: stream.run(512)}
    for side in sides.values():
        side()
    rounds = [{name: seconds(side) for name, side in sides.items()} for _ in range(2 * work.times)]
    for reader in readers:
        reader.close()
    clips = {name: 512 if name == "read" else BATCH for name in sides}
    return differences([{name: one[name] / clips[name] * 1e6 for name in sides} for one in rounds])


def differences(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Microseconds of each stage: what a front end adds to the one before it; `front end` is the whole.

    Each at its best of the rounds: what else the machine does only adds.
    """
    best = {name: min(one[name] for one in rounds) for name in rounds[0]}
    found = {"read": best["read"], "decode": best["plain"] - best["Fbank"], "Fbank": best["Fbank"]}
    found |= {name: best[name] - best[before] for before, name in pairwise(STAGES)}
    return found | {"front end": best[STAGES[-1]]}


def floors(work: Work) -> list[Row]:
    """A row for each stage and the model, and the advice."""
    here = machine(work)
    note = f"copy: in cache {here.cache / 1e9:.0f} GB/s; fp32 products {here.products / 1e9:.0f} GFLOP/s; one core"
    more: dict[str, Any] = {"cache GB/s": here.cache / 1e9, "GFLOP/s": here.products / 1e9}
    rows = [Row("roofline", "machine, copy in memory", "GB/s", ours=here.memory / 1e9, note=note, more=more)]
    found = measured(work)
    for name, stage in (roof.stages() | {"front end": roof.front_end()}).items():
        rows.append(_row(stage, found[name], here.memory if name == "read" else here.cache, here.products))
    count, frames = work.size(8, 2), 298
    given = training.batch(count, frames, torch.device("cpu"))
    side, model = training.ours(training.configuration(MODEL, count), given, torch.device("cpu"))
    cost = training.flops(model, frames, torch.device("cpu"))
    side()
    times = [seconds(side) / count * 1e6 for _ in range(work.size(3, 1))]
    step = float(np.median(times))
    rows.append(_row(roof.model_stage(MODEL, cost, frames), step, here.memory, here.products))
    advice = roof.advise(found["read"], found["front end"], step, shared=True, cores=os.cpu_count() or 1)
    more = {"clips/s": dict(advice.rates), "data.threads": advice.threads, "bottleneck": advice.bottleneck}
    note = f"one core, {MODEL}: {advice.text}"
    return [*rows, Row("roofline", "advice", "threads", ours=advice.threads, note=note, more=more)]


def _row(stage: roof.Stage, found: float, bandwidth: float, rate: float) -> Row:
    floor = stage.floor(bandwidth, rate)
    told = found > 0
    cost = f"{stage.bytes / 1e3:,.0f} KB, {stage.flops / 1e6:,.2f} MFLOP a clip"
    note = f"{cost}; the floor is {stage.bound(bandwidth, rate)}"
    return Row(
        *("roofline", stage.name, "us a clip"),
        ours=found if told else None,
        peer="floor",
        peer_value=floor,
        ratio=floor / found if told else None,
        note=note if told else f"{note}; below what the differences can tell",
        more={"bytes": stage.bytes, "flops": stage.flops},
    )
