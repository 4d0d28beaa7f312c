"""The graph -> a program of torch (.pt2, `torch.export`), which runs where torch is, without this package.

torch.export rather than TorchScript, which torch no longer develops. A program is loaded by `torch.export.load`, which
trusts its file: load none of strangers.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import torch
import torch.fx.experimental._config as symbols

from dist_train.export.beside import Answer
from dist_train.export.graph import Graph

DYNAMIC = torch.export.Dim.DYNAMIC


def program(graph: Graph) -> torch.export.ExportedProgram:
    """For every batch and length. ValueError where torch cannot follow the network."""
    wave = graph.example()
    with _plain(graph):
        try:
            made = torch.export.export(graph, (wave,), dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC},), strict=False)
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # a dozen kinds, none of them for users
            raise ValueError(refused(graph, type(error).__name__)) from error
    # Some kernels' rules note down that a batch was not of one; whether that matters the comparison with the run says.
    made._guards_code = []
    return made


def refused(graph: Graph, why: str) -> str:
    """One line for what an exporter says in a hundred."""
    name = type(graph.network).__name__
    advice = "give evaluation.clip=windows" if graph.cut.whole else "tell the makers of dist_train"
    return f"torch cannot follow {name} with evaluation.clip={graph.evaluation.clip} ({why}); {advice}"


def written(made: torch.export.ExportedProgram, facts: dict[str, str]) -> bytes:
    """The .pt2."""
    file = BytesIO()
    torch.export.save(made, file, extra_files=facts)
    return file.getvalue()


def answer(data: bytes) -> Answer:
    """What asks such a file, loaded anew."""
    module = torch.export.load(BytesIO(data)).module()

    def ask(wave: Any) -> Any:
        with torch.no_grad():
            return tuple(value.numpy() for value in module(torch.from_numpy(wave)))

    return ask


@contextmanager
def _plain(graph: Graph) -> Iterator[None]:
    """Sizes of one are sizes like others, and kernels are not chosen by size: else the program would refuse some.

    Where frames are as many as may be, that is more than torch can follow.
    """
    with (
        warnings.catch_warnings(),
        symbols.patch(backed_size_oblivious=not graph.cut.whole),  # type: ignore[attr-defined]
        torch.backends.mkldnn.flags(enabled=False),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        yield
