"""Pages of runs for tests/test_report_browser.py, and what each must hold."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from launches import Run

from dist_train import config, scored
from dist_train.report import content
from dist_train.report.page import render
from dist_train.scored import Scored

HOSTILE = ("<script>window.bad = 1</script>", "مطر غزير", "雨 & \"'", "b2 <img src=x onerror='window.bad=1'>")


@dataclass(frozen=True)
class Page:
    """A page and what it must hold: names of classes, cards of mistakes, epochs."""

    file: Path
    names: tuple[str, ...]
    cards: int
    epochs: int


def hostile(finished: Run, folder: Path) -> Page:
    """A run with names of any kind and mistakes of several kinds."""
    shutil.copytree(finished.folder, folder)
    was = scored.read(folder)
    probability_NC = np.full((20, 4), 0.1)
    guess_N = (was.truth + np.arange(20) % 3) % 4
    probability_NC[np.arange(20), guess_N] = 0.7
    scored.write(folder / "scores.npz", Scored(was.keys, HOSTILE, was.truth, probability_NC, was.bad))
    return Page(_written(folder), HOSTILE, cards=13, epochs=3)  # two of three in turn are wrong


def real(run: Path, folder: Path) -> Page:
    """A run as it is."""
    shutil.copytree(run, folder)
    was = scored.read(folder)
    wrong = int((was.probability_NC.argmax(1) != was.truth).sum())
    epochs = config.load(folder / "config.yaml").run.epochs
    assert epochs is not None
    return Page(_written(folder), tuple(was.classes), min(wrong, content.Options().mistakes), int(epochs))


def _written(folder: Path) -> Path:
    text = render(content.gather(folder, content.Options(), _silent))
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


@contextmanager
def _silent(name: str) -> Iterator[Any]:
    yield lambda done, total: None
