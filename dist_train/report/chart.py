"""Numbers over a run -> the geometry of a line chart, and the same numbers as a table. Nothing here makes markup.

series --thinned to a few hundred points, with their range--> polylines in a box of WIDTH x HEIGHT units
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 360, 212
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 30
_POINTS = 240  # of a line; more are averaged, side by side
_ROWS = 24  # of the table beside
_DOTS = 40  # points up to which each is marked


@dataclass(frozen=True)
class Series:
    """A line: `y` (N,) over `x` (N,), NaN where there is nothing."""

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Line:
    """A series in the box. `band`: polygon of the range of what was averaged, or empty; `dots`: points to mark."""

    name: str
    style: int
    path: str
    band: str
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """What a template draws, and `head` and `rows` for those who do not see it. `points`: JSON for the read-out."""

    name: str
    title: str
    said: str
    x_label: str
    lines: list[Line]
    across: list[Tick]
    up: list[Tick]
    head: list[str]
    rows: list[list[str]]
    points: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def draw(
    name: str,
    title: str,
    series: Sequence[Series],
    x_label: str,
    form: Callable[[float], str],
    low: float | None = None,
    high: float | None = None,
) -> Chart | None:
    """A chart of the series that have a finite point; None where none has. `form`: a value as text; low, high: of y."""
    kept = [made for one in series if len((made := _finite(one)).x)]
    if not kept:
        return None
    thinned = [_thinned(one) for one in kept]
    xs, ys = np.concatenate([one.x for one in kept]), np.concatenate([values for _, *y in thinned for values in y])
    right, left = float(xs.max()), float(min(xs.min(), 0.0))
    across = ticks(left, right if right > left else left + 1)
    up = ticks(float(ys.min()) if low is None else low, float(ys.max()) if high is None else high)
    box = _Box(across[0], max(across[-1], right), up[0], up[-1])
    lines = [_line(one, number, part, box) for number, (one, part) in enumerate(zip(kept, thinned, strict=True))]
    return Chart(
        name,
        title,
        " ".join(_said(one, form) for one in kept[:12]) + (f" And {len(kept) - 12} more lines." * (len(kept) > 12)),
        x_label,
        lines,
        [Tick(box.x(at), f"{at:g}") for at in across if at <= box.right],
        [Tick(box.y(at), form(at)) for at in up],
        [x_label, *(one.name for one in kept)],
        _table(kept, form),
        json.dumps([_points(one, part, box, form) for one, part in zip(kept, thinned, strict=True)]),
    )


@dataclass(frozen=True)
class _Box:
    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(HEIGHT - BOTTOM - (inside - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM), 1)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers, evenly spaced by 1, 2 or 5 times a power of ten, that enclose [low, high]; 0 to 1 for [0, 0]."""
    if low == high == 0:
        high = 1.0
    elif not high > low:
        low, high = low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(number * step, digits) for number in range(first, last + 1)]


def _finite(one: Series) -> Series:
    good = np.isfinite(one.x) & np.isfinite(one.y)
    return Series(one.name, one.x[good], one.y[good])


def _thinned(one: Series) -> tuple[Floats, Floats, Floats, Floats]:
    """x, mean, least and most of at most _POINTS stretches of points."""
    if len(one.x) <= _POINTS:
        return one.x, one.y, one.y, one.y
    starts = np.arange(_POINTS) * len(one.x) // _POINTS
    counts = np.diff(starts, append=len(one.x))
    x, y = np.add.reduceat(one.x, starts) / counts, np.add.reduceat(one.y, starts) / counts
    return x, y, np.minimum.reduceat(one.y, starts), np.maximum.reduceat(one.y, starts)


def _line(one: Series, style: int, part: tuple[Floats, ...], box: _Box) -> Line:
    x, y, least, most = ([float(value) for value in values] for values in part)
    path = " ".join(f"{box.x(a):g},{box.y(b):g}" for a, b in zip(x, y, strict=True))
    band = ""
    if len(one.x) > _POINTS:
        there = [f"{box.x(a):g},{box.y(b):g}" for a, b in zip(x, most, strict=True)]
        back = [f"{box.x(a):g},{box.y(b):g}" for a, b in zip(x[::-1], least[::-1], strict=True)]
        band = " ".join(there + back)
    dots = [(box.x(a), box.y(b)) for a, b in zip(x, y, strict=True)] if len(x) <= _DOTS else []
    return Line(one.name, style, path, band, dots)


def _points(one: Series, part: tuple[Floats, ...], box: _Box, form: Callable[[float], str]) -> dict[str, object]:
    x, y = part[0].tolist(), part[1].tolist()
    return {
        "name": one.name,
        "x": [box.x(value) for value in x],
        "y": [box.y(value) for value in y],
        "at": [f"{value:.4g}" for value in x],
        "text": [form(value) for value in y],
    }


def _said(one: Series, form: Callable[[float], str]) -> str:
    first, last = form(float(one.y[0])), form(float(one.y[-1]))
    least, most = form(float(one.y.min())), form(float(one.y.max()))
    if len(one.y) == 1:
        return f"{one.name}: {last}."
    return f"{one.name}: from {first} to {last}, least {least}, most {most}."


def _table(kept: Sequence[Series], form: Callable[[float], str]) -> list[list[str]]:
    """A row at each x that a series has, the first and the last among at most _ROWS; empty where one has none."""
    places = np.unique(np.concatenate([one.x for one in kept]))
    if len(places) > _ROWS:
        ends = np.concatenate([one.x[[0, -1]] for one in kept[:4]])
        places = np.unique([*places[np.linspace(0, len(places) - 1, _ROWS - 4).round().astype(int)], *ends])
    found = [dict(zip(one.x.tolist(), one.y.tolist(), strict=True)) for one in kept]
    return [[f"{at:.4g}", *(form(one[at]) if at in one else "" for one in found)] for at in places.tolist()]
