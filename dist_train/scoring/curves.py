"""Curves of several runs -> a line of blocks each, a table at epochs that all have, a picture."""

from collections.abc import Sequence

import numpy as np

from dist_train.scoring.history import Curve

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH, ROWS = 40, 8


def spark(curve: Curve, low: float, high: float) -> str:
    """A block for each of some evenly spaced epochs; `low` and `high` are the ends of the scale."""
    if not curve:
        return ""
    epochs, values = (np.array(column) for column in zip(*curve, strict=True))
    asked = np.linspace(epochs[0], epochs[-1], min(WIDTH, len(curve)))
    shares = (np.interp(asked, epochs, values) - low) / max(high - low, 1e-300)
    return "".join(BLOCKS[int(min(max(share, 0.0), 1.0) * (len(BLOCKS) - 1) + 0.5)] for share in shares)


def at(curves: Sequence[Curve]) -> list[tuple[float, list[float]]]:
    """Values of all curves at some of the epochs that all of them reach: the last one that each had by then."""
    if not all(curves):
        return []
    first, last = max(one[0][0] for one in curves), min(one[-1][0] for one in curves)
    epochs = sorted({epoch for one in curves for epoch, _ in one if first <= epoch <= last})
    if not epochs:
        return []
    if len(epochs) > ROWS:
        places = np.linspace(0, len(epochs) - 1, ROWS).round().astype(int)
        epochs = [epochs[place] for place in places]
    return [
        (epoch, [next(value for when, value in reversed(one) if when <= epoch) for one in curves]) for epoch in epochs
    ]


def drawing(names: Sequence[str], panels: Sequence[tuple[str, Sequence[Curve]]]) -> bytes:
    """PNG: a panel a quantity, a line a run. panels: title, and the curves of all runs (empty ones are left out)."""
    from matplotlib.figure import Figure

    from dist_train import lettering, picture

    figure = Figure(figsize=(8.0, 3.2 * max(1, len(panels))), dpi=100, layout="constrained")
    written = lettering.names(names, "run")
    for number, (title, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, number)
        for name, curve in zip(written, curves, strict=True):
            if curve:
                marker = "o" if len(curve) < 2 else None
                axes.plot(*zip(*curve, strict=True), label=name, marker=marker)
        axes.set_ylabel(title)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if legend := axes.legend() if axes.lines else None:
            picture.literal(legend.get_texts())
    return picture.png(figure)
