"""Logits and targets -> one loss a sample. In: logits_BC, label_B or target_BC; out: loss_B, in float32 or wider.

    softmax   cross-entropy, with label smoothing (Szegedy 2016, arXiv 1512.00567) and a weight for each class
    focal     (1 - p) ** gamma times the cross-entropy -log p (Lin 2017, arXiv 1708.02002)
    bce       mean over classes of the binary cross-entropy, for clips of several labels
    am, aam   cross-entropy with the true class's cosine lowered by a margin: cos - m (Wang 2018, arXiv 1801.05599), or
              cos(angle + m) (Deng 2019, arXiv 1801.07698); logits are scale times cosines (`models.cosine`)

A loss of a sample does not depend on its batch mates: with class weights too the engine divides by the number of
samples, not by the sum of their weights.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dist_train.settings import Augment, Objective

MARGINS = ("am", "aam")  # names of the losses on cosines
_LEAST = 1e-3  # of an exponential rise: what is left of it at its end


def sample_losses(
    logits_BC: Tensor,
    label_B: Tensor,
    partner_B: Tensor | None,
    mix_B: Tensor | None,
    settings: Objective,
    *,
    target_BC: Tensor | None = None,
    weight_C: Tensor | None = None,
    margin: float | None = None,
) -> Tensor:
    """Loss of each sample, `(B,)`.

    Under mixup a window is `mix` of itself and `1 - mix` of row `partner`; so is its loss, and so are its targets.
    `target_BC`: 1 where a clip has a label (bce only); `weight_C`: of classes; `margin`: now, None for the setting's.
    """
    logits_BC = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    if settings.name == "bce":
        assert target_BC is not None, "the feed hands over targets where the objective is bce"
        return _binary(logits_BC, _mixed(target_BC.to(logits_BC.dtype), partner_B, mix_B), settings, weight_C)
    margin = settings.margin if margin is None else margin
    loss_B = _one(logits_BC, label_B, settings, weight_C, margin)
    if partner_B is None or mix_B is None:
        return loss_B
    other_B = _one(logits_BC, label_B[partner_B], settings, weight_C, margin)
    return mix_B * loss_B + (1 - mix_B) * other_B


def right(logits_BC: Tensor, label_B: Tensor, target_BC: Tensor | None) -> Tensor:
    """Whether each row's highest logit is its label, or one of its labels: bool (B,)."""
    guess_B = logits_BC.argmax(1)
    if target_BC is None:
        return guess_B == label_B
    return target_BC.gather(1, guess_B[:, None])[:, 0] > 0


def margin(consumed: int, epoch: int, settings: Objective) -> float:
    """The margin of the step that starts at position `consumed`, with `epoch` positions an epoch: 0, a rise, constant.

    An exponential rise closes the gap by 1e-3 ** share, a linear one by the share of the way.
    """
    if settings.margin_epochs is None:
        return settings.margin
    first, last = settings.margin_epochs
    done = consumed / epoch
    if done >= last:
        return settings.margin
    share = max(0.0, done - first) / (last - first) if last > first else 0.0
    return settings.margin * (1 - _LEAST**share if settings.margin_rise == "exponential" else share)


def class_weights(
    counts_C: NDArray[np.int64], samples: int, classes: Sequence[str], settings: Objective
) -> NDArray[np.float64] | None:
    """Weights (C,) float64, None where all weigh the same. `counts_C`: samples of each class among all `samples`.

    balanced: samples / (classes * count); for bce negatives / positives. A class without samples weighs 1. ValueError:
    a name that is no class.
    """
    chosen = settings.class_weights
    if chosen == "none":
        return None
    if isinstance(chosen, dict):
        if unknown := sorted(set(chosen) - set(classes)):
            raise ValueError(f"objective.class_weights names `{unknown[0]}`, which is no class: {_some(classes)}")
        return np.array([chosen.get(name, 1.0) for name in classes])
    part = samples - counts_C if settings.name == "bce" else np.full(len(classes), samples / len(classes))
    weight_C = part / np.maximum(counts_C, 1)
    return np.where((counts_C > 0) & (weight_C > 0), weight_C, 1.0)


