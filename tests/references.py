"""Networks of other systems with weights and inputs by a formula: what they give is stored, what goes in is made.

`tests/reference/networks.npz` holds, for each case, the names in the system's state, and in float64: its outputs, the
loss of a training step, the norm of each gradient and its sum against a cosine (which sees order and sign), and the
same sum of each buffer after the step. `make_references.py` writes it from the systems themselves.
"""

import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dist_train.order import mix64

FILE = Path(__file__).parent / "reference/networks.npz"
CLASSES, CLIPS = 5, 3


class Twin(NamedTuple):
    """Our network and the same of another system."""

    name: str  # ours
    bins: int
    sizes: dict[str, Any]  # ours
    system: str  # module:class
    arguments: dict[str, Any]  # theirs
    frames: tuple[int, ...] = (61, 130)
    tolerance: float = 1e-9


def uniform(key: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers from -1 to 1 by the name of a tensor and the position in it, float64."""
    seed = np.uint64(zlib.crc32(key.encode())) << np.uint64(32)
    bits = mix64(np.arange(math.prod(shape), dtype=np.uint64) + seed)
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1).reshape(shape)


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    """A parameter or buffer of that name: sensible statistics, gains of 0.5 to 1.5, layers that keep the scale."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(7)
    value = uniform(key, shape)
    if key.endswith("running_var") or (key.endswith("weight") and len(shape) == 1):
        return 1 + 0.5 * value
    if len(shape) == 1:
        return 0.3 * value
    return value * math.sqrt(6 / math.prod(shape[1:]))


def features(frames: int, bins: int) -> Tensor:
    """(CLIPS, frames, bins)."""
    return 2 * uniform(f"{frames} x {bins}", (CLIPS, frames, bins))


def labels() -> Tensor:
    return torch.arange(CLIPS) * 2 % CLASSES


def loss(output: Tensor) -> Tensor:
    """Cross entropy of logits; of an embedding, its sum against a pattern."""
    if output.shape[1] == CLASSES:
        return torch.nn.functional.cross_entropy(output, labels())
    return (output * uniform("loss", tuple(output.shape))).sum() / len(output)


def wave(value: Tensor) -> Tensor:
    """Sum against a cosine over the positions."""
    flat = value.detach().double().flatten()
    return flat @ torch.arange(len(flat), dtype=torch.float64).cos()


EXCERPTS = {"ws_ecapa_glob": "t97", "cnn4": "t200", "crnn": "t173", "resnetish_basic": "t101", "vggish": "t97"}
"""Stored whole where no package has the system: name of the case, its input."""

MACLS, SPEAKER = "macls.models", "speakerlab.models"
_ECAPA = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "se_channels": 8}
_OURS = {"channels": 16, "attention": 8, "squeeze": 8, "embedding": 12}
_UNEQUAL = {"channels": [16, 24, 16, 32, 72], "kernels": [5, 5, 3, 3, 1], "dilations": [1, 2, 5, 3, 1], "scale": 4}
_THEIRS_UNEQUAL = {
    "channels": _UNEQUAL["channels"],
    "kernel_sizes": _UNEQUAL["kernels"],
    "dilations": _UNEQUAL["dilations"],
    "res2net_scale": 4,
    "attention_channels": 8,
    "se_channels": 8,
    "global_context": False,
}
_GROUPED = {"channels": [16, 16, 32, 16, 64], "groups": [1, 2, 4, 2, 4]}
_RES = {"channels": 8, "blocks": (1, 2, 2, 1), "embedding": 12}
_E2 = {"channels": 4, "blocks": (1, 2, 2, 1), "embedding": 12}
_HUGE = {"expansion": 4, "base_width": 24, "scale": 3}


def _ecapa(pooling: str, tolerance: float = 1e-9) -> Twin:
    sizes = _OURS | {"pooling": pooling}
    theirs = {"embd_dim": 12, "pooling_type": pooling.upper(), **_ECAPA}
    return Twin("ecapa", 40, sizes, f"{MACLS}.ecapa_tdnn:EcapaTdnn", theirs, tolerance=tolerance)


