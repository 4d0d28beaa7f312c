"""ResNetMini against its operations written out, in float64, on images of even and of odd size."""

import pytest
import torch
from networks import assert_close, lived
from torch import Tensor
from torch.nn import functional

from dist_train.models.resnet_mini import ResNetMini


def _evened(x: Tensor) -> Tensor:
    """Zeros beside and below, so that both sides are even."""
    return functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 1, 3, 1)])
@pytest.mark.parametrize("size", [(64, 32), (37, 21), (1, 1)])
@torch.no_grad()
def test_it_is_its_operations(size: tuple[int, int], blocks: tuple[int, ...]) -> None:
    frames, bins = size
    torch.manual_seed(3)
    model = lived(ResNetMini(bins, 7, channels=(4, 6, 8, 10), blocks=blocks).double())
    state, feat_BTF = model.state_dict(), torch.randn(3, frames, bins, dtype=torch.float64)

    def norm(x: Tensor, name: str) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(state[f"{name}.{part}"] for part in names))

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = state[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = norm(conv(feat_BTF.transpose(1, 2)[:, None], "conv1", 2), "bn1").relu()
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1").relu()
            y = norm(conv(y, f"{name}.conv2"), f"{name}.bn2")
            if stride == 2:
                x = functional.avg_pool2d(_evened(x), 2)
                x = norm(conv(x, f"{name}.shortcut.0"), f"{name}.shortcut.1")
            x = (x + y).relu()
    x = x.mean(2)
    expected = functional.linear(x.amax(2) + x.mean(2), state["head.weight"], state["head.bias"])
    assert_close(model(feat_BTF), expected, 1e-9)


def test_a_block_begins_as_its_shortcut() -> None:
    model = ResNetMini(16, 5, channels=4).train()
    first = model.get_submodule("layer1.0")
    x_BCFT = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(first(x_BCFT, None, None), x_BCFT)
