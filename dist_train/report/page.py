"""Content -> one HTML file that loads nothing. All text goes through the template engine's escaping.

The policy in its head allows the one style and the one script of the page by their hashes, and pictures and sounds that
lie in the page; so a class called `<script>` is harmless twice over.
"""

import base64
import hashlib
import math
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from dist_train.report import facts, measures
from dist_train.report.content import Content
from dist_train.scoring.calibration import Bin

_TEMPLATES = Path(__file__).parent / "template"


@dataclass(frozen=True)
class Tile:
    """A figure in big letters."""

    name: str
    value: str
    more: str


def render(page: Content) -> str:
    """The page's text; what is no Unicode (bytes in a key) is replaced."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    loader = FileSystemLoader(_TEMPLATES)
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    made = engine.get_template("page.html").render(
        page=page,
        style=Markup(style),  # ours, and no other's text is in it
        script=Markup(script),
        policy=policy,
        **_words(page),
    )
    return made.encode("utf-8", "replace").decode("utf-8").lstrip()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _words(page: Content) -> dict[str, Any]:
    """What the templates say in sentences."""
    main = next((one for one in page.metrics if one.main), None)
    return {
        "version": _version(),
        "lead": _lead(page),
        "sections": _sections(page),
        "tiles": _tiles(page),
        "main_title": main.title if main else "Score",
        "metrics_said": _metrics(page),
        "folds_said": _folds(page),
        "heard_said": "" if page.unheard or not page.mistakes else "Hear them, and judge.",
        "mistaken": _mistaken(page),
        "with_spans": any(row.span is not None for row in page.rows),
        "with_ap": any(row.average_precision is not None for row in page.rows),
        "reliability": _reliability(page),
        "score": score,
        "duration": facts.duration,
    }


def score(value: float | None) -> str:
    """A figure as a reader compares it: four digits."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}"


def _lead(page: Content) -> str:
    run = page.folder.runs[0]
    network = dict(page.model).get("Network", "")
    trained = f"{network}, trained on {dict(page.data).get('Trained on', ', '.join(run.config.data.shards))}."
    main = next((one for one in page.metrics if one.main), None)
    if page.folds and "mean" in page.summary:
        return f"{trained} {_folds(page)}"
    if main is None:
        return trained
    clips = f" on {len(page.scored.keys):,} clips that were held out" if page.scored is not None else ""
    between = f" (95 % interval {score(main.low)} to {score(main.high)})" if main.low is not None else ""
    return f"{trained} {main.title[:1].upper()}{main.title[1:]} {score(main.value)}{between}{clips}."


def _folds(page: Content) -> str:
    summary = page.summary
    if "mean" not in summary:
        return ""
    title = measures.words(str(summary.get("metric", "score")), page.several)[0]
    seeds, folds = len(summary.get("seed_means") or [1]), len(summary.get("folds") or [])
    said = f"Mean {title} of {folds} folds" + (f" and {seeds} seeds" if seeds > 1 else "")
    said += f": {score(summary['mean'])}"
    if (spread := summary.get("deviation_over_folds")) is not None:
        said += f", deviation over folds {score(spread)}"
    if between := summary.get("interval_over_seeds"):
        said += f", 95 % interval over seeds {score(between[0])} to {score(between[1])}"
    return said + "."


def _metrics(page: Content) -> str:
    if page.scored is None:
        return "As the run wrote them down; without its scores there are no intervals."
    what = "the clips of all folds, each scored once" if page.folds else "the final model on the held-out clips"
    return (
        f"Of {what}. Intervals are by bootstrap; few clips overstate the calibration error, so its interval may lie "
        "below it."
    )


def _sections(page: Content) -> list[tuple[str, str]]:
    there = [
        ("summary", "Summary", True),
        ("folds", "Folds", bool(page.folds)),
        ("metrics", "Metrics", bool(page.metrics)),
        ("learning", "Learning", bool(page.learning)),
        ("confusion", "Confusion", page.matrix is not None),
        ("classes", "Classes", bool(page.rows)),
        ("mistakes", "Mistakes", page.scored is not None),
        ("map", "Map", page.plane is not None or bool(page.plane_note)),
        ("speed", "Speed", bool(page.speed)),
        ("repeat", "Repeat it", True),
    ]
    return [(anchor, name) for anchor, name, shown in there if shown]


def _tiles(page: Content) -> list[Tile]:
    made = []
    summary = page.summary
    if "mean" in summary:
        title = measures.words(str(summary.get("metric", "score")), page.several)[0]
        made.append(Tile(f"mean {title}", score(summary["mean"]), f"{len(page.folds)} runs"))
    for one in page.metrics[: 3 if made else 4]:
        more = f"{score(one.low)} to {score(one.high)}" if one.low is not None else ""
        made.append(Tile(one.title + (", pooled" if page.folds else ""), score(one.value), more))
    if page.rate is not None:
        wait = f"{100 * page.rate[1]:.1f} % waiting for data"
        made.append(Tile("clips a second", f"{page.rate[0]:,.0f}", wait))
    return made


def _mistaken(page: Content) -> list[tuple[int, str]]:
    """Classes that mistakes are of."""
    if page.scored is None:
        return []
    numbers = {number for one in page.mistakes for number in one.mistake.truth}
    return [(number, page.scored.classes[number]) for number in sorted(numbers)]


def _reliability(page: Content) -> dict[str, Any] | None:
    found = page.reliability
    if found is None:
        return None
    most = max(one.cases for one in found.bins)
    if abs(found.over) < 0.005:
        said = "On average as sure as it is right."
    else:
        word = "surer" if found.over > 0 else "less sure"
        said = f"On average {100 * abs(found.over):.1f} points {word} than it is right."
    return {"said": said, "bins": [_bin(one, most) for one in found.bins]}


def _bin(one: Bin, most: int) -> dict[str, float]:
    return vars(one) | {"radius": round(2 + 4 * math.sqrt(one.cases / most), 1)}


def _version() -> str:
    try:
        return metadata.version("dist-train")
    except metadata.PackageNotFoundError:
        return ""