def _segment(name: str, path: str, bins: int, sizes: dict[str, Any], theirs: dict[str, Any], pooling: str) -> Twin:
    return Twin(
        name,
        bins,
        sizes | {"pooling": pooling},
        f"{MACLS}.{path}",
        {"embd_dim": 12, "pooling_type": pooling.upper(), **theirs},
        tolerance=1e-6 if pooling == "asp" else 1e-9,
    )


def _speaker(name: str, path: str, sizes: dict[str, Any], theirs: dict[str, Any], pooling: str) -> Twin:
    theirs = {"feat_dim": 24, "pooling_func": pooling.upper(), **theirs}
    return Twin(name, 24, sizes | {"pooling": pooling}, f"{SPEAKER}.{path}", theirs)


_TDNN = ("tdnn", "tdnn:TDNN", 23, {"channels": 12, "embedding": 12}, {"channels": 12})
_SE = ("resnet_se", "resnet_se:ResNetSE")
_SE_SIZES = {"channels": [4, 8, 8, 16], "blocks": (1, 2, 1, 2), "embedding": 12}
_SE_THEIRS = {"num_filters": [4, 8, 8, 16], "layers": [1, 2, 1, 2]}
_R2 = ("res2net", "res2net:Res2Net", 40)
_R2_THEIRS = {"m_channels": 8, "layers": [1, 2, 2, 1]}
_E2_THEIRS = {"m_channels": 4, "num_blocks": [1, 2, 2, 1]}
_MACLS_E2 = {"embd_dim": 12, **_E2_THEIRS}
_3D_E2 = {"embedding_size": 12, **_E2_THEIRS}
_X = {"channels": 12, "wide": 20, "embedding": 12}
_3D_X = {"hid_dim": 12, "stats_dim": 20, "embed_dim": 12}

