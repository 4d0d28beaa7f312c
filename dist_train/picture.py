"""Pictures of results. In: a confusion matrix or features; out: matplotlib figures, their pixels, their PNG.

No pyplot: it keeps global state and looks for a screen. Names of classes are any text: `$` is no mathematics, and a
name that no installed font can write is shown as the number of its class, without a warning on the terminal.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor

from dist_train import lettering
from dist_train.lettering import names

mpl.set_loglevel("ERROR")  # else "building the font cache" and missing fonts land between the training's lines

_NUMBERED = 30  # classes up to which each cell has its count
_NAMED = 100  # classes up to which each row has its name


def confusion(matrix_CC: Tensor, classes: Sequence[str]) -> Figure:
    """Rows are the truth. Colour: share of the row; number: clips. `matrix_CC`: counts (C, C)."""
    counts = matrix_CC.cpu().double().numpy()
    count = len(classes)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(3.0, 0.3 * count), 20.0)
    figure = _figure(side + 2.5, side + 2.0)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.04, pad=0.02)
    step = 1 if count <= _NAMED else -(-count // 50)
    ticks, shown = range(0, count, step), names(classes)
    axes.set_xticks(ticks, [shown[number] for number in ticks], rotation=90, fontsize=8)
    axes.set_yticks(ticks, [shown[number] for number in ticks], fontsize=8)
    literal([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xlabel("guess")
    axes.set_ylabel("truth")
    axes.set_title(f"accuracy {np.trace(counts) / max(counts.sum(), 1):.4f} of {int(counts.sum())} clips")
    if count <= _NUMBERED:
        _numbers(axes, counts, share)
    return figure


def precisions(figures: Mapping[str, Sequence[float | None]], classes: Sequence[str]) -> Figure:
    """A bar a class, the best first. `figures`: `average_precision` (None without a positive), `positives`."""
    found = [0.0 if value is None else value for value in figures["average_precision"]]
    order = sorted(range(len(classes)), key=lambda number: -found[number])
    figure = _figure(7.0, min(max(2.0, 0.22 * len(classes) + 0.8), 60.0))
    axes = figure.add_subplot()
    axes.barh(range(len(order)), [found[number] for number in order])
    count, shown = figures["positives"], names(classes)
    labels = [f"{shown[number]} ({count[number]})" for number in order]
    axes.set_yticks(range(len(order)), labels, fontsize=8)
    literal(list(axes.get_yticklabels()))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision (clips that have the label)")
    return figure


def features(feat_BTF: Tensor, labels: Sequence[str]) -> Figure:
    """Features of a few clips under one another, low bins below; one colour scale for all. `labels`: titles."""
    figure = _figure(8.0, 1.8 * len(feat_BTF) + 0.2)
    values = feat_BTF.detach().float().cpu().numpy()
    low, high = float(values.min()), float(values.max())
    for number, (feat_TF, label) in enumerate(zip(values, names(labels), strict=True)):
        axes = figure.add_subplot(len(values), 1, number + 1)
        axes.imshow(feat_TF.T, origin="lower", aspect="auto", vmin=low, vmax=high, interpolation="nearest")
        axes.set_ylabel("bin")
        literal([axes.set_title(label, fontsize=8)])
    return figure


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """(height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _numbers(axes: Axes, counts: NDArray[np.float64], share: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def literal(texts: Sequence[Text]) -> None:
    """Texts are shown as they are, in fonts that have their letters."""
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(list(lettering.families(text.get_text()) or ("DejaVu Sans",)))