def variants(augment: Augment, settings: Objective) -> list[Fraction]:
    """Speed factors whose classes are apart, those of factor 1 first; [1] without `speed_classes`."""
    if not settings.speed_classes:
        return [Fraction(1)]
    return [Fraction(1), *sorted(set(augment.speed) - {Fraction(1)})]


def speed_labels(plan: NDArray[Any], classes: int, augment: Augment, settings: Objective) -> None:
    """Labels of a plan (of `window`) become those of the speed variants, in place: label + classes * variant."""
    order = variants(augment, settings)
    number = np.zeros(256, np.int32)  # a factor beyond augment.speed is 1
    number[: len(augment.speed)] = [order.index(factor) if len(order) > 1 else 0 for factor in augment.speed]
    plan["label"] += classes * number[plan["factor"]]


def _one(logits_BC: Tensor, label_B: Tensor, settings: Objective, weight_C: Tensor | None, margin: float) -> Tensor:
    """Loss of each row for one label a row."""
    if settings.name in MARGINS:
        logits_BC = _with_margin(logits_BC / settings.scale, label_B, settings, margin) * settings.scale
    if weight_C is not None:
        weight_C = weight_C.to(logits_BC.dtype)
    if settings.name == "focal":
        minus_B = F.cross_entropy(logits_BC, label_B, reduction="none")
        # not 0, where a power under 1 is infinitely steep
        miss_B = (-torch.expm1(-minus_B)).clamp(min=torch.finfo(minus_B.dtype).tiny)
        loss_B = miss_B**settings.gamma * minus_B
        return loss_B if weight_C is None else weight_C[label_B] * loss_B
    smoothing = settings.label_smoothing
    return F.cross_entropy(logits_BC, label_B, weight_C, reduction="none", label_smoothing=smoothing)


def _with_margin(cos_BC: Tensor, label_B: Tensor, settings: Objective, margin: float) -> Tensor:
    """Cosines with that of the true class lowered by the margin.

    Beyond an angle of pi - m, where cos(angle + m) would rise again, aam takes cos - m sin m; `easy_margin` leaves
    cosines below 0 as they are.
    """
    cos_B1 = cos_BC.gather(1, label_B[:, None])
    if settings.name == "am":
        return cos_BC.scatter(1, label_B[:, None], cos_B1 - margin)
    # the root's slope is infinite at 0, and 0 times infinity would end the run
    sin_B1 = (1 - cos_B1.square()).clamp(min=torch.finfo(cos_BC.dtype).eps).sqrt()
    moved_B1 = cos_B1 * math.cos(margin) - sin_B1 * math.sin(margin)
    if settings.easy_margin:
        moved_B1 = torch.where(cos_B1 > 0, moved_B1, cos_B1)
    else:
        moved_B1 = torch.where(cos_B1 > -math.cos(margin), moved_B1, cos_B1 - margin * math.sin(margin))
    return cos_BC.scatter(1, label_B[:, None], moved_B1)


def _binary(logits_BC: Tensor, target_BC: Tensor, settings: Objective, weight_C: Tensor | None) -> Tensor:
    if settings.label_smoothing:
        target_BC = target_BC * (1 - settings.label_smoothing) + settings.label_smoothing / 2
    weight_C = weight_C.to(logits_BC.dtype) if weight_C is not None else None
    return F.binary_cross_entropy_with_logits(logits_BC, target_BC, pos_weight=weight_C, reduction="none").mean(1)


def _mixed(target_BC: Tensor, partner_B: Tensor | None, mix_B: Tensor | None) -> Tensor:
    if partner_B is None or mix_B is None:
        return target_BC
    mix_B1 = mix_B.to(target_BC.dtype)[:, None]
    return mix_B1 * target_BC + (1 - mix_B1) * target_BC[partner_B]


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
