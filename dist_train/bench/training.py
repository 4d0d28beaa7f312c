"""One training step of each network: ours beside the same network of macls, same input, optimizer, precision, device.

Ours clips the gradient, keeps BatchNorm statistics equal over groups and guards against non-finite steps; theirs is
forward, loss, backward, optimizer.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dist_train import config, models, parts
from dist_train.bench import peer, roof
from dist_train.bench.pair import Side, paired, reason
from dist_train.bench.row import ABSENT, Row, Work, rate
from dist_train.frontend import FrontBatch
from dist_train.settings import Config
from dist_train.step import Step
from dist_train.world import Place, World

BINS, CLASSES = 80, 50
OURS = tuple(name for name in models.ARCHITECTURES if name != "m5")  # which wants samples, not features
FIRST = ("ecapa", "campplus", "eres2net")  # the others on a CPU in fewer and smaller steps, with `quick` not at all
TWINS = {
    "ecapa": "EcapaTdnn",
    "campplus": "CAMPPlus",
    "eres2net": "ERes2Net",
    "eres2netv2": "ERes2NetV2",
    "tdnn": "TDNN",
    "res2net": "Res2Net",
    "resnet_se": "ResNetSE",
    "cnn6": "PANNS_CNN6",
    "cnn10": "PANNS_CNN10",
    "cnn14": "PANNS_CNN14",
}
"""Our name -> macls' class, where it has the same network."""
SIZES: dict[str, dict[str, Any]] = {"eres2netv2": {"channels": 32}}  # macls' where ours are others
PEER_GOALS = {"ecapa": 3.0, "cnn10": 3.0, "tdnn": 8.0, "eres2net": 1.5}  # whole training, GPU


def world(device: torch.device) -> World:
    """This process alone."""
    return World(Place(), device, "gloo", torch.get_num_threads())


def configuration(name: str, rows: int, **other: Any) -> Config:
    """One group a step, AdamW."""
    model = {"name": name, **SIZES.get(name, {})}
    return config.check({"model": model, "data": {"batch_size": rows, "micro_batch": rows}, **other}, "bench")


def batch(rows: int, frames: int, device: torch.device) -> FrontBatch:
    """Features that stay on the device."""
    generator = torch.Generator().manual_seed(0)
    feat_BTF = torch.randn(rows, frames, BINS, generator=generator).to(device)
    label_B = torch.randint(CLASSES, (rows,), generator=generator).to(device)
    ones_B, row_B = torch.ones(rows, device=device), torch.arange(rows, device=device)
    return FrontBatch(feat_BTF, None, label_B, ones_B, row_B, ones_B, feat_BTF[:, :, 0])


def ours(settings: Config, given: FrontBatch, device: torch.device) -> tuple[Side, nn.Module]:
    """A call is one step; the first one primes it too: what compiles, compiles there."""
    here = world(device)
    model = parts.network(settings, BINS, CLASSES, here, torch.float32)
    step = Step(model, settings, here, parts.precision(settings, here), (given.feat_BTF.shape[1], BINS))
    rows, primed = len(given.label_B), False

    def run() -> None:
        nonlocal primed
        if not primed:
            step.prime(rows)
            primed = True
        step.run([given], [0], rows, 1, 1e-3)

    return run, model


def macls(name: str, given: FrontBatch, device: torch.device, half: torch.dtype | None) -> tuple[Side | None, str]:
    """The same of macls; None where it is not installed or has no such network."""
    module, version = peer.take("macls.models")
    if version == ABSENT or not hasattr(module, TWINS.get(name, "")):
        return None, version
    model = getattr(module, TWINS[name])(num_class=CLASSES, input_size=BINS).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    scaler = torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)

    def run() -> None:
        with scaler:
            loss = nn.functional.cross_entropy(model(given.feat_BTF), given.label_B)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return run, version


def flops(model: nn.Module, frames: int, device: torch.device) -> float:
    """Of the forward and backward pass of one clip: multiplications and additions of convolutions and products."""
    was = model.training
    feat_BTF = torch.randn(2, frames, BINS, device=device)
    with FlopCounterMode(display=False) as counter:
        model.train().forward(feat_BTF, None).sum().backward()
    model.zero_grad(set_to_none=True)
    model.train(was)
    return float(counter.get_total_flops()) / 2


def variants(work: Work) -> dict[str, dict[str, Any]]:
    """Settings of the steps that are measured; compiling takes minutes on a CPU."""
    found: dict[str, dict[str, Any]] = {"eager": {}}
    if work.full or work.device.type == "cuda":
        found["compiled"] = {"compile": True}
    if work.device.type == "cuda":
        found["graphs"] = {"compile": True, "graphs": True}
    return found


def step(name: str) -> Callable[[Work], list[Row]]:
    """The measurement of one network."""

    def measure(work: Work) -> list[Row]:
        device, first = work.device, name in FIRST
        if work.quick and not first:
            return []
        rows, frames = (64, 298) if device.type == "cuda" else (work.size(8 if first else 4, 2), work.size(298, 98))
        times = work.times if device.type == "cuda" else min(work.times, work.size(5 if first else 3, 1))
        given = batch(rows, frames, device)
        half = parts.precision(configuration(name, rows), world(device))
        theirs, version = macls(name, given, device, half)
        found: list[Row] = []
        for label, other in variants(work).items():
            try:
                side, model = ours(configuration(name, rows, **other), given, device)
            except ValueError as error:  # no compiler, or settings that do not go together
                found.append(Row("step", f"{name}, {label}", "clips/s", note=reason(error)))
                continue
            cost = flops(model, frames, device) if label == "eager" else found[0].more["flops a clip"]
            pair = paired(side, theirs, times)
            found.append(_row(name, label, pair, rows, cost, version, device, half, f"{rows} x {frames} frames"))
        return found

    return measure


def _row(
    name: str, label: str, pair: Any, rows: int, cost: float, version: str, device: torch.device, half: Any, shape: str
) -> Row:
    more: dict[str, Any] = {"flops a clip": cost}
    note = f"{device.type}, {half or 'fp32'}, {shape}".replace("torch.", "")
    if pair.ours_seconds:
        clips = rows / pair.ours_seconds
        more["TFLOP/s"] = clips * cost / 1e12
        note += f"; {clips * cost / 1e9:.0f} GFLOP/s"
        shares = roof.shares(name, clips, roof.gpu(torch.cuda.get_device_name(device))) if device.type == "cuda" else {}
        more |= shares
        note += "".join(f"; {share:.0%} of the {which} roof" for which, share in shares.items())
    if name not in TWINS and version != ABSENT:
        note += "; macls has no such network"
    return rate("step", f"{name}, {label}", pair, rows, "clips/s", peer="macls", version=version, note=note, more=more)


STEPS = {f"step/{name}": step(name) for name in OURS}
