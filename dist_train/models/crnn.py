"""CRNN: convolutions, an LSTM, its last output; after Choi 2016, arXiv 1609.04243. Features (B, T, bins) -> logits.

    [conv, norm, elu, maxpool, dropout] x 3 -> lstm -> last -> dropout, norm -> head

The network is a list of layers (`described`), so that a configuration changes it; `LAYERS` is the network of
crnn-audio-classification, whose state loads after `models.from_reference`. A linear layer, `head`, comes after the
list. In a batch a clip shorter than the shortest that the layers can take is scored as if zeros followed it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dist_train.models.blocks import blank, check_input, padding
from dist_train.models.described import Description, Layer, read
from dist_train.models.pooling import time_mean


def _stage(channels: int, pool: int) -> list[Description]:
    return [{"conv": {"channels": channels, "kernel": 3}}, "norm", "elu", {"maxpool": pool}, {"dropout": 0.1}]


LAYERS: tuple[Description, ...] = (
    *_stage(32, 3),
    *_stage(64, 4),
    *_stage(64, 4),
    {"lstm": {"size": 64, "layers": 2}},
    "last",
    {"dropout": 0.3},
    "norm",
)
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class Recurrent(nn.Module):
    """LSTM or GRU, (B, T, C) -> (B, T, size or 2 size); backwards, each row starts at its own last valid frame."""

    def __init__(self, kind: str, inputs: int, size: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        cells: type[nn.LSTM | nn.GRU] = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        widths = [inputs] + [2 * size if bidirectional else size] * (layers - 1)
        self.ahead = nn.ModuleList(cells(width, size, batch_first=True) for width in widths)
        self.back = nn.ModuleList(cells(width, size, batch_first=True) for width in widths if bidirectional)

    def forward(self, x_BTC: Tensor, frames_B: Tensor | None) -> Tensor:
        for i, ahead in enumerate(self.ahead):
            y_BTC = ahead(x_BTC)[0]
            if self.back:
                y_BTC = torch.cat([y_BTC, _turn(self.back[i](_turn(x_BTC, frames_B))[0], frames_B)], 2)
            x_BTC = y_BTC
        return x_BTC


def _turn(x_BTC: Tensor, frames_B: Tensor | None) -> Tensor:
    """The valid frames of each row in reverse; what follows them stays."""
    if frames_B is None:
        return x_BTC.flip(1)
    time_T = torch.arange(x_BTC.shape[1], device=x_BTC.device)
    turned_BT = frames_B[:, None] - 1 - time_T
    index_BT = torch.where(turned_BT < 0, time_T, turned_BT)
    return x_BTC.gather(1, index_BT[..., None].expand_as(x_BTC))


def _pick(kind: str, x_BTC: Tensor, frames_B: Tensor | None) -> Tensor:
    """Last, mean or maximum over the valid frames, (B, T, C) -> (B, C)."""
    if kind == "last":
        if frames_B is None:
            return x_BTC[:, -1]
        return x_BTC.gather(1, (frames_B - 1)[:, None, None].expand(-1, 1, x_BTC.shape[2])).squeeze(1)
    x_BCT = x_BTC.transpose(1, 2)
    pad = padding(frames_B, x_BCT)
    if kind == "mean":
        return time_mean(x_BCT, pad).squeeze(2)
    return (x_BCT if pad is None else x_BCT.masked_fill(pad, -torch.inf)).amax(2)


class Layers(nn.Module):
    """The image's or the vector's layers one after the other; a padded kernel sees zeros past a row's end."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        _add(self, layers)

    def forward(self, x: Tensor, frames_B: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        for layer, module in zip(self.layers, self.children(), strict=True):
            if any(layer.options.get("padding", ())):
                x = blank(x, padding(frames_B, x))
            x = module(x)
            frames_B = None if frames_B is None else layer.frames(frames_B)
        return x, frames_B


class Recurrence(nn.Module):
    """Recurrent layers and the pick of a vector, (B, C, F, T) -> (B, C). Flattened frequency-major: index f * C + c."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        *layers, pick = layers
        self.pick = pick.kind
        _add(self, layers)

    def forward(self, x_BCFT: Tensor, frames_B: Tensor | None) -> Tensor:
        x_BTC = x_BCFT.permute(0, 3, 2, 1).flatten(2)
        for module in self.children():
            x_BTC = module(x_BTC, frames_B) if isinstance(module, Recurrent) else module(x_BTC)
        return _pick(self.pick, x_BTC, frames_B)


class Crnn(nn.Module):
    """The network of a list of layers. `sources`: channels of the audio, whose bins lie side by side in the features.

    A layer of the list is `convs`, `recur` or `dense` and its kind and number among those: `convs.conv0`.
    """

    BLOCKS = (Layers,)  # compiled one by one; recurrent layers are one kernel each already

    def __init__(self, bins: int, classes: int, *, layers: Sequence[Description] = LAYERS, sources: int = 1) -> None:
        super().__init__()
        if sources < 1 or bins % sources:
            raise ValueError(f"crnn got {bins} bins of {sources} channels side by side: let sources divide bins")
        self.bins, self.sources = bins, sources
        chain = read(layers, sources, bins // sources)
        image, sequence, vector = (
            [layer for layer in chain if layer.place == place] for place in ("image", "sequence", "vector")
        )
        self.least = 1
        for layer in reversed(image):
            self.least = layer.least(self.least)
        self.convs = Layers(image)
        self.recur = Recurrence(sequence)
        self.dense = Layers(vector)
        self.head = nn.Linear(chain[-1].shape[0], classes)

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid frames of each row. ValueError under `least` frames (80)."""
        check_input("crnn", feat_BTF, self.bins, self.least)
        image_BCFT = feat_BTF.reshape(*feat_BTF.shape[:2], self.sources, -1).permute(0, 2, 3, 1)
        image_BCFT = blank(image_BCFT, padding(frames_B, image_BCFT))
        x_BCFT, frames_B = self.convs(image_BCFT, None if frames_B is None else frames_B.clamp(min=self.least))
        vector_BE: Tensor = self.dense(self.recur(x_BCFT, frames_B))[0]
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC


def _add(parent: nn.Module, layers: Sequence[Layer]) -> None:
    """Modules of the layers, under their kind and number among those of that kind."""
    count: dict[str, int] = {}
    for layer in layers:
        number = count[layer.kind] = count.get(layer.kind, -1) + 1
        parent.add_module(f"{layer.kind}{number}", _module(layer))


def _module(layer: Layer) -> nn.Module:
    options, (inputs, *_) = layer.options, layer.inputs
    match layer.kind:
        case "conv":
            return nn.Conv2d(inputs, options["channels"], options["kernel"], options["stride"], options["padding"])
        case "maxpool":
            return nn.MaxPool2d(options["kernel"])
        case "avgpool":
            return nn.AvgPool2d(options["kernel"])
        case "norm":
            return nn.BatchNorm2d(inputs) if layer.place == "image" else nn.BatchNorm1d(inputs)
        case "dropout":
            return nn.Dropout(options["rate"])
        case "linear":
            return nn.Linear(inputs, options["size"])
        case "lstm" | "gru":
            return Recurrent(layer.kind, inputs, options["size"], options["layers"], options["bidirectional"])
    return _ACTIVATIONS[layer.kind]()
