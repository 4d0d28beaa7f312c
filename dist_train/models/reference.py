"""State of other systems' networks -> the same under our keys. Plain data and one substitution."""

import re
from collections.abc import Mapping
from typing import TypeVar

Rules = tuple[tuple[str, str], ...]
Value = TypeVar("Value")  # tensors, or what is said of them

_NUMBERED: Rules = ((r"^conv(\d)\.", r"block\1.conv."), (r"^bn(\d)\.", r"block\1.norm."))
_SEQUENCE: Rules = (  # the same layers once more, as the reference registers them
    *((rf"^conv\.{3 * block}\.", f"block{block + 1}.conv.") for block in range(4)),
    *((rf"^conv\.{3 * block + 2}\.", f"block{block + 1}.norm.") for block in range(4)),
)
_HEAD: Rules = ((r"^fc\.", "head."),)
_SEGMENT: Rules = (
    *_HEAD,
    (r"^(pooling\..*)\.(?:conv|norm)(?=\.\w+$)", r"\1"),
    (r"^(pooling|linear)\.", r"segment.\1."),
)
_FRAMES: Rules = ((r"^td_layer(\d)\.", r"frames.\1.conv."), (r"^bn([1-4])\.", r"frames.\1.norm."))

RULES: dict[str, Rules] = {
    # SpeechBrain's ECAPA wraps each layer twice (`conv.conv`, `norm.norm`)
    "ecapa": ((r"\.(conv|norm)(?=\.\w+$)", ""), (r"^output\.", "head.")),
    "campplus": ((r"^head\.", "front."), *_HEAD),
    "eres2net": _HEAD,
    "eres2netv2": _HEAD,
    "tdnn": (*_SEGMENT, *_FRAMES, (r"^bn5\.", "segment.norm1."), (r"^bn6\.", "segment.norm2.")),
    **dict.fromkeys(
        ("resnet_se", "res2net"), (*_SEGMENT, (r"^bn2\.", "segment.norm1."), (r"^bn3\.", "segment.norm2."))
    ),
    **dict.fromkeys(("cnn6", "cnn10", "cnn14", "resnetish18", "resnetish34", "resnetish50"), _HEAD),
    "vggish": ((r"^(features\.\d+)\.", r"\1.conv."),),
    "crnn": (
        (r"^net\.convs\.conv2d_", "convs.conv"),
        (r"^net\.convs\.batchnorm2d_", "convs.norm"),
        (r"^net\.recur\.", "recur.lstm0.ahead.0."),
        (r"^net\.dense\.batchnorm1d_", "dense.norm"),
        (r"^net\.dense\.linear_0\.", "head."),
    ),
    "cnn4": (*_SEQUENCE, *_NUMBERED, (r"^lin\.", "head.")),
    "m5": (*_NUMBERED, (r"^fc1\.", "head.")),
}


_APART = re.compile(r"(layer\d\.\d+\.)(conv|bn)2_1(\..+)")
_NUMBERED_GROUP = re.compile(r"(layer\d\.\d+\.)(conv|bn)s\.(\d+)(\..+)")


def from_reference(name: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """State of the system that a network is from (macls, 3D-Speaker, SpeechBrain, WeSpeaker, PANNs) under our keys.

    Its classifier, if it has one, becomes `head`.
    """
    renamed: dict[str, Value] = {}
    for key, value in (_in_line(state) if name == "eres2net" else state).items():
        ours = key
        for pattern, replacement in RULES[name]:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = value
    return renamed


def _in_line(state: Mapping[str, Value]) -> dict[str, Value]:
    """WeSpeaker's ERes2Net keeps the first group of a fused block apart: it becomes number 0, the others move up."""
    apart = {found[1] for key in state if (found := _APART.fullmatch(key))}
    moved: dict[str, Value] = {}
    for key, value in state.items():
        if found := _APART.fullmatch(key):
            moved[f"{found[1]}{found[2]}s.0{found[3]}"] = value
        elif (found := _NUMBERED_GROUP.fullmatch(key)) and found[1] in apart:
            moved[f"{found[1]}{found[2]}s.{int(found[3]) + 1}{found[4]}"] = value
        else:
            moved[key] = value
    return moved
