"""A set of shards -> what it holds, in numbers: classes, folds, lengths, rates, levels, silence; and as tables.

All of it stands in the index. What only the samples tell (clipping, clips that cannot be decoded) is there when they
were heard: `deep`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.archive.row import CODECS, SEGMENTS, SPLITS
from dist_train.inspection import clipping, hearing
from dist_train.inspection.clipping import Peak
from dist_train.shards import ShardSet
from dist_train.sheet import Sheet, share

QUANTILES = (0, 5, 25, 50, 75, 95, 100)
SILENT_DB = -80.0  # RMS of a clip that counts as silent, dBFS
QUIET = 255 * 10 ** (-40 / 20)  # activity of a sixteenth that is 40 dB under the clip's loudest
NAMED = 10
SHOWN = 60  # classes of a table

Numbers = dict[str, Any]


def measure(one: ShardSet, heard: Iterable[Peak | str] | None = None) -> Numbers:
    """The numbers of a set; heard: of each row its peak, or why it cannot be decoded."""
    rows = one.rows
    seconds = rows["frames"] / rows["rate"]
    found: Numbers = {
        "samples": len(rows),
        "hours": float(seconds.sum()) / 3600,
        "shards": len(one.names),
        "bytes": sum(shard["bytes"] for shard in one.info["shards"]),
        "groups": len(np.unique(rows["group"][rows["group"] > 0])),
        "classes": _classes(one, seconds),
        "folds": {str(key): count for key, count in _counts(rows["fold"]).items() if key >= 0},
        "splits": {name: n for name, key in SPLITS.items() if key and (n := int((rows["split"] == key).sum()))},
        "seconds": _quantiles(seconds),
        "codecs": {CODECS(key).name.lower(): count for key, count in _counts(rows["codec"]).items()},
        "equal_bytes": len(rows) - len(np.unique(rows["digest"])),
    }
    if features := one.info.get("features"):
        return found | {"features": {name: features[name] for name in ("bins", "channels", "rate")}}
    level = 20 * np.log10(np.maximum(rows["rms"].astype(np.float64), 1e-10))
    found["rates"] = {str(key): count for key, count in _counts(rows["rate"]).items()}
    found["channels"] = {str(key): count for key, count in _counts(rows["channels"]).items()}
    found["level_db"] = _quantiles(level)
    found["silent"] = int((level < SILENT_DB).sum())
    found["silence_share"] = _silence(one, seconds)
    return found if heard is None else found | _heard(heard)


def deep(one: ShardSet, progress: Callable[[int, int], None] | None = None) -> Numbers:
    """`measure` with every sample heard."""
    if "features" in one.info:
        raise ValueError(f"{one.root}: holds features, not audio: there is nothing to hear; leave --deep out")
    return measure(one, hearing.hear(one, range(len(one)), clipping.measure, progress))


def _counts(column: NDArray[Any]) -> dict[int, int]:
    return dict(zip(*(part.tolist() for part in np.unique(column, return_counts=True)), strict=True))


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {str(q): round(float(v), 3) for q, v in zip(QUANTILES, np.percentile(values, QUANTILES), strict=True)}


def _classes(one: ShardSet, seconds: NDArray[np.float64]) -> dict[str, Numbers]:
    """Samples and hours of each class; a sample with several labels counts for each."""
    if one.label_ends is None or one.label_ids is None:
        label, length = one.rows["label"], seconds
    else:
        label, length = np.asarray(one.label_ids), np.repeat(seconds, _lengths(one.label_ends))
    count = np.bincount(label, minlength=len(one.classes)).tolist()
    hours = (np.bincount(label, length, minlength=len(one.classes)) / 3600).tolist()
    return {name: {"samples": n, "hours": h} for name, n, h in zip(one.classes, count, hours, strict=True)}


def _lengths(ends: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (ends[1:] - ends[:-1]).astype(np.int64)


def _silence(one: ShardSet, seconds: NDArray[np.float64]) -> float:
    """Share of all time in sixteenths of clips that lie 40 dB under the loudest of their clip, or in silent clips."""
    quiet = 0.0
    for start in range(0, len(one), 1 << 20):
        part = slice(start, start + (1 << 20))
        below = np.where(one.rows["rms"][part] > 0, (one.activity[part] < QUIET).sum(1), SEGMENTS)
        quiet += float((below / SEGMENTS * seconds[part]).sum())
    return quiet / max(float(seconds.sum()), 1e-9)


def _heard(heard: Iterable[Peak | str]) -> Numbers:
    clipped, samples, bad, total = 0, 0, list[str](), Counter[str]()
    for peak in heard:
        if isinstance(peak, str):
            bad += [peak] if len(bad) < NAMED else []
            total["bad"] += 1
            continue
        clipped += peak.clipped > 0
        samples += peak.clipped
    return {"clipped": clipped, "clipped_samples": samples, "unreadable": total["bad"], "unreadable_named": bad}


def sheets(found: Numbers) -> list[Sheet]:
    """The numbers as tables."""
    total = found["samples"]
    rows = [("samples", f"{total}"), ("hours", f"{found['hours']:.2f}"), ("classes", f"{len(found['classes'])}")]
    rows += [
        ("shards", f"{found['shards']}, {found['bytes'] / 1e6:.1f} MB"),
        ("groups", f"{found['groups'] or 'none'}"),
    ]
    for name in ("folds", "splits", "rates", "channels", "codecs"):
        if name in found:
            rows.append((name, ", ".join(f"{key}: {count}" for key, count in found[name].items()) or "none"))
    if "features" in found:
        rows.append(("features", ", ".join(f"{key} {value}" for key, value in found["features"].items())))
    else:
        rows.append(("silent clips (under -80 dBFS)", share(found["silent"], total)))
        rows.append(("silence within clips (40 dB under their loudest)", f"{100 * found['silence_share']:.1f} %"))
        rows.append(("clipped", share(found["clipped"], total) if "clipped" in found else "not looked at (--deep)"))
    if found.get("unreadable"):
        rows.append(("cannot be decoded", f"{found['unreadable']}: {'; '.join(found['unreadable_named'])}"))
    rows.append(("copies (equal bytes)", f"{found['equal_bytes']}"))
    head = ("", *("least" if q == 0 else "most" if q == 100 else f"{q} %" for q in QUANTILES))
    spread = [("seconds", *(f"{value:g}" for value in found["seconds"].values()))]
    if "level_db" in found:
        spread.append(("level, dBFS", *(f"{value:.1f}" for value in found["level_db"].values())))
    ranked = sorted(found["classes"].items(), key=lambda item: -item[1]["samples"])
    shown = [(name, share(of["samples"], total), f"{of['hours']:.2f}") for name, of in ranked[:SHOWN]]
    more = f", the {SHOWN} largest of {len(ranked)}" if ranked[SHOWN:] else ""
    return [
        Sheet("what there is", ("", ""), rows),
        Sheet("spread", head, spread),
        Sheet(f"classes{more}", ("class", "samples", "hours"), shown),
    ]
