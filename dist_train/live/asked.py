"""What the command lines ask for -> a listener, a recording, checked before anything is opened.

In: options of tools/listen.py and tools/record.py, None where not given. Out: a ValueError that names the option.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any, Protocol

from dist_train.live.debounce import Probabilities, Rule
from dist_train.live.listener import Grid, Listener
from dist_train.live.pipe import FORMATS

_BOUNDS = (
    *(("rate", 1000, 768000), ("channels", 1, 64), ("seconds", 0.001, 1e9), ("hop", 0.001, 3600)),
    *(("threshold", 0, 1), ("smooth", 1, 1000), ("gone", 0, 1e9), ("gate", -200, 0)),
    *(("top", 1, 10000), ("action_seconds", 0.1, 86400), ("margin", 0, 60)),
)
_TAKES = (
    *(("rate", 1000, 768000), ("channels", 1, 64), ("sample_rate", 1000, 768000)),
    *(("takes", 1, 1e6), ("seconds", 0.05, 36000), ("countdown", 0, 3600), ("trigger", -120, 0), ("before", 0, 10)),
    *(("pause", 0.02, 60), ("quiet", -120, 0), ("retry", 0, 1e6)),
)

USUAL = {False: 0.35, True: 0.5}
"""Least probability where a run has none, by whether a sound may have several labels; measured in docs/live.md."""


class Model(Protocol):
    """What a listener needs of a trained network."""

    @property
    def sample_rate(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def several(self) -> bool: ...
    @property
    def threshold(self) -> float | None: ...
    @property
    def probabilities(self) -> Callable[[Any], Probabilities]: ...


def check(options: argparse.Namespace) -> None:
    """ValueError for what cannot be."""
    if options.run is None:
        raise ValueError("name the run that shall listen, e.g. runs/demo")
    if strange := [word for word in options.rest if word != "-" and "=" not in word]:
        raise ValueError(f"{strange[0]}: is neither `-` for stdin nor key=value; pipe a file in: - < {strange[0]}")
    piped = "-" in options.rest
    _source(options, piped)
    if options.live and not piped:
        raise ValueError("--live: is for sound on stdin; end the command with `-`")
    _within(options, _BOUNDS)


def check_recording(options: argparse.Namespace) -> None:
    """The same for tools/record.py."""
    _source(options, options.pipe is not None)
    if options.pipe is not None and options.countdown is not None:
        raise ValueError("--countdown: a pipe begins by itself; leave it out, or begin with --trigger")
    _within(options, _TAKES)


def _source(options: argparse.Namespace, piped: bool) -> None:
    if piped and options.device is not None:
        raise ValueError("--device: is for microphones; leave it out, or leave out `-`")
    if not piped and options.format is not None:
        raise ValueError("--format: is for sound on stdin; end the command with `-`")
    if options.format not in (None, "wav", *FORMATS):
        raise ValueError(f"--format {options.format}: is none of wav, {', '.join(FORMATS)}")


def _within(options: argparse.Namespace, bounds: tuple[tuple[str, float, float], ...]) -> None:
    for name, low, high in bounds:
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} {value:g}: is not from {low:g} to {high:g}")


def listener(model: Model, options: argparse.Namespace) -> Listener:
    """The listener that a model and options make. ValueError: a hop or hold that does not fit the window."""
    rate, window = model.sample_rate, max(1, round(model.seconds * model.sample_rate))
    hop = max(1, window // 4) if options.hop is None else round(options.hop * rate)
    if not 0 < hop <= window:
        raise ValueError(f"--hop {options.hop:g}: is not from a sample to a window, which has {model.seconds:g} s")
    hold = held(options.hold, hop / rate)
    gone = model.seconds / 2 if options.gone is None else options.gone
    known = USUAL[model.several] if model.threshold is None else model.threshold
    threshold = known if options.threshold is None else options.threshold
    keep = (hold - 1) * hop + math.ceil(2 * options.margin * rate)
    rule = Rule(model.several, threshold, options.smooth, hold, gone)
    return Listener(model.probabilities, Grid(rate, model.channels, window, hop, options.gate, keep), rule)


def held(text: str, hop: float) -> int:
    """Windows of `3` or `0.75s`; `hop`: seconds between windows."""
    try:
        windows = math.ceil(float(text[:-1]) / hop - 1e-6) if text.endswith("s") else int(text)
    except (ValueError, OverflowError):
        windows = 0
    if not 1 <= windows <= 1000:
        raise ValueError(f"--hold {text}: give windows, such as 3, or seconds, such as 0.75s; 1 to 1000 windows")
    return windows
