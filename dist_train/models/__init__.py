"""Architectures: name -> model. Features (B, T, bins) -> embedding (B, E) -> logits (B, classes).

Every model has `forward(feat_BTF, frames_B=None)` -> logits, `embed(...)` -> embedding, `head` (the last nn.Linear),
`bins` and `least` (frames of the shortest clip that it takes). `frames_B` (int64) holds the valid frames of each row; a
clip padded in a batch then scores, in eval mode, what it scores alone. None says that all rows are full, and costs
nothing.
"""

from collections.abc import Callable
from typing import Any

from dist_train.models import ecapa, ecapa_wespeaker, eres2net, segment, xvector
from dist_train.models.campplus import CamPlus
from dist_train.models.cnn4 import Cnn4
from dist_train.models.crnn import Crnn
from dist_train.models.ecapa import Ecapa
from dist_train.models.ecapa_wespeaker import EcapaWeSpeaker
from dist_train.models.eres2net import ERes2Net
from dist_train.models.eres2netv2 import ERes2NetV2
from dist_train.models.linear import Linear
from dist_train.models.m5 import M5
from dist_train.models.panns import Panns, cnn6, cnn10, cnn14
from dist_train.models.pooling import ATTENTIVE
from dist_train.models.reference import from_reference
from dist_train.models.res2net import Res2Net
from dist_train.models.resnet_mini import ResNetMini
from dist_train.models.resnet_se import ResNetSE
from dist_train.models.resnetish import Resnetish, resnetish18, resnetish34, resnetish50
from dist_train.models.tdnn import Tdnn
from dist_train.models.vggish import Vggish
from dist_train.models.xvector import Xvector

__all__ = ["ARCHITECTURES", "SETTINGS", "Model", "build", "from_reference"]

Model = (
    CamPlus
    | Cnn4
    | Crnn
    | Ecapa
    | EcapaWeSpeaker
    | ERes2Net
    | ERes2NetV2
    | Linear
    | M5
    | Panns
    | Res2Net
    | ResNetMini
    | ResNetSE
    | Resnetish
    | Tdnn
    | Vggish
    | Xvector
)

ARCHITECTURES: dict[str, Callable[..., Model]] = {
    "ecapa": Ecapa,
    "campplus": CamPlus,
    "eres2net": ERes2Net,
    "eres2netv2": ERes2NetV2,
    "resnet_se": ResNetSE,
    "resnet_mini": ResNetMini,
    "res2net": Res2Net,
    "tdnn": Tdnn,
    "xvector": Xvector,
    "ecapa_wespeaker": EcapaWeSpeaker,
    "cnn6": cnn6,
    "cnn10": cnn10,
    "cnn14": cnn14,
    "vggish": Vggish,
    "resnetish18": resnetish18,
    "resnetish34": resnetish34,
    "resnetish50": resnetish50,
    "crnn": Crnn,
    "cnn4": Cnn4,
    "m5": M5,
    "linear": Linear,
}
_POOLED = ("channels", "embedding", "pooling", "attention", "context")
_RES2 = (*_POOLED, "blocks", "base_width", "scale")
SETTINGS: dict[str, tuple[str, ...]] = {
    "ecapa": (*_POOLED, "squeeze", "scale", "kernels", "dilations", "groups"),
    "ecapa_wespeaker": (*_POOLED, "squeeze", "wide", "embedding_norm"),
    "campplus": ("channels", "embedding", "growth", "bottleneck"),
    **dict.fromkeys(("eres2net", "eres2netv2"), (*_RES2, "expansion", "embedding_layers")),
    "resnet_se": (*_POOLED, "blocks"),
    "resnet_mini": ("channels", "blocks", "dropout"),
    "res2net": _RES2,
    "tdnn": _POOLED,
    "xvector": (*_POOLED, "wide"),
    **dict.fromkeys(("cnn6", "cnn10", "cnn14"), ("channels", "embedding", "dropout")),
    "vggish": ("channels", "embedding", "hidden"),
    **dict.fromkeys(("resnetish18", "resnetish34", "resnetish50"), ("channels", "blocks")),
    "crnn": ("layers",),
    "cnn4": ("channels",),
    "m5": ("channels", "window"),
    "linear": ("embedding",),
}
POOLINGS: dict[str, tuple[str, ...]] = {  # the first is the default
    "ecapa": ecapa.POOLINGS,
    "ecapa_wespeaker": ecapa_wespeaker.POOLINGS,
    **dict.fromkeys(("eres2net", "eres2netv2"), eres2net.POOLINGS),
    **dict.fromkeys(("resnet_se", "res2net", "tdnn"), segment.POOLINGS),
    "xvector": xvector.POOLINGS,
}
_RESNETISH = ("resnetish18", "resnetish34", "resnetish50")
LISTS = ("ecapa", "resnet_se", "resnet_mini", "cnn6", "cnn10", "cnn14", *_RESNETISH)  # of channels
PICTURES = ("crnn", "cnn4")  # the channels of the audio are theirs too; to the others they are more bins


def build(name: str, bins: int, classes: int, *, sources: int = 1, **sizes: Any) -> Model:
    """A full-size model with fresh weights; a size of None is the architecture's own.

    sources     channels of the audio, whose features lie side by side in `bins`
    channels    ecapa, ecapa_wespeaker: width of the blocks, a multiple of 8 (512, or 1024), ecapa also a list: stem,
                blocks, MFA; tdnn, xvector: of the layers (512); campplus: channels before the dense layers, a multiple
                of 8 (128); eres2net (32), eres2netv2 (64; macls has 32), resnet_se, res2net (32), resnet_mini (24):
                those of the first stage; cnn6, cnn10, cnn14, vggish, resnetish: of the first block, doubled by the next
                ones (64); cnn4: the same (8); m5: of all layers (128). resnet_se, resnet_mini, cnn6 ... and resnetish
                also a list, one a stage
    embedding   campplus, cnn6, cnn10, xvector 512; cnn14 2048; vggish 128; linear: of a projection, or none; resnetish,
                crnn, cnn4, m5 have one size only; 192
    pooling     `POOLINGS`; the others have one
    layers      crnn: its layers (`models.described`)

    The others are described where they are read, at the class. ValueError for an unknown name, a setting that the
    architecture lacks or that does nothing beside the others, or a size that it cannot have.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model.name is {name!r}: take one of {', '.join(ARCHITECTURES)}")
    given = {key: value for key, value in sizes.items() if value is not None}
    if lacking := given.keys() - set(SETTINGS[name]):
        raise ValueError(f"model.{min(lacking)} is set, but {name} has no such setting: leave it out")
    if name not in LISTS and not isinstance(given.get("channels", 0), int):
        raise ValueError(f"model.channels of {name} is {given['channels']}: take one number, not a list")
    pooling = given.get("pooling", POOLINGS.get(name, ("",))[0])
    if (idle := given.keys() & {"attention", "context"}) and pooling not in ATTENTIVE:
        raise ValueError(
            f"model.{min(idle)} is of {' and '.join(ATTENTIVE)}, and {name} pools by {pooling}: leave it out"
        )
    if name in PICTURES:
        given["sources"] = sources
    return ARCHITECTURES[name](bins, classes, **given)
