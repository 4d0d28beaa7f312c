"""Poolings against the reference's outputs and gradients; padded frames taking no part; reflect padding."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import FILE
from torch import Tensor, nn
from torch.nn import functional

from dist_train.models import blocks, from_reference, pooling

MODULES: dict[str, Callable[[int], nn.Module]] = {
    "asp_global": lambda channels: pooling.ASP(channels, 8),
    "asp_global_lengths": lambda channels: pooling.ASP(channels, 8),
    "asp_local": lambda channels: pooling.ASP(channels, 8, context=False),
    "sap": lambda channels: pooling.SAP(channels, 8),
    "astp": lambda channels: pooling.ASTP(channels, 8),
    "astp_global": lambda channels: pooling.ASTP(channels, 8, context=True),
    "ws_astp_global": lambda channels: pooling.ASTP(channels, 8, context=True, epsilon=1e-7),
}
FUNCTIONS = {
    "tap": pooling.tap,
    "tap4": pooling.tap,
    "tsp": pooling.tsp,
    "tstp": pooling.tstp,
    "tstp4": pooling.tstp,
    "tsdp4": pooling.tsdp,
    "ws_tstp": partial(pooling.tstp, epsilon=1e-7),
    "cam_stats": pooling.stats,
}
FRAMES = {"asp_global_lengths": torch.tensor([33, 17, 20])}


@pytest.fixture(scope="module")
def fixture() -> dict[str, Tensor]:
    with np.load(FILE.with_name("excerpts.npz")) as file:
        found = {key: torch.from_numpy(file[key]) for key in file if key.startswith("poolings/")}
    return {key.removeprefix("poolings/"): value for key, value in found.items()}


def _mask(frames_B: Tensor, width: int) -> Tensor:
    return (torch.arange(width) >= frames_B[:, None])[:, None]


@pytest.mark.parametrize("name", [*MODULES, *FUNCTIONS])
def test_equals_the_reference(fixture: dict[str, Tensor], name: str) -> None:
    x = fixture["x4" if name.endswith("4") else "x3"].double().requires_grad_()
    pool = FUNCTIONS.get(name)
    if pool is None:
        state = {k.removeprefix(f"state.{name}."): v for k, v in fixture.items() if k.startswith(f"state.{name}.")}
        pool = MODULES[name](x.shape[1]).eval()
        pool.load_state_dict(from_reference("ecapa", state))
        pool.double()
    out = pool(x, _mask(FRAMES[name], x.shape[-1]) if name in FRAMES else None)
    out.square().sum().backward()
    tolerance = 1e-6 if name.startswith("asp") else 1e-9  # the reference keeps its frame weights in float32
    for ours, theirs in ((out, fixture[f"out64.{name}"]), (x.grad, fixture[f"grad64.{name}"])):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.square().mean().sqrt()))


POOLS: dict[str, Callable[..., Tensor]] = {
    "asp": pooling.ASP(6, 4).eval(),
    "sap": pooling.SAP(6, 4),
    "astp": pooling.ASTP(6, 4),
    "astp_global": pooling.ASTP(6, 4, context=True),
    "tsdp": pooling.tsdp,
    "tap": pooling.tap,
    "tsp": pooling.tsp,
    "tstp": pooling.tstp,
    "stats": pooling.stats,
}


@pytest.mark.parametrize("name", POOLS)
@given(frames=st.lists(st.integers(2, 20), min_size=1, max_size=4), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_padded_frames_take_no_part(name: str, frames: list[int], seed: int) -> None:
    pool = POOLS[name]
    x = torch.randn(len(frames), 6, 20, generator=torch.Generator().manual_seed(seed))
    together = pool(x, _mask(torch.tensor(frames), 20))
    for row, count in enumerate(frames):
        torch.testing.assert_close(together[row : row + 1], pool(x[row : row + 1, :, :count]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("frames", [None, torch.tensor([9, 5, 1])])
def test_silent_channels_have_finite_gradients(name: str, frames: Tensor | None) -> None:
    x = torch.zeros(3, 6, 9, requires_grad=True)
    POOLS[name](x, None if frames is None else _mask(frames, 9)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", ["tap", "tsp", "tstp", "tsdp", "astp"])
def test_an_image_is_flattened_channel_major(name: str) -> None:
    x_BCFT, pad = torch.randn(2, 3, 2, 9), _mask(torch.tensor([9, 5]), 9)
    torch.testing.assert_close(POOLS[name](x_BCFT, pad[:, None]), POOLS[name](x_BCFT.flatten(1, 2), pad))


def test_statistics_of_low_precision_are_wide() -> None:
    x = (1000 + torch.randn(2, 3, 500)).bfloat16()
    torch.testing.assert_close(pooling.tsp(x), pooling.tsp(x.float()))
    assert pooling.tsp(x).dtype == torch.float32


@given(size=st.integers(1, 4), frames=st.integers(5, 20), more=st.integers(0, 9))
@settings(deadline=None)
def test_reflection_is_at_each_rows_own_end(size: int, frames: int, more: int) -> None:
    x_BCT = torch.randn(2, 3, frames + more)
    expected = functional.pad(x_BCT[..., :frames], (size, size), mode="reflect")
    assert blocks.reflect(x_BCT[..., :frames], size).equal(expected)
    by_row = blocks.reflect(x_BCT, size, torch.tensor([frames, frames + more]))
    assert by_row[:1, :, : frames + 2 * size].equal(expected[:1])
    assert by_row[1:].equal(functional.pad(x_BCT[1:], (size, size), mode="reflect"))
