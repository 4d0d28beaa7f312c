"""Each stage against its floor on this machine: measured memory bandwidth and rate of fp32 products, one core.

Stages of the front end are timed one by one, batch after batch; speed and level by what they add to decoding.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dist_train import augment as change
from dist_train.bench import chain, fbank, material, reading, roof, training
from dist_train.bench.pair import Side, seconds
from dist_train.bench.row import Row, Work
from dist_train.effects import masks
from dist_train.frontend import FrontEnd
from dist_train.reader import Reader
from dist_train.resample import Resamplers
from dist_train.settings import Audio, Augment, Features, SpecAugment
from dist_train.spectra.norm import normalise
from dist_train.storage import Files
from dist_train.waves import Waves

BATCH, MODEL = 64, "ecapa"
READ = 32  # batches


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


class Batch:
    """One batch of raw bytes, and what each stage of the front end makes of it."""

    def __init__(self, view: Any, audio: Audio, augment: Augment) -> None:
        requests = reading.requests(view, BATCH, chain.planner(view, audio, augment))
        self.reader = Reader(Files(view.files), requests, threads=1, depth=1)
        self.raw = next(self.reader)
        self.front = FrontEnd(audio, augment, Features(), seed=0, device="cpu", listen=0)  # type: ignore[call-arg]
        self.waves = Waves(audio, augment.speed, Resamplers(torch.device("cpu")))
        plan = self.raw.plan
        self.level, _ = change.levels(plan, audio, augment, 0, training=True)
        self.place = np.full(len(plan), 0.5)

    def cut(self) -> None:
        """Windows at speed and level."""
        self.waves(self.raw.data, self.raw.plan, int(self.raw.plan["window"].max()), self.level, self.place)

    def whole(self) -> None:
        """The whole front end."""
        self.front(self.raw, True)


def measured(work: Work) -> dict[str, float]:
    """Microseconds a clip of each stage of the front end, each at its best: what else the machine does only adds."""
    view = material.opened(material.shard_folder(work, work.size(2048, 512), 3.0))
    full, changes = chain.settings()
    plain, still = Audio(), Augment(speed=["1"])  # type: ignore[call-arg, list-item]
    batches = [Batch(view, plain, still), Batch(view, plain, Augment()), Batch(view, full, changes)]  # type: ignore[call-arg]
    wave_BT, bank = material.waves(work, BATCH), fbank.bank()
    feat_BTF, frames = bank(wave_BT), np.full(BATCH, 298)
    bands = masks.bands(batches[2].raw.plan, frames, 80, changes.spec or SpecAugment(), 0)  # type: ignore[call-arg]
    stream = reading.Stream(view, BATCH, reading.whole(view))
    sides: dict[str, Side] = dict(zip(("decode", "moved", "levelled"), (batch.cut for batch in batches), strict=True))
    sides |= {
        "Fbank": lambda: bank(wave_BT),
        "mean": lambda: normalise(feat_BTF, None, "cmn"),
        "SpecAugment": lambda: masks.mask(feat_BTF, *bands, 0.0),
        "front end": batches[2].whole,
        "read": lambda: stream.timed(READ * BATCH),
    }
    for side in sides.values():
        side()
    clips = {name: BATCH * (READ if name == "read" else 1) for name in sides}
    rounds = [{name: seconds(side) / clips[name] * 1e6 for name, side in sides.items()} for _ in range(2 * work.times)]
    for batch in batches:
        batch.reader.close()
    return stage_times(rounds)


def stage_times(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The best of the rounds; speed and level are what they add to decoding, by the medians of the differences."""
    found = {name: min(one[name] for one in rounds) for name in rounds[0]}
    for name, after, before in (("speed", "moved", "decode"), ("level", "levelled", "moved")):
        found[name] = float(np.median([one[after] - one[before] for one in rounds]))
    return {name: found[name] for name in found if name not in {"moved", "levelled"}}


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
