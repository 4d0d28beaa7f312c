"""What a run that was disturbed must share with one that was not: everything, bit for bit."""

from typing import Any

import torch
from launches import Run


def same(one: Any, other: Any, where: str = "checkpoint") -> None:
    """Equal bit for bit, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


def assert_same_end(run: Run, undisturbed: Run) -> None:
    """Weights, moments, average, progress, every number in the metrics, the score."""
    before, after = undisturbed.last(), run.last()
    for name in ("step", "progress", "sums", "classes"):
        same(after[name], before[name], name)
    for name in ("step", "loss", "accuracy", "lr", "stream", "grad_norm", "consumed"):
        assert run.column(name) == undisturbed.column(name)
    assert run.column("step") == list(range(1, len(undisturbed.metrics()) + 1))  # none twice, none missing
    assert run.metrics("eval") == undisturbed.metrics("eval")
    assert run.result() == undisturbed.result()