TWINS: dict[str, Twin] = {
    "ecapa-asp": _ecapa("asp", 1e-6),
    "ecapa-sap": _ecapa("sap"),
    "ecapa-tsp": _ecapa("tsp"),
    "ecapa-tap": _ecapa("tap"),
    "ecapa-unequal": Twin(
        "ecapa",
        40,
        _OURS | _UNEQUAL | {"context": False},
        f"{MACLS}.ecapa_tdnn:EcapaTdnn",
        {"embd_dim": 12, **_THEIRS_UNEQUAL},
    ),
    "ecapa-groups": Twin(
        "ecapa",
        24,
        _OURS | _GROUPED | {"pooling": "tap"},
        f"{MACLS}.ecapa_tdnn:EcapaTdnn",
        {"embd_dim": 12, "pooling_type": "TAP", "se_channels": 8, **_GROUPED},
    ),
    "ecapa-3dspeaker": Twin(
        "ecapa",
        24,
        _OURS | {"context": False},
        f"{SPEAKER}.ecapa_tdnn.ECAPA_TDNN:ECAPA_TDNN",
        {"input_size": 24, "lin_neurons": 12, "global_context": False, **_ECAPA},
    ),
    "ecapa-narrow-mfa": Twin(
        "ecapa",
        24,
        _OURS | {"channels": [16, 16, 16, 16, 20]},
        "speechbrain.lobes.models.ECAPA_TDNN:ECAPA_TDNN",
        {"input_size": 24, "lin_neurons": 12, **_ECAPA, "channels": [16, 16, 16, 16, 20]},
        tolerance=1e-6,
    ),
    **{f"tdnn-{p}": _segment(*_TDNN, p) for p in ("asp", "sap", "tsp", "tap")},
    "xvector-tstp": _speaker("xvector", "xvector.TDNN:Xvector", _X, _3D_X, "tstp"),
    "xvector-tsdp": _speaker("xvector", "xvector.TDNN:Xvector", _X, _3D_X, "tsdp"),
    "xvector-astp": _speaker("xvector", "xvector.TDNN:Xvector", _X, _3D_X, "astp"),
    "resnet_se-asp": _segment(*_SE, 24, _SE_SIZES, _SE_THEIRS, "asp"),
    "resnet_se-sap": _segment(*_SE, 40, _SE_SIZES, _SE_THEIRS, "sap"),
    "resnet_se-tsp": _segment(*_SE, 40, _SE_SIZES, _SE_THEIRS, "tsp"),
    "res2net-scale4": _segment(*_R2, _RES | {"scale": 4}, _R2_THEIRS | {"scale": 4}, "asp"),
    "res2net-scale1": _segment(*_R2, _RES | {"scale": 1}, _R2_THEIRS | {"scale": 1}, "tap"),
    "res2net-sap": _segment(*_R2, _RES | {"base_width": 26}, _R2_THEIRS | {"base_width": 26}, "sap"),
    "res2net-tsp": _segment(*_R2, _RES | {"scale": 3}, _R2_THEIRS | {"scale": 3}, "tsp"),
    "campplus-61": Twin(
        "campplus",
        61,
        {"channels": 8, "embedding": 12, "growth": 4, "bottleneck": 3},
        f"{MACLS}.campplus:CAMPPlus",
        {"embd_dim": 12, "growth_rate": 4, "bn_size": 3, "init_channels": 8, "memory_efficient": False},
        frames=(61, 420),
    ),
    "eres2net-two": Twin(
        "eres2net",
        24,
        _E2 | {"embedding_layers": 2},
        f"{MACLS}.eres2net:ERes2Net",
        _MACLS_E2 | {"two_emb_layer": True},
    ),
    "eres2net-aug": Twin(
        "eres2net", 24, _E2 | _HUGE, f"{MACLS}.eres2net:ERes2Net", _MACLS_E2 | _HUGE | {"mul_channel": 2}
    ),
    "eres2net-scale4": Twin("eres2net", 24, _E2 | {"scale": 4}, f"{MACLS}.eres2net:ERes2Net", _MACLS_E2 | {"scale": 4}),
    "eres2net-tsdp": _speaker("eres2net", "eres2net.ERes2Net:ERes2Net", _E2, _3D_E2, "tsdp"),
    "eres2net-astp": _speaker("eres2net", "eres2net.ERes2Net:ERes2Net", _E2, _3D_E2, "astp"),
    "eres2net-huge": _speaker("eres2net", "eres2net.ERes2Net_huge:ERes2Net", _E2 | _HUGE, _3D_E2, "tap"),
    "eres2netv2-two": Twin(
        "eres2netv2",
        24,
        _E2 | {"channels": 6, "embedding_layers": 2},
        f"{MACLS}.eres2net:ERes2NetV2",
        _MACLS_E2 | {"m_channels": 6, "two_emb_layer": True},
    ),
    "eres2netv2-scale3": Twin(
        "eres2netv2", 24, _E2 | {"scale": 3}, f"{MACLS}.eres2net:ERes2NetV2", _MACLS_E2 | {"scale": 3}
    ),
    "eres2netv2-tsdp": _speaker("eres2netv2", "eres2net.ERes2NetV2:ERes2NetV2", _E2, _3D_E2, "tsdp"),
    "eres2netv2-astp": _speaker("eres2netv2", "eres2net.ERes2NetV2:ERes2NetV2", _E2, _3D_E2, "astp"),
    "eres2netv2-tap": _speaker("eres2netv2", "eres2net.ERes2NetV2:ERes2NetV2", _E2, _3D_E2, "tap"),
    "eres2netv2-wide": _speaker(
        "eres2netv2",
        "eres2net.ERes2NetV2:ERes2NetV2",
        _E2 | {"base_width": 24, "scale": 4, "expansion": 4},
        _3D_E2 | {"baseWidth": 24, "scale": 4, "expansion": 4},
        "tstp",
    ),
    "cnn6": Twin("cnn6", 33, {}, f"{MACLS}.panns:PANNS_CNN6", {}, frames=(37, 50)),
    "cnn10": Twin("cnn10", 20, {}, f"{MACLS}.panns:PANNS_CNN10", {}, frames=(37, 50)),
}
