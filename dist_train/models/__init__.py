"""Architectures: name -> model. Features (B, T, bins) -> embedding (B, E) -> logits (B, classes).

Every model has `forward(feat_BTF, frames_B=None)` -> logits, `embed(...)` -> embedding, `head` (the last nn.Linear) and
`bins`. `frames_B` (int64) holds the valid frames of each row; a clip padded in a batch then scores, in eval mode, what
it scores alone. None says that all rows are full, and costs nothing.
"""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from dist_train.models.campplus import CamPlus
from dist_train.models.ecapa import Ecapa
from dist_train.models.eres2net import ERes2Net

Model = Ecapa | CamPlus | ERes2Net

ARCHITECTURES: dict[str, Callable[..., Model]] = {"ecapa": Ecapa, "campplus": CamPlus, "eres2net": ERes2Net}
SETTINGS = {
    "ecapa": ("channels", "embedding", "pooling"),
    "campplus": ("channels", "embedding"),
    "eres2net": ("channels", "embedding", "pooling"),
}


def build(
    name: str,
    bins: int,
    classes: int,
    *,
    channels: int | None = None,
    embedding: int | None = None,
    pooling: str | None = None,
) -> Model:
    """A full-size model with fresh weights; None takes the architecture's own size.

    channels   ecapa: width of the blocks, a multiple of 8 (512, or 1024); campplus: channels before the dense layers, a
               multiple of 8 (128); eres2net: planes of the first stage, even (32, or 64)
    embedding  ecapa and eres2net 192, campplus 512
    pooling    ecapa: asp, sap, tsp or tap (asp); eres2net: tap, or None for mean and deviation; campplus has one only

    ValueError for an unknown name, a setting that the architecture lacks, or a size that it cannot have.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model.name is {name!r}: take one of {', '.join(ARCHITECTURES)}")
    sizes = {"channels": channels, "embedding": embedding, "pooling": pooling}
    given = {key: value for key, value in sizes.items() if value is not None}
    if lacking := given.keys() - set(SETTINGS[name]):
        raise ValueError(f"model.{min(lacking)} is set, but {name} has no such setting: leave it out")
    return ARCHITECTURES[name](bins, classes, **given)


def from_reference(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of macls, 3D-Speaker or SpeechBrain (ECAPA) under our keys; its classifier, if it has one, becomes `head`.

    Their ECAPA wraps each layer twice (`conv.conv`, `norm.norm`) and calls the classifier `output`; the other two call
    it `fc`, and CAM++ calls its 2-D part `head`.
    """
    rules = {
        "ecapa": ((r"\.(conv|norm)(?=\.\w+$)", ""), (r"^output\.", "head.")),
        "campplus": ((r"^head\.", "front."), (r"^fc\.", "head.")),
        "eres2net": ((r"^fc\.", "head."),),
    }[name]
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        ours = key
        for pattern, replacement in rules:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = value
    return renamed
