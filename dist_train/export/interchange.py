"""The graph -> an ONNX file: what onnxruntime and other runtimes take, on machines without torch or Python.

Input `wave` (batch, samples), or (batch, samples, channels), float32; outputs `probabilities` (batch, classes) and
`embedding` (batch, size). `facts` lie in metadata_props. Nothing of this machine is in it: no path, no line of code.
"""

import operator
import warnings
from typing import Any

import torch

from dist_train.export.beside import Answer
from dist_train.export.folding import folded
from dist_train.export.graph import Graph
from dist_train.export.program import refused

EXTRA = "ONNX needs onnx, onnxscript and onnxruntime: pip install 'dist-train[export]'"
OPSET = 20


def available() -> None:
    """ValueError where what ONNX needs is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError(EXTRA) from None


def model(made: torch.export.ExportedProgram, graph: Graph, facts: dict[str, str]) -> Any:
    """The ModelProto. ValueError where the network has an operation that ONNX lacks."""
    import onnx

    names = ["probabilities", "embedding"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            done = torch.onnx.export(
                made,
                dynamo=True,
                verbose=False,
                input_names=["wave"],
                output_names=names,
                opset_version=OPSET,
                optimize=False,
                custom_translation_table={operator.floordiv: quotient},
            )
            assert done is not None
            done.model = folded(done.model)
        except MemoryError:
            raise
        except Exception as error:  # as many kinds as operations
            raise ValueError(refused(graph, type(error).__name__)) from error
    proto = done.model_proto
    _cleaned(proto)
    proto.producer_name, proto.producer_version = "dist_train", ""
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    return proto


def quotient(one: Any, other: Any) -> Any:
    """Whole numbers divided as Python does it. torch's own rule is for positive ones: it rounds -n // 2 towards 0, and
    so ceilings, -(-n // 2), come out one short."""
    from onnxscript import opset20

    return opset20.Div(opset20.Sub(one, opset20.Mod(one, other)), other)


def answer(data: bytes, threads: int = 1) -> Answer:
    """What asks such a file."""
    ready = session(data, threads)
    return lambda wave: tuple(ready.run(None, {"wave": wave}))


def session(data: bytes, threads: int = 1) -> Any:
    """A session of onnxruntime on the CPU. What is merely unusual is not told."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _cleaned(proto: Any) -> None:
    """Readable names of the free sizes; no traces of the code that the graph was made of."""
    graph = proto.graph
    sizes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
    for dims in sizes:
        for dim, name in zip(dims, ("batch", "samples"), strict=False):
            if dim.dim_param or dim is dims[0]:
                dim.dim_param = name
    del graph.value_info[:], graph.metadata_props[:], proto.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.doc_string = ""
