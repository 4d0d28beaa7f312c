"""All that a run says. In: records, lines, pictures from the engine; out: console, metrics.jsonl, TensorBoard, PNG.

Every rank has a log and calls it alike; only rank 0's speaks. Nothing here may end a run but a metrics.jsonl that
cannot be written: TensorBoard or a picture that fails is one warning.
"""

import atexit
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dist_train import disk
from dist_train.board import Board
from dist_train.console import Console
from dist_train.layers import Layer
from dist_train.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Log:
    """first: whether this is rank 0; another rank's log is silent. Lines are shown at once, records from `open` on."""

    def __init__(self, first: bool = True) -> None:
        self._console = Console() if first else None
        self._folder: RunFolder | None = None
        self._advised = False
        self._board: Board | None = None

    def open(self, folder: RunFolder, tensorboard: bool = True, step: int | None = None) -> None:
        """From now on records go into the run's folder. step: of the checkpoint that the run goes on from."""
        if self._console is not None:
            self._folder = folder
            self._board = Board(folder.tensorboard, None if step is None else step + 1) if tensorboard else None

    def begin(self, consumed: int, total: int, samples: int) -> None:
        """The progress bar appears: positions done, of the whole run, samples an epoch."""
        if self._console is not None:
            atexit.register(self._console.close)  # an exception must not leave the terminal without a cursor
            self._console.begin(consumed, total, samples)

    def message(self, text: str) -> None:
        """One line to stdout."""
        if self._console is not None:
            self._console.message(text)

    def warn(self, text: str) -> None:
        """One line to stderr."""
        if self._console is not None:
            self._console.warn(text)

    def error(self, text: str) -> None:
        """One line to stderr."""
        if self._console is not None:
            self._console.error(text)

    def layer_table(self, rows: Sequence[Layer]) -> None:
        """The model's layers (`layers.layers`)."""
        if self._console is not None:
            self._console.table(rows)

    def config(self, config_yaml: str) -> None:
        """The configuration, to TensorBoard."""
        self._draw(lambda board: board.text("config", config_yaml))

    def tick(self, consumed: int) -> None:
        """Move the progress bar; costs microseconds."""
        if self._console is not None:
            self._console.tick(consumed)

    def train(self, record: dict[str, Any]) -> None:
        """A log step's record: `step`, `consumed`, `loss`, ... Errors: `ValueError` where it cannot be written."""
        if self._console is not None:
            self._keep({"kind": "train", **record})
            self._console.train(record)

    def eval(self, record: dict[str, Any]) -> None:
        """Scores of an evaluation; `kind` is `eval` unless given. Errors: `ValueError` where it cannot be written."""
        if self._console is not None:
            self._keep({"kind": "eval", **record})
            self._console.eval(record)

    def confusion(self, matrix_CC: Tensor, classes: Sequence[str], step: int, name: str = "confusion") -> None:
        """Confusion matrix (rows: truth) to NAME.png and TensorBoard."""
        if self._folder is None:
            return
        from dist_train import picture

        self._advise(classes)
        self._picture(name, picture.confusion(matrix_CC, classes), step)

    def precisions(self, figures: Mapping[str, Sequence[float | None]], classes: Sequence[str], step: int) -> None:
        """Average precision of each class, with `positives`, to precision.png and TensorBoard."""
        if self._folder is None:
            return
        from dist_train import picture

        self._advise(classes)
        self._picture("precision", picture.precisions(figures, classes), step)

    def _advise(self, classes: Sequence[str]) -> None:
        """Once: how to get names that pictures lack."""
        from dist_train import lettering

        if not self._advised and (advice := lettering.advice(classes)) is not None:
            self.warn(advice)
        self._advised = True

    def _picture(self, name: str, figure: "Figure", step: int) -> None:
        from dist_train import picture

        assert self._folder is not None
        path = self._folder.path / f"{name}.png"
        self._try(lambda: disk.replace(path, lambda file: file.write(picture.png(figure))), str(path))
        self._show(name, figure, step)

    def pictures(self, feat_BTF: Tensor, labels: Sequence[str], step: int) -> None:
        """Features of a few clips, to TensorBoard."""
        if self._board is not None:
            from dist_train import picture

            self._show("features", picture.features(feat_BTF, labels), step)

    def clips(self, wave_BT: Tensor, sample_rate: int, labels: Sequence[str], step: int) -> None:
        """A few clips to listen to, to TensorBoard."""
        self._draw(lambda board: board.clips(wave_BT, sample_rate, labels, step))

    def close(self) -> None:
        """End the progress bar, flush the files. The folder itself is its owner's to close."""
        self._draw(Board.close)
        if self._console is not None:
            self._console.close()

    def _keep(self, record: dict[str, Any]) -> None:
        if self._folder is not None:
            self._folder.append(record)
        self._draw(lambda board: board.scalars(record))

    def _show(self, name: str, figure: "Figure", step: int) -> None:
        from dist_train import picture

        self._draw(lambda board: board.image(name, picture.pixels(figure), step))

    def _draw(self, work: Callable[[Board], None]) -> None:
        board = self._board
        if board is not None and not self._try(lambda: work(board), f"{board.folder}; no more TensorBoard"):
            self._board = None

    def _try(self, work: Callable[[], object], where: str) -> bool:
        try:
            work()
        except OSError as error:
            self.warn(f"cannot write {where} ({error.strerror or error})")
            return False
        return True
