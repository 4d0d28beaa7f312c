"""What cannot be beaten: bytes and operations of a clip, against what a machine moves and computes. Pure arithmetic.

floor of a stage = max(bytes / bandwidth, operations / rate)        share of the roof = floor / measured
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dist_train.resample import speed_ratio
from dist_train.settings import Augment
from dist_train.speed import by_name, peak

RATE, BINS, FRAME, SHIFT, POINTS = 16000, 80, 400, 160, 512


@dataclass(frozen=True)
class Peak:
    """Of a GPU: GB/s of memory, and TFLOP/s of dense products in bf16 (fp16 where it lacks bf16)."""

    memory: float
    products: float


MEMORY = {
    "B200": 8000,
    "GH200": 4000,
    "H200": 4800,
    "H100 PCIe": 2039,
    "H100 NVL": 3938,
    "H100": 3350,
    "A100 PCIe 80GB": 1935,
    "A100 80GB": 2039,
    "A100": 1555,
    "L40S": 864,
    "L40": 864,
    "L4": 300,
    "A40": 696,
    "A30": 933,
    "A10G": 600,
    "A10": 600,
    "RTX 5090": 1792,
    "RTX 4090": 1008,
    "RTX 3090": 936,
    "V100": 900,
    "T4": 320,
}
"""GB/s by the makers' data sheets; the first whose words stand in the device's name counts."""


@dataclass(frozen=True)
class Cost:
    """Of training on one clip of 298 frames x 80 bins in bf16: GFLOP, and MB moved if every operation goes to memory
    (eager), or only convolutions, products and norms do (fused)."""

    gflop: float
    eager: float
    fused: float


MODELS = {
    "ecapa": Cost(9.3, 215, 49),
    "campplus": Cost(10.1, 441, 211),
    "eres2net": Cost(30.2, 1296, 582),
    "eres2netv2": Cost(18.7, 1025, 484),
    "resnet_se": Cost(33.2, 1245, 541),
    "tdnn": Cost(4.4, 56, 17),
    "res2net": Cost(1.0, 47, 24),
    "cnn6": Cost(22.1, 108, 45),
    "cnn10": Cost(29.0, 194, 102),
    "cnn14": Cost(42.8, 211, 114),
}


def gpu(name: str) -> Peak | None:
    """The peaks of a GPU by its name; None where it is not in the tables."""
    memory = by_name(name, MEMORY)
    products = peak(name, torch.bfloat16, False) or peak(name, torch.float16, False)
    return None if memory is None or products is None else Peak(memory, products / 1e12)


def shares(model: str, clips: float, card: Peak | None) -> dict[str, float]:
    """Which shares of a GPU's roofs `clips` a second are; empty where the model or the GPU is not in the tables."""
    if card is None or model not in MODELS:
        return {}
    cost = MODELS[model]
    return {
        "compute": clips * cost.gflop / (card.products * 1e3),
        "eager memory": clips * cost.eager / (card.memory * 1e3),
        "fused memory": clips * cost.fused / (card.memory * 1e3),
    }


@dataclass(frozen=True)
class Stage:
    """Bytes that must move and operations that must be done for one clip."""

    name: str
    bytes: float
    flops: float

    def floor(self, bandwidth: float, rate: float) -> float:
        """Microseconds at least, given bytes a second and operations a second."""
        return max(self.bytes / bandwidth, self.flops / rate) * 1e6

    def bound(self, bandwidth: float, rate: float) -> str:
        """What the floor is made of."""
        return "memory" if self.bytes / bandwidth >= self.flops / rate else "arithmetic"


def stages(seconds: float = 3.0) -> dict[str, Stage]:
    """The front end's, for a clip of PCM16 at 16 kHz, each as if alone: in from memory, out to memory.

    read: copied once by the system. speed: two clips of three. Fbank: a real transform of n points is 2.5 n log2 n.
    """
    samples = seconds * RATE
    frames = frame_count(seconds)
    values = 4.0 * frames * BINS
    taps = [0 if ratio.same else ratio.orig + 2 * ratio.width for ratio in map(speed_ratio, Augment().speed)]  # type: ignore[call-arg]
    changed = sum(count > 0 for count in taps) / len(taps)
    transform = 2.5 * POINTS * math.log2(POINTS)
    per_frame = 5 * FRAME + transform + 3 * (POINTS / 2 + 1) + 2 * POINTS + BINS
    found = (
        Stage("read", 2 * 2 * samples, 0),
        Stage("decode", (2 + 4) * samples, samples),
        Stage("speed", 8 * samples * changed, 2 * samples * sum(taps) / len(taps)),
        Stage("level", 8 * samples, samples),
        Stage("Fbank", 4 * samples + values, frames * per_frame),
        Stage("mean", 3 * values, 2 * frames * BINS),
        Stage("SpecAugment", 2 * values, 0),
    )
    return {stage.name: stage for stage in found}


def front_end(seconds: float = 3.0) -> Stage:
    """All stages behind the reader in one, nothing of it leaving the cache: PCM16 in, features out."""
    found = [stage for name, stage in stages(seconds).items() if name != "read"]
    moved = 2 * seconds * RATE + 4.0 * frame_count(seconds) * BINS
    return Stage("front end", moved, sum(stage.flops for stage in found))


def model_stage(name: str, flops: float, frames: int) -> Stage:
    """Training on one clip in fp32, from the counted operations and the table's fused bytes (twice those of bf16)."""
    moved = MODELS[name].fused * 1e6 * 2 * frames / 298 if name in MODELS else 0.0
    return Stage(f"{name} step", moved, flops)


def frame_count(seconds: float) -> int:
    """Frames of 25 ms every 10 ms that lie within a clip."""
    return 1 + (round(seconds * RATE) - FRAME) // SHIFT


@dataclass(frozen=True)
class Advice:
    """Which part holds the others up, what each could do (clips/s), and data.threads."""

    bottleneck: str
    rates: Mapping[str, float]
    threads: int
    text: str


def advise(read: float, front: float, step: float, shared: bool, cores: int) -> Advice:
    """From microseconds a clip of one reader thread, the front end and the step.

    `shared`: front end and step run on the same cores, so their times add up. Reader threads: enough for a quarter
    more than what they feed, at least one, never more than the cores.
    """
    rates = {"reader": 1e6 / read, "front end": 1e6 / front, "model": 1e6 / step}
    fed = 1e6 / (front + step) if shared else min(rates["front end"], rates["model"])
    threads = min(max(1, math.ceil(1.25 * fed / rates["reader"])), max(1, cores))
    whole = {**rates, "reader": rates["reader"] * threads}
    bottleneck = min(whole, key=lambda name: whole[name])
    each = ", ".join(f"{name} {value:,.0f}" for name, value in rates.items())
    text = f"clips/s that each could do alone (the reader: a thread): {each}; the {bottleneck} holds the others up"
    if shared:
        text += f" (front end and model share the cores: {fed:,.0f} together)"
    return Advice(bottleneck, rates, threads, f"{text}; data.threads={threads}")
