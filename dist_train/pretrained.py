"""`model.pretrained` and a fresh model -> the weights that it starts from, and a report of what matched.

file -> names as ours (models.from_reference) -> head dropped or kept -> shapes compared -> at least 90 % of the floats
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dist_train import models, weights
from dist_train.models.reference import RULES
from dist_train.settings import Config
from dist_train.systems import TITLES, systems, trained_with, warning
from dist_train.weights import Weights

LEAST = 0.9  # share of the network's floats, its head aside
_HEADS = ("head", "fc_audioset", "projection")  # ours, PANNs' of AudioSet, WeSpeaker's cosines
_ASIDE = ("projection.", "classifier.", "frontend.", "spectrogram_extractor.", "logmel_extractor.", "mean_var_norm")
_SHOWN = 4


@dataclass
class Report:
    """What of a file's weights went into the network. Names are ours; shapes are theirs and ours."""

    path: str
    origin: str
    share: float = 0.0
    averaged: bool = False
    head: str = "fresh"
    matched: list[str] = field(default_factory=list)
    zeroed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    reshaped: dict[str, list[list[int]]] = field(default_factory=dict)
    warning: str | None = None

    def plain(self) -> dict[str, Any]:
        """What pretrained.json holds."""
        return asdict(self)

    def text(self) -> str:
        """One line for the log."""
        parts = [f"{len(self.matched)} tensors matched ({self.share:.1%} of the network without its head)"]
        parts += [f"{len(self.zeroed)} biases that it lacks are zero"] if self.zeroed else []
        parts += [f"{len(self.missing)} missing: {_first(self.missing)}"] if self.missing else []
        parts += [f"{len(self.unexpected)} unexpected: {_first(self.unexpected)}"] if self.unexpected else []
        parts += [f"{len(self.reshaped)} of another shape: {_first(_shapes(self.reshaped))}"] if self.reshaped else []
        average = ", moving average" if self.averaged else ""
        return f"starts from {self.path} ({self.origin}{average}): {'; '.join(parts)}; head {self.head}"


def begin(config: Config, model: nn.Module, classes: Sequence[str]) -> tuple[dict[str, Tensor], Report]:
    """Tensors by the model's names, to load non-strictly, and what became of the file's.

    Errors: `ValueError` where the file cannot be read, is of another network, or has no head of these classes to keep.
    """
    assert config.model.pretrained is not None
    found = weights.read(config.model.pretrained)
    ours = model.state_dict()
    state, report = _named(found, config, model)
    chosen: dict[str, Tensor] = {}
    if config.model.pretrained_head == "keep":
        chosen = _head(found, state, ours, classes)
        report.head = "kept"
    body = {name: value for name, value in ours.items() if not name.startswith("head.")}
    for name, value in state.items():
        if name.startswith(("head.", *_ASIDE)):
            report.left_out.append(name)
        elif name not in body:
            report.unexpected.append(name)
        elif value.shape != body[name].shape:
            report.reshaped[name] = [list(value.shape), list(body[name].shape)]
        else:
            chosen[name] = value
            report.matched.append(name)
    absent = [name for name in body if name not in chosen and name not in report.reshaped]
    report.zeroed = [name for name in absent if _official_panns(config.model.name, name)]
    chosen |= {name: torch.zeros(body[name].shape) for name in report.zeroed}
    report.missing = [n for n in absent if n not in report.zeroed and not n.endswith("num_batches_tracked")]
    _check(report, found, model, chosen, config)
    return chosen, report


def _named(found: Weights, config: Config, model: nn.Module) -> tuple[dict[str, Tensor], Report]:
    """The file's tensors by our names, and a report that knows where they are from."""
    if found.config is not None:
        theirs = found.config["model"]["name"]
        if theirs != config.model.name:
            raise ValueError(
                f"{found.path}: holds weights of {theirs}, and model.name is {config.model.name}; give the same"
            )
        state, averaged = _averaged(found, model)
        report = Report(str(found.path), TITLES["dist_train"], averaged=averaged)
        report.warning = warning(("dist_train",), config, trained_with(found.config))
        return state, report
    known = model.state_dict().keys()
    renamed = _ours(config.model.name, found.state)
    if len(known & found.state.keys()) > len(known & renamed.keys()):
        return found.state, Report(str(found.path), "names of dist_train")
    whose = systems(config.model.name, found.state.keys(), found.path.name)
    report = Report(str(found.path), " or ".join(TITLES[system] for system in whose) or "reference names")
    report.warning = warning(whose, config)
    return renamed, report


