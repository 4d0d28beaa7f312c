"""TensorBoard files of a run. In: records, pictures, clips, text; out: event files under `tensorboard/`.

The writer is made with the first item: importing it takes a second that a start should not wait for.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_MARKS = {"step", "consumed", "stream", "kind"}  # where a record stands, not what it measures


class Board:
    """Event files in `folder`. purge: items of earlier files from this step on are dropped, so curves do not double."""

    def __init__(self, folder: Path, purge: int | None = None) -> None:
        self.folder, self.purge = folder, purge

    @cached_property
    def _writer(self) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        # 10 s: what a kill may take
        return SummaryWriter(str(self.folder), purge_step=self.purge, flush_secs=10)

    def scalars(self, record: Mapping[str, Any]) -> None:
        """Each number of a record as `kind/name` at its step."""
        for name, value in record.items():
            if name not in _MARKS and isinstance(value, int | float):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def text(self, name: str, text: str, step: int = 0) -> None:
        """A text, set as it is."""
        self._writer.add_text(name, f"```\n{text}\n```", step)

    def image(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """A picture (height, width, 3)."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def clips(self, wave_BT: Tensor, sample_rate: int, labels: Sequence[str], step: int) -> None:
        """Waveforms in -1..1 to listen to; what lies beyond is clipped."""
        for number, wave_T in enumerate(wave_BT.detach().float().clamp(-1, 1).cpu()):
            self._writer.add_audio(f"clips/{number}", wave_T[None], step, sample_rate)
        self.text("clips/labels", "\n".join(f"{number}: {label}" for number, label in enumerate(labels)), step)

    def close(self) -> None:
        """Flush and close, if anything was written."""
        if "_writer" in self.__dict__:
            self._writer.close()
