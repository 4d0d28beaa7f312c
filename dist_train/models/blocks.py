"""Pieces that the architectures share: what a padded frame is, and convolutions that do not see it.

In and out: activations (B, C, T) or (B, C, F, T) and `frames_B`, the valid frames of each row (None: all are valid).
A clip padded in a batch gives what it gives alone if every kernel wider than a frame sees, past the clip's end, what
it would see alone: zeros (`blank` before a zero-padded convolution) or the clip's mirror image (`reflect`).
With `frames_B=None` all of this costs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn


def padding(frames_B: Tensor | None, x: Tensor) -> Tensor | None:
    """Mask of the padded frames, (B, 1, T) for x (B, C, T), (B, 1, 1, T) for x (B, C, F, T); None if there are none."""
    if frames_B is None:
        return None
    past_BT = torch.arange(x.shape[-1], device=frames_B.device) >= frames_B[:, None]
    return past_BT.view(x.shape[0], *(1,) * (x.dim() - 2), x.shape[-1])


def blank(x: Tensor, pad: Tensor | None) -> Tensor:
    """X with zeros in its padded frames."""
    return x if pad is None else x.masked_fill(pad, 0.0)


def halve(frames_B: Tensor | None) -> Tensor | None:
    """Valid frames after a stride of 2 with "same" padding: ceil(n / 2)."""
    return None if frames_B is None else (frames_B + 1) // 2


def stages(
    block: Callable[[int, int, int], nn.Module], blocks: Sequence[int], planes: Sequence[int], expansion: int = 1
) -> Iterator[tuple[str, nn.ModuleList]]:
    """(name, stage) of so many blocks each, for `through`: each stage but the first halves in its first block.

    block: inputs, planes and stride -> a block of `expansion` times the planes as outputs.
    """
    inputs = planes[0]
    for stage, (count, width) in enumerate(zip(blocks, planes, strict=True), 1):
        layers = nn.ModuleList()
        for number in range(count):
            layers.append(block(inputs, width, 2 if stage > 1 and number == 0 else 1))
            inputs = width * expansion
        yield f"layer{stage}", layers


def through(stages: Iterable[nn.Module], x: Tensor, frames_B: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Stages of residual blocks, each but the first of which halves the frames: the last map and its valid frames.

    A block takes its input, and the padded frames before and after it.
    """
    pad = padding(frames_B, x)
    for number, stage in enumerate(stages):
        before = pad
        if number:
            frames_B = halve(frames_B)
            pad = padding(frames_B, x[..., ::2])
        for block in stage.children():
            x = block(x, before, pad)
            before = pad
    return x, frames_B


def reflect(x_BCT: Tensor, size: int, frames_B: Tensor | None = None) -> Tensor:
    """Mirror `size` frames on each side, (B, C, T) -> (B, C, T + 2 size); a padded row is mirrored at its own end.

    All frames past a row's end hold its mirror image, so that they look like sound to a BatchNorm in training.
    torch's own reflect padding has no deterministic backward on CUDA.
    """
    if size == 0:
        return x_BCT
    if frames_B is None:
        left, right = x_BCT[..., 1 : size + 1].flip(-1), x_BCT[..., -size - 1 : -1].flip(-1)
        return torch.cat([left, x_BCT, right], -1)
    time_T = torch.arange(-size, x_BCT.shape[-1] + size, device=x_BCT.device).abs()
    period_B1 = (2 * frames_B[:, None] - 2).clamp(min=1)
    folded_BT = time_T % period_B1
    index_BT = torch.minimum(folded_BT, period_B1 - folded_BT)
    return x_BCT.gather(-1, index_BT[:, None].expand(-1, x_BCT.shape[1], -1))


class ConvReluNorm(nn.Module):
    """1-D convolution of unchanged length, ReLU, BatchNorm, in this order. (B, C, T) throughout.

    Past a clip's ends lies its mirror image, or zeros if not `mirror`. `kernel` is odd.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, *, groups: int = 1, mirror: bool = True
    ) -> None:
        super().__init__()
        self.reach = dilation * (kernel - 1) // 2 if mirror else 0
        zeros = 0 if mirror else dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=zeros, dilation=dilation, groups=groups)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x_BCT: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """With zeros, padded frames of x must be zero (`blank`)."""
        x_BCT = self.conv(reflect(x_BCT, self.reach, frames_B))
        x_BCT = self.norm(x_BCT.relu_())
        return x_BCT


def check_sizes(model: str, **lists: tuple[Sequence[int], int]) -> None:
    """ValueError unless each list of positive numbers (`blocks`, ...) is as long as its number says."""
    for key, (sizes, count) in lists.items():
        if len(sizes) != count or min(sizes, default=0) < 1:
            raise ValueError(f"model.{key} of {model} is {list(sizes)}: take {count} positive numbers")


def check_bins(model: str, bins: int, least: int) -> None:
    """ValueError for features of fewer bins than `least`: a waveform has one, an encoder its size."""
    if bins < least:
        raise ValueError(
            f"{model} needs at least {least} bins and got {bins}: raise features.bins, or take a features.name of more"
        )


def check_input(model: str, feat_BTF: Tensor, bins: int, least: int) -> None:
    """ValueError unless the features are (B, T, bins) with at least `least` frames."""
    if feat_BTF.dim() != 3 or feat_BTF.shape[-1] != bins:
        raise ValueError(
            f"{model} was built for features (clips, frames, {bins}) and got {tuple(feat_BTF.shape)}: "
            "let features.bins be that of the model"
        )
    if feat_BTF.shape[1] < least:
        raise ValueError(
            f"{model} needs at least {least} frames a clip and got {feat_BTF.shape[1]}: make audio.seconds longer"
        )