def _averaged(found: Weights, model: nn.Module) -> tuple[dict[str, Tensor], bool]:
    """The state with the moving average in the place of the weights, where there is one."""
    if found.average is None:
        return found.state, False
    names = [name for name, _ in model.named_parameters()]
    names += [name for name, buffer in model.named_buffers() if buffer.is_floating_point()]
    state = dict(found.state)
    if len(names) != len(found.average) or any(
        name in state and state[name].shape != value.shape for name, value in zip(names, found.average, strict=True)
    ):
        raise ValueError(f"{found.path}: its moving average is of another network; give the sizes of that one")
    state |= {name: value for name, value in zip(names, found.average, strict=True) if name in state}
    return state, True


def _head(
    found: Weights, state: dict[str, Tensor], ours: dict[str, Tensor], classes: Sequence[str]
) -> dict[str, Tensor]:
    """Their classifier's rows in the order of our classes: by name where they have names, else as they are."""
    advice = "set model.pretrained_head=drop"
    source = next((name for name in _HEADS if f"{name}.weight" in state), None)
    if source is None:
        raise ValueError(f"{found.path}: holds no classifier to keep; {advice}")
    wanted = {name: value.shape for name, value in ours.items() if name.startswith("head.")}
    theirs = {f"head.{part}": state[f"{source}.{part}"] for part in ("weight", "bias") if f"{source}.{part}" in state}
    if found.classes:
        if absent := [name for name in classes if name not in found.classes]:
            raise ValueError(f"{found.path}: class {absent[0]!r} is not among its {len(found.classes)}; {advice}")
        order = [found.classes.index(name) for name in classes]
        theirs = {name: value[order] for name, value in theirs.items() if len(value) == len(found.classes)}
    for name, shape in wanted.items():
        if name not in theirs or theirs[name].shape != shape:
            there = list(theirs[name].shape) if name in theirs else "not"
            raise ValueError(f"{found.path}: its classifier's {name} is {there} there, {list(shape)} here; {advice}")
    return {name: theirs[name] for name in wanted}


def _official_panns(architecture: str, name: str) -> bool:
    """A bias of a convolution, which PANNs' own networks do not have; a norm follows it."""
    return architecture in ("cnn6", "cnn10", "cnn14") and ".conv" in name and name.endswith(".bias")


def _check(report: Report, found: Weights, model: nn.Module, chosen: dict[str, Tensor], config: Config) -> None:
    """Errors: `ValueError` where too little matched, or a value is not finite."""
    idle = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    sizes = {
        name: value.numel()
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not name.startswith("head.") and name not in idle
    }
    report.share = sum(size for name, size in sizes.items() if name in chosen) / sum(sizes.values())
    if report.share < LEAST:
        raise ValueError(
            f"{found.path}: holds {report.share:.0%} of this {config.model.name} ({LEAST:.0%} are needed): "
            f"{len(report.missing)} missing ({_first(report.missing)}), {len(report.unexpected)} unexpected "
            f"({_first(report.unexpected)}), {len(report.reshaped)} of another shape "
            f"({_first(_shapes(report.reshaped))}); {_advice(found, report, config)}"
        )
    for name, value in chosen.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{found.path}: {name} holds values that are not finite; give another checkpoint")


def _advice(found: Weights, report: Report, config: Config) -> str:
    """What to change: the sizes, or the architecture, whose names are then looked for in all of them."""
    if len(report.reshaped) > len(report.missing):
        return "give the sizes of that network (model.channels, model.embedding, features.bins)"
    if len(report.matched) > len(report.missing):
        return "give the whole of it"
    for name in models.ARCHITECTURES:
        known = _names(name)
        if len(known & _ours(name, found.state).keys()) > len(known) / 2:
            return f"its names are those of model.name={name}"
    return "give the network that it was made from"


def _ours(architecture: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Another system's tensors by our names, where it has this architecture."""
    return models.from_reference(architecture, state) if architecture in RULES else state


def _names(architecture: str) -> set[str]:
    """Of the tensors of an architecture of its own sizes."""
    for bins in (80, 1):  # M5 hears samples
        with suppress(ValueError), torch.device("meta"):
            return set(models.build(architecture, bins, 10).state_dict())
    return set()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "") or "none"


def _shapes(reshaped: dict[str, list[list[int]]]) -> list[str]:
    return [f"{name} {theirs} there, {ours} here" for name, (theirs, ours) in reshaped.items()]
