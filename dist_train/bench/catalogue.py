"""All measurements by name, `group/what`, and which of them patterns choose."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch

from dist_train.bench import chain, fbank, gpu, length, reading, roofline, scale, toolkit, training, whole
from dist_train.bench.row import Row, Work

Measure = Callable[[Work], list[Row]]

MEASUREMENTS: dict[str, Measure] = {
    "read/96 KB": reading.large,
    "read/6 KB": reading.small,
    "read/hand-over": reading.hand_over,
    "fbank/speed": fbank.speed,
    "fbank/accuracy": fbank.accuracy,
    "chain/wav": chain.wav,
    "chain/noise": chain.sounds,
    "chain/8 kHz": chain.low_rate,
    "chain/decoding": chain.decoding,
    "chain/prepared": chain.prepared,
    "speechbrain/fbank": toolkit.features,
    "speechbrain/speed": toolkit.speed,
    **training.STEPS,
    "whole/training": whole.training_run,
    "whole/recipe": whole.recipe,
    "linear/1": length.one_pass(1),
    "linear/10": length.one_pass(length.TIMES),
    "roofline/stages": roofline.floors,
    **scale.MEASUREMENTS,
    **gpu.MEASUREMENTS,
}
TWICE, TWICE_QUICK = "chain", "chain/wav"  # measured with both allocator settings


def group(name: str) -> str:
    """The part before the slash."""
    return name.partition("/")[0]


def names() -> list[str]:
    """What can be measured on this machine."""
    cuda = torch.cuda.is_available()
    return [name for name in MEASUREMENTS if cuda or group(name) != "gpu"]


def choose(patterns: Sequence[str]) -> list[str]:
    """The names that a pattern fits: a group, a part of a name, or shell wildcards; none given: all.

    ValueError for a pattern that fits none.
    """
    if not patterns:
        return names()
    chosen: set[str] = set()
    for pattern in patterns:
        wanted = pattern.lower()
        fit = {name for name in names() if wanted in name.lower() or fnmatchcase(name.lower(), wanted)}
        if not fit:
            groups = ", ".join(dict.fromkeys(map(group, names())))
            raise ValueError(f"nothing to measure is called {pattern!r}: give a group ({groups}) or a name of --list")
        chosen |= fit
    if any(group(name) == "linear" for name in chosen):  # a size alone says nothing
        chosen |= {"linear/1", f"linear/{length.TIMES}"}
    return [name for name in names() if name in chosen]
