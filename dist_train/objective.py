"""Logits and targets -> one loss a sample. In: logits_BC, label_B; out: loss_B, in float32 or wider."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dist_train.settings import Objective


def sample_losses(
    logits_BC: Tensor, label_B: Tensor, partner_B: Tensor | None, mix_B: Tensor | None, settings: Objective
) -> Tensor:
    """Cross-entropy of each sample, `(B,)`, with label smoothing (Szegedy 2016, arXiv 1512.00567).

    Under mixup a window is `mix` of itself and `1 - mix` of row `partner`; so is its loss.
    """
    logits_BC = logits_BC if logits_BC.dtype == torch.float64 else logits_BC.float()
    loss_B = F.cross_entropy(logits_BC, label_B, reduction="none", label_smoothing=settings.label_smoothing)
    if partner_B is None or mix_B is None:
        return loss_B
    other_B = F.cross_entropy(logits_BC, label_B[partner_B], reduction="none", label_smoothing=settings.label_smoothing)
    return mix_B * loss_B + (1 - mix_B) * other_B
