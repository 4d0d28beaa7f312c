"""Bytes of rows that differ in codec, channels and length -> floats, all in one expression.

In: one flat buffer, seen as the type of each codec that occurs, and columns of numbers a row. Out: (B, C, N), silence
outside the frames that the clip has. Values are those of `decode.pcm` and `decode.mix`, bit by bit.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dist_train.archive.row import BYTES, CODECS
from dist_train.decode import alaw_table, mulaw_table

Columns = Mapping[str, Tensor]

TYPES = {
    CODECS.S16: torch.int16,
    CODECS.S32: torch.int32,
    CODECS.F16: torch.float16,
    CODECS.F32: torch.float32,
    CODECS.F64: torch.float64,
}
"""How a codec's bytes are seen; the others as bytes."""


class Pcm:
    """Reads the codecs that occur, on one device; `channels` as audio.channels."""

    def __init__(self, channels: str | int, device: torch.device, dtype: torch.dtype) -> None:
        self.channels, self.dtype = channels, dtype
        tables = {CODECS.MULAW: mulaw_table(), CODECS.ALAW: alaw_table()}
        self.tables = {codec: torch.from_numpy(table).to(device, dtype) for codec, table in tables.items()}

    def views(self, data: Tensor, codecs: tuple[CODECS, ...]) -> tuple[Tensor, ...]:
        """The flat buffer as each codec sees it: no copies."""
        return tuple(data.view(TYPES.get(codec, torch.uint8)) for codec in codecs)

    def __call__(
        self, views: tuple[Tensor, ...], codecs: tuple[CODECS, ...], columns: Columns, sources: int, inputs: int
    ) -> Tensor:
        """`inputs` samples of each row. `sources`: the most channels that a clip has.

        columns (B,), all int32 or all int64: byte (where the row begins), codec, channels, low and high (its first and
        end frame).
        """
        names, several = ("byte", "codec", "channels", "low", "high"), isinstance(self.channels, int)
        byte, codec, channels, low, high = (
            columns[name][:, None, None] if several else columns[name][:, None] for name in names
        )
        place = torch.arange(inputs, dtype=byte.dtype, device=byte.device)
        inside = (place >= low) & (place < high)

        def value(channel: Tensor) -> Tensor:
            number, out = place * channels + channel, torch.zeros((), dtype=self.dtype, device=byte.device)
            for own, view in zip(codecs, views, strict=True):
                mine = inside & (codec == int(own))
                step = BYTES[own] if own == CODECS.S24 else 1
                at = torch.where(mine, byte // (BYTES[own] // step) + number * step, 0)
                out = torch.where(mine, self._read(own, view, at), out)  # others' bytes may be NaN to this codec
            return out

        if isinstance(self.channels, int):
            return value(torch.arange(self.channels, dtype=byte.dtype, device=byte.device)[:, None] % channels)
        if self.channels == "first" or sources == 1:
            return value(torch.zeros_like(channels))[:, None]
        total = value(torch.zeros_like(channels))
        for channel in range(1, sources):  # not stacked: nothing between lies in memory
            total = total + value((channels - 1).clamp(max=channel)) * (channel < channels)
        return (total / channels)[:, None]

    def _read(self, codec: CODECS, view: Tensor, at: Tensor) -> Tensor:
        if codec in self.tables:
            return self.tables[codec][view[at].int()]
        if codec == CODECS.S24:
            high = view[at + 2].view(torch.int8).int()
            return (high * 65536 + view[at + 1].int() * 256 + view[at].int()).to(self.dtype) * 2.0**-23
        return SCALES[codec](view[at].to(self.dtype))


SCALES: dict[CODECS, Callable[[Tensor], Tensor]] = {
    CODECS.U8: lambda values: (values - 128.0) * 2.0**-7,
    CODECS.S16: lambda values: values * 2.0**-15,
    CODECS.S32: lambda values: values * 2.0**-31,
    CODECS.F16: lambda values: values,
    CODECS.F32: lambda values: values,
    CODECS.F64: lambda values: values,
}
