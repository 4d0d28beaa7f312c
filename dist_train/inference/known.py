"""RUN/unknown.json -> the probability under which a guess is unknown."""

import json
from pathlib import Path


def threshold(run: Path) -> float | None:
    """None where the run has none. ValueError: a file that is none."""
    path = run / "unknown.json"
    if not path.is_file():
        return None
    try:
        found = float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    except (ValueError, KeyError, TypeError):
        found = -1.0
    if not 0 <= found <= 1:
        raise ValueError(f"{path}: holds no threshold from 0 to 1; choose it again, or delete the file")
    return found
