"""What was heard -> lines for people, objects for programs, and the level meter."""

from datetime import datetime
from typing import Any

import numpy as np

from dist_train.live.level import FLOOR, Meter
from dist_train.live.listener import Event
from dist_train.live.session import Session

LOW = -60.0  # dBFS where the shown scale begins


def clock(seconds: float) -> str:
    """`0:01:07.50`."""
    hundredths = round(seconds * 100)
    return f"{hundredths // 360000}:{hundredths // 6000 % 60:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def likeliest(event: Event, classes: tuple[str, ...], count: int) -> list[tuple[str, float]]:
    """The classes that the window holds most likely, the likeliest first; none in silence."""
    if event.probability_C is None:
        return []
    order = np.argsort(-event.probability_C, kind="stable")[:count]
    return [(classes[number], float(event.probability_C[number])) for number in order.tolist()]


def text(event: Event, classes: tuple[str, ...], top: int) -> str:
    """One line."""
    when = clock(event.end)
    if event.kind == "skipped":
        return f"fell behind: {event.count} windows from {clock(event.start)} to {when} were skipped"
    if event.kind == "lost":
        return f"fell behind: the sound from {clock(event.start)} to {when} was lost"
    if event.kind == "overrun":
        return f"overrun: the device lost sound near {when}"
    others = [f"{name} {probability:.2f}" for name, probability in likeliest(event, classes, top)]
    if event.kind == "window":
        return f"{when}    ({', '.join(others) or 'silence'})"
    assert event.number is not None and event.probability is not None
    said = f"{when}  {classes[event.number]}  {event.probability:.2f}"
    return f"{said}  ({', '.join(others)})" if top > 1 else said


def record(event: Event, classes: tuple[str, ...], top: int, wall: datetime) -> dict[str, Any]:
    """One object: seconds of the stream, the time by the clock at its end, and what belongs to its kind."""
    made: dict[str, Any] = {
        "kind": event.kind,
        "start": round(event.start, 3),
        "end": round(event.end, 3),
        "time": wall.isoformat(timespec="milliseconds"),
    }
    if event.number is not None and event.probability is not None:
        made |= {"label": classes[event.number], "probability": round(event.probability, 6)}
    if event.kind in ("label", "window"):
        found = likeliest(event, classes, max(top, 1))
        made["top"] = [{"label": name, "probability": round(probability, 6)} for name, probability in found]
    if event.level is not None:
        made["level"] = round(event.level, 1)
    if event.kind in ("skipped", "overrun"):
        made["count"] = event.count
    return made


def summary(session: Session, busy: float, counts: dict[str, int]) -> str:
    """The last line: how much was heard, and what. `busy`: seconds that it took."""
    seconds = session.listener.end
    labels = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
    skipped = f", {session.listener.skipped} windows skipped" if session.listener.skipped else ""
    if seconds <= 0:
        return f"nothing was heard: {session.source.name} gave no sound; is what feeds it running?"
    return f"{seconds:.1f} s heard, real-time factor {busy / seconds:.3f}{skipped}; labels: {labels}"


def total(session: Session, busy: float, counts: dict[str, int]) -> dict[str, Any]:
    """The same as an object."""
    seconds = session.listener.end
    return {
        "kind": "summary",
        "seconds": round(seconds, 3),
        "real_time_factor": round(busy / seconds, 4) if seconds > 0 else None,
        "labels": counts,
        "windows": session.listener.windows,
        "skipped": session.listener.skipped,
        "lost": round(session.lost / session.source.rate, 3),
        "overruns": session.overruns,
    }


def bar(meter: Meter, width: int) -> str:
    """`-34 dB ########----|-----  peak -12 dB`: RMS as a bar, the peak as a mark on the same scale."""
    full = round(_place(meter.rms) * width)
    mark = min(width - 1, round(_place(meter.peak) * width))
    cells = ["█" if place < full else "·" for place in range(width)]
    if meter.peak > LOW:
        cells[mark] = "|"
    clipped = f"  clipped {meter.clipped}" if meter.clipped else ""
    return f"{_said(meter.rms)} dB {''.join(cells)} peak {_said(meter.peak)} dB{clipped}"


def _place(decibels: float) -> float:
    return min(1.0, max(0.0, 1 - decibels / LOW))


def _said(decibels: float) -> str:
    return " -inf" if decibels <= FLOOR else f"{decibels:5.1f}"
