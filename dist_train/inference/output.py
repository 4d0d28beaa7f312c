"""Predictions and timelines -> text: JSON lines, CSV, Audacity's labels, tables."""

import json
from collections.abc import Sequence

from dist_train.inference.prediction import Prediction
from dist_train.inference.timeline import Timeline
from dist_train.sheet import Sheet, separated

SPANS = ("source", "start", "end", "label", "probability", "known")


def json_line(found: Prediction | Timeline) -> str:
    """One object on a line; numbers are whole, names in their own script."""
    return json.dumps(found.record(), ensure_ascii=False, allow_nan=False) + "\n"


def csv_head(timeline: bool, top: int) -> str:
    """The header of `csv_rows`."""
    more = [f"{name}_{number}" for number in range(2, top + 1) for name in ("label", "probability")]
    return separated([SPANS if timeline else ("source", "seconds", "said", "label", "probability", *more)])


def csv_rows(found: Prediction | Timeline) -> str:
    """A row a segment, or one row: what is said (`unknown`, or several labels joined by `;`), then the best guesses."""
    if isinstance(found, Timeline):
        rows = [[found.source, *vars(segment).values()] for segment in found]
        return separated([[str(value).lower() if isinstance(value, bool) else value for value in row] for row in rows])
    best = [value for pair in found.top for value in pair]
    return separated([[found.source, found.seconds, ";".join(found.labels) or found.said, *best]])


def labels(found: Timeline) -> str:
    """A label track of Audacity: start, end and label between tabs, a line a segment."""
    return "".join(f"{one.start:.6f}\t{one.end:.6f}\t{one.label}\n" for one in found)


def plain(found: Prediction | Timeline, top: int = 1) -> str:
    """Lines for a log or for awk, fields between tabs: what is said and its probability, then `top` guesses if many."""
    if isinstance(found, Timeline):
        return "".join(
            f"{found.source}\t{one.start:.2f}\t{one.end:.2f}\t{one.label}\t{one.probability:.3f}\n" for one in found
        )
    guesses = [f"\t{label}\t{value:.3f}" for label, value in found.top[:top]] if top > 1 else []
    return f"{found.source}\t{found.said}\t{found.probability:.3f}{''.join(guesses)}\n"


def sheet(found: Sequence[Prediction | Timeline]) -> Sheet:
    """A table for a terminal, of predictions or of timelines."""
    rows = list[tuple[str, ...]]()
    spans = any(isinstance(one, Timeline) for one in found)
    for one in found:
        if isinstance(one, Timeline):
            for span in one:
                times = f"{_clock(span.start)} - {_clock(span.end)}"
                rows.append((one.source, times, span.label, f"{span.probability:.3f}"))
            continue
        guesses = ", ".join(f"{label} {value:.3f}" for label, value in one.top)
        rows.append((one.source, one.said, f"{one.probability:.3f}", guesses))
    head = ("recording", "time", "label", "probability") if spans else ("recording", "label", "probability", "guesses")
    return Sheet("", head, rows)


def _clock(seconds: float) -> str:
    """1:02:03.40, 2:03.40."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02d}" if hours else f"{minutes}"
    return f"{f'{hours}:' if hours else ''}{text}:{rest / 100:05.2f}"
