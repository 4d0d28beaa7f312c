"""Level, sign and place of training windows: what is drawn for each row, and the CPU's way to shift it.

In: PLAN rows; waveforms (B, C, T). Out: draws; the same, changed in place. Other changes: `scene`, `mixing`, `masks`.

Every draw is `uniform(seed, position, name)` on the host, so it does not depend on rank, thread or batch. `batched`
takes the same draws to an accelerator, as a few numbers a row.
"""

import numpy as np
from torch import Tensor

from dist_train.decode import Rows
from dist_train.effects.chosen import Floats, Ints
from dist_train.order import uniform
from dist_train.settings import Audio, Augment


def shift(wave_BCT: Tensor, filled: Ints, share: Floats) -> Tensor:
    """Circular shift, in place, of the first `filled` samples of each row by `share` of them (-1 to 1)."""
    for row, step, end in zip(wave_BCT, shift_steps(filled, share).tolist(), filled.tolist(), strict=True):
        row[:, :end] = row[:, :end].roll(step, 1)
    return wave_BCT


def shift_steps(filled: Ints, share: Floats) -> Ints:
    """(B,) samples by which each row is shifted, from 0 on and under `filled`."""
    return np.asarray(np.rint(share * filled).astype(np.int64) % np.maximum(filled, 1))


def gains(
    plan: Rows, target_db: float | None, range_db: tuple[float, float] | None, seed: int, probability: float = 1.0
) -> Floats | None:
    """(B,) factors: each clip's RMS brought to `target_db` (silent clips stay), then a gain drawn from `range_db`.

    `probability`: the share of rows that get the drawn gain.
    """
    level = np.zeros(len(plan))
    if target_db is not None:
        rms = plan["rms"].astype(np.float64)
        known = np.isfinite(rms) & (rms > 0)
        level += np.where(known, target_db - 20 * np.log10(np.where(known, rms, 1.0)), 0.0)
    if range_db is not None:
        low, high = range_db
        chosen = uniform(seed, plan["position"], "gain chosen") < probability
        level += np.where(chosen, low + (high - low) * uniform(seed, plan["position"], "gain"), 0.0)
    return 10 ** (level / 20) if target_db is not None or range_db is not None else None


def levels(
    plan: Rows, audio: Audio, augment: Augment, seed: int, training: bool
) -> tuple[Floats | None, Floats | None]:
    """(B,) factors before reverb and noise, and after them; None: all are 1.

    The random gain comes first where the level is the clip's (reverb and noise at a ratio keep it), and last where it
    is the window's, which would undo it. A turned sign (augment.polarity) is in the first.
    """
    drawn = augment.gain_db if training else None
    late = audio.target_db is not None and audio.level == "crop"
    gain = gains(plan, None if late else audio.target_db, drawn, seed, augment.gain_probability)
    first, second = (None, gain) if late else (gain, None)
    if training and augment.polarity > 0:
        turned = uniform(seed, plan["position"], "polarity") < augment.polarity
        first = np.where(turned, -1.0, 1.0) * (1.0 if first is None else first)
    return first, second


def shifts(plan: Rows, augment: Augment, seed: int) -> Floats:
    """(B,) share of each window by which it is shifted, -1 to 1."""
    position = plan["position"]
    share = augment.shift * (2 * uniform(seed, position, "shift").astype(np.float64) - 1)
    if augment.shift_probability < 1:
        share *= uniform(seed, position, "shift chosen") < augment.shift_probability
    return share
