"""Scored clips -> the probability under which a guess is "unknown", so that what is kept has a wanted precision.

RUN/unknown.json: {"threshold", "precision" (wanted), "kept" (share of clips), "clips", "set", "reached", "optimistic"}.
Of several labels a clip's guess is its most probable one, and right if the clip has it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dist_train import disk
from dist_train.scored import Scored
from dist_train.scoring.figures import right

FILE = "unknown.json"


@dataclass(frozen=True)
class Unknown:
    """kept: share of readable clips whose guess is kept; reached: its precision there; set: what it was chosen on."""

    threshold: float
    precision: float
    kept: float
    clips: int
    set: str
    reached: float
    optimistic: bool


def choose(scored: Scored, precision: float, name: str, optimistic: bool) -> Unknown:
    """The lowest threshold at which the kept guesses have `precision`; `name`: of the set.

    Unreadable clips have no guess and do not count. ValueError: a precision that is none, or that none reaches.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"--unknown-precision {precision:g}: a precision lies between 0 and 1; give e.g. 0.95")
    confidence_N, right_N = scored.probability_NC.max(1)[~scored.bad], right(scored)[~scored.bad]
    if not len(right_N):
        raise ValueError(f"the {name} set has no clip that can be read; mend its shards")
    order = np.argsort(-confidence_N, kind="stable")
    last = np.append(np.flatnonzero(np.diff(confidence_N[order])), len(order) - 1)  # of equal ones, all or none
    levels, reached = confidence_N[order][last], np.cumsum(right_N[order])[last] / (last + 1)
    enough = np.flatnonzero(reached >= precision)
    if not len(enough):
        best = f"{reached.max():.4f}, by its surest {last[reached.argmax()] + 1} guesses"
        raise ValueError(
            f"no threshold has precision {precision:g} on {len(order)} clips of the {name} set; the best is {best}; "
            "give a lower one"
        )
    place = int(enough[-1])
    # between two probabilities that were seen: a last bit that another machine computes otherwise changes nothing
    under = float(levels[place] + levels[place + 1]) / 2 if place + 1 < len(levels) else 0.0
    kept = float((last[place] + 1) / len(order))
    return Unknown(under, precision, kept, len(order), name, float(reached[place]), optimistic)


def write(run: Path, found: Unknown) -> Path:
    """Write RUN/unknown.json, whole or not at all; its path."""
    disk.replace_json(run / FILE, asdict(found))
    return run / FILE


def read(run: Path) -> float | None:
    """The threshold of a run's folder; None where nobody chose one. ValueError: the file is damaged."""
    path = run / FILE
    try:
        threshold = json.loads(path.read_text(encoding="utf-8"))["threshold"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {_AGAIN}") from None
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ValueError(f"{path}: threshold {threshold!r} is no probability; {_AGAIN}")
    return float(threshold)


_AGAIN = "choose it again by tools/evaluate.py RUN --unknown-precision P, or remove the file"
