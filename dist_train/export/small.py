"""An ONNX model -> one whose network computes in 8 bits, or keeps its numbers in 16; the front end stays in float32.

static    weights and activations in 8 bits, ranges of activations from training clips: the fastest, the most is lost
dynamic   weights in 8 bits, activations' ranges found anew at each call; matrix products only, convolutions stay float
half      weights and arithmetic in float16 where the runtime has it: half the size, next to nothing lost

By onnxruntime's own tools. What is lost differs from network to network: `loss` measures it.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dist_train import scores
from dist_train.export.beside import Answer, Difference, Wave
from dist_train.export.clips import Real
from dist_train.inference import Model

KINDS = ("static", "dynamic")
FRONT = ("spectra.", "statistics")  # what the front end's constants are called
SIZED = ("Conv", "MatMul", "Gemm")


def quantised(proto: Any, kind: str, waves: Iterable[Wave]) -> Any:
    """In 8 bits; `waves`: what static finds the ranges with."""
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory(prefix="dist-train-export-") as folder:
        plain, made = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        _joined(proto, plain)
        options: dict[str, Any] = {
            "op_types_to_quantize": list(SIZED),
            "nodes_to_exclude": _front(plain),
            "per_channel": True,
            "weight_type": quantization.QuantType.QInt8,
        }
        if kind == "dynamic":
            quantization.quantize_dynamic(plain, made, **options | {"op_types_to_quantize": ["MatMul", "Gemm"]})
        else:
            quantization.quantize_static(plain, made, _Clips(waves), **options)
        return _with_facts(_load(made), proto)


def half(proto: Any) -> Any:
    """In float16, but for the front end."""
    from onnxruntime.transformers import float16

    kept = [node.name for node in proto.graph.node if not _of_network(node)]
    copy = type(proto)()
    copy.CopyFrom(proto)
    return _with_facts(float16.convert_float_to_float16(copy, keep_io_types=True, node_block_list=kept), proto)


@dataclass
class Loss:
    """A small file beside the large one on the clips that the run was scored on: the run's own metric of each."""

    metric: str
    before: float
    after: float
    beside: Difference

    def __str__(self) -> str:
        return f"{self.metric} {self.before:.4f} before, {self.after:.4f} after; {self.beside}"


def loss(model: Model, large: Answer, small: Answer, clips: Iterable[Real]) -> Loss:
    """What was lost. ValueError without a clip whose labels are known."""
    truth, one, other, beside = [], [], [], Difference()
    for clip in clips:
        large_BC, small_BC = large(clip.wave)[0], small(clip.wave)[0]
        beside = beside.and_of(large_BC.astype(np.float64), small_BC)
        truth.append(clip.truth)
        one.append(large_BC[0])
        other.append(small_BC[0])
    if not truth or any(found is None for found in truth):
        raise ValueError("what 8 bits lose is measured on the clips that the run was scored on, and they are not here")
    metric = scores.metric(model.config)
    before, after = (_score(model, metric, np.stack(found), truth) for found in (one, other))
    return Loss(metric, before, after, beside)


def _score(model: Model, metric: str, probability_NC: Any, truth: list[Any]) -> float:
    chance_NC = torch.from_numpy(probability_NC).double()
    if model.several:
        return scores.several(chance_NC.logit(eps=1e-15), torch.from_numpy(np.stack(truth)), []).values[metric]
    labels_N = torch.tensor([int(label) for label in truth])
    return scores.single(chance_NC.clamp(min=1e-30).log(), labels_N, [], model.config.evaluation.k).values[metric]


class _Clips:
    """Clips one by one, as onnxruntime asks for them."""

    def __init__(self, waves: Iterable[Wave]) -> None:
        self.waves = iter(waves)

    def get_next(self) -> dict[str, Wave] | None:
        """The next clip; None: that was all."""
        wave = next(self.waves, None)
        return None if wave is None else {"wave": wave}


def _joined(proto: Any, path: Path) -> None:
    """Norms joined with the convolutions before them, as onnxruntime does it at its start: then 8 bits hold both."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _front(path: Path) -> list[str]:
    """Names of the front end's products."""
    nodes = _load(path).graph.node
    return [node.name for node in nodes if any(name.startswith(FRONT) for name in node.input)]


def _of_network(node: Any) -> bool:
    """Whether a node computes with the network's weights."""
    return any(name.startswith("network.") for name in node.input)


def _load(path: Path) -> Any:
    import onnx

    return onnx.load(str(path))


def _with_facts(made: Any, proto: Any) -> Any:
    import onnx

    onnx.helper.set_model_props(made, {entry.key: entry.value for entry in proto.metadata_props})
    made.producer_name = proto.producer_name
    return made
