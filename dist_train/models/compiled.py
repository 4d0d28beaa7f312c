"""A model -> the same one with its blocks compiled in place, and the way back for a while.

Each block is a graph of its own: gradients are handed over between blocks, so the all-reduce runs beside the backward
that is still to come, and blocks of equal shape share one compilation. What lies between the blocks stays eager.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

_VARIANTS = 64  # of one class: shapes of its blocks times sizes of groups; dynamo's own 8 would end in eager code


def blocks(model: nn.Module) -> list[nn.Module]:
    """The outermost modules of the types in the model's `BLOCKS`, in order; without `BLOCKS` the model itself."""
    kinds: tuple[type[nn.Module], ...] = getattr(model, "BLOCKS", ())
    return list(_outermost(model, kinds)) if kinds else [model]


def compile_blocks(model: nn.Module, graphs: bool = False) -> None:
    """Compile in place, for the shapes that come. `graphs`: each block a CUDA graph, replayed with one launch."""
    import torch._dynamo as dynamo

    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, _VARIANTS)
    dynamo.config.optimize_ddp = False  # it cuts whole models at DDP's buckets; blocks are cut already
    for block in blocks(model):
        if graphs:
            block.compile(dynamic=False, mode="reduce-overhead")
        else:
            block.compile(dynamic=False)


def is_compiled(model: nn.Module) -> bool:
    """Whether a part of the model is compiled in place."""
    return any(module._compiled_call_impl is not None for module in model.modules())


def eager(model: nn.Module) -> AbstractContextManager[None]:
    """In it the model runs as written: a forward of another shape or mode would compile all blocks once more."""
    if not is_compiled(model):
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def _outermost(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, kinds):
            yield child
        else:
            yield from _outermost(child, kinds)
