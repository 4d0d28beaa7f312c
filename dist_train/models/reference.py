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

# WeSpeaker's ERes2Net: the blocks with fusions keep the first group's convolution apart
_WESPEAKER: Rules = (
    *((rf"^(layer[34]\.\d+)\.(conv|bn)s\.{group}\.", rf"\1.\2s.{group + 1}.") for group in range(6, -1, -1)),
    (r"\.(conv|bn)2_1\.", r".\1s.0."),
)
VARIANTS: dict[str, tuple[str, Rules]] = {  # where a name holds this, these rules come first
    "eres2net": (".conv2_1.", _WESPEAKER),
}
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


def from_reference(name: str, state: Mapping[str, Value]) -> dict[str, Value]:
    """State of the system that a network is from (macls, 3D-Speaker, SpeechBrain, PANNs, ...) under our keys.

    Its classifier, if it has one, becomes `head`.
    """
    renamed: dict[str, Value] = {}
    mark, variant = VARIANTS.get(name, ("", ()))
    rules = (*variant, *RULES[name]) if any(mark in key for key in state) else RULES[name]
    for key, value in state.items():
        ours = key
        for pattern, replacement in rules:
            ours = re.sub(pattern, replacement, ours)
        renamed[ours] = value
    return renamed
