"""Operations of training on one clip: against arithmetic by hand, and nothing is left changed."""

import pytest
import torch
from torch import Tensor, nn

from dist_train import flops, models

BINS, FRAMES, CLASSES = 20, 30, 4


class Plain(nn.Module):
    """A convolution over time, a BatchNorm, dropout, a layer; `frozen` weights get no gradient."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(BINS, 16, 3)
        self.norm, self.dropout, self.head = nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, CLASSES)
        if frozen:
            self.conv.requires_grad_(False)

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        logits_BC: Tensor = self.head(self.dropout(self.norm(self.conv(feat_BTF.transpose(1, 2)))).mean(2))
        return logits_BC


class Reading(Plain):
    """Its graph depends on a value."""

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        return super().forward(feat_BTF) * float(feat_BTF.sum())


@pytest.mark.parametrize("frozen", [False, True])
def test_against_arithmetic(frozen: bool) -> None:
    conv, head = 2 * 16 * BINS * 3 * (FRAMES - 2), 2 * 16 * CLASSES
    # the first layer has no gradient of its input, a frozen one none of its weights
    assert flops.per_clip(Plain(frozen), (FRAMES, BINS)) == conv * (1 if frozen else 2) + head * 3


@pytest.mark.parametrize("name", ["ecapa", "campplus", "eres2net"])
def test_architectures_cost_more_with_every_frame(name: str) -> None:
    model = models.build(name, BINS, CLASSES, channels=8)
    short, long = (flops.per_clip(model, (frames, BINS)) for frames in (100, 200))
    assert short is not None and long is not None
    assert long == pytest.approx(2 * short, rel=0.1)
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert short > 2 * weights  # each weight at least once


def test_nothing_is_changed() -> None:
    torch.manual_seed(5)
    model = Plain()
    model.head.eval()
    before, random = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    flops.per_clip(model, (FRAMES, BINS))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert (model.training, model.conv.training, model.head.training) == (True, True, False)


def test_a_network_that_reads_values_has_no_count() -> None:
    model = Reading()
    assert flops.per_clip(model, (FRAMES, BINS)) is None
    assert model.conv.weight.device.type == "cpu"
