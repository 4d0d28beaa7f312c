"""Sample ids and stream positions -> the plan: which source frames each output window needs, and what becomes of them.

In: index rows (of a view), stream positions, settings. Out: a PLAN array, one row a window, made by vectorised integer
arithmetic. The reader takes from it what to read, the front end how to turn it into `window` samples.

A window is `window` samples of the clip after two conversions, stage 1 (its own rate -> audio.sample_rate) and stage 2
(speed). Only the source frames that it depends on are wanted:

    source frames    |w1|- first ... first + count -|w1|      may reach over the clip's ends: silence
    stage 1          .drop|w2|---- needed ----|w2|.           whole blocks of the filter, `drop` too many before
    stage 2                  |---- window ----|               starts at a block of the speed filter

Starts are multiples of the speed filter's block (10 samples at 9/10 and 11/10), so the window is, bit for bit, what
cutting the whole converted clip would give.
"""

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dist_train.order import uniform
from dist_train.resample import rate_ratio, speed_ratio
from dist_train.settings import Audio, Augment

PLAN = np.dtype(
    [
        ("position", "<i8"),  # in the stream of training; the id in evaluation
        ("id", "<i8"),  # in the view
        ("offset", "<u8"),  # of the clip's data in its file, bytes
        ("size", "<u8"),  # of the clip's data, bytes
        ("first", "<i8"),  # first source frame wanted; before 0 lies silence
        ("count", "<i8"),  # source frames wanted; from `frames` on lies silence
        ("file", "<i4"),
        ("frames", "<u4"),  # of the clip, at `rate`
        ("rate", "<u4"),  # Hz
        ("drop", "<i4"),  # samples at the target rate to drop in front after stage 1
        ("start", "<i4"),  # of the window in the converted clip, samples
        ("length", "<i4"),  # samples of the window that lie in the clip
        ("window", "<i4"),  # samples of the window
        ("label", "<i4"),
        ("weight", "<f4"),  # 0 for a bad sample
        ("rms", "<f4"),  # of the clip; full scale is 1
        ("codec", "u1"),
        ("channels", "<u2"),
        ("factor", "u1"),  # index in augment.speed, or PLAIN
    ]
)
PLAIN = 255  # no change of speed

Ints = NDArray[np.int64]


def window_samples(audio: Audio) -> int:
    """Samples of a training window."""
    return max(1, round(audio.seconds * audio.sample_rate))


def train_windows(
    rows: NDArray[Any],
    ids: Ints,
    positions: Ints,
    activity: NDArray[np.uint8] | None,
    audio: Audio,
    augment: Augment,
    seed: int,
) -> NDArray[Any]:
    """One window for each of (B,) positions: speed factor and start are drawn from (seed, position).

    `activity` (B, 16) is used for audio.crop=active only: the window's centre falls with a probability in proportion to
    the level there. With augment.crop some windows hold less of their clip (`length`). ValueError where a rate or a
    factor cannot be converted.
    """
    window = window_samples(audio)
    factor = _share(uniform(seed, positions, "speed"), len(augment.speed))
    source = _convert(rows["frames"], _rates(rows, audio))
    if augment.speed_probability < 1:
        factor[uniform(seed, positions, "speed chosen") >= augment.speed_probability] = len(augment.speed)
    ratio = _table([*map(_parts, augment.speed), (1, 1, 0)])[factor]
    total = _convert(source, ratio)
    kept = _kept(np.minimum(total, window), positions, augment, seed)
    kept = np.where(kept < np.minimum(total, window), kept, window)  # a whole window may reach past its clip
    free = total - kept
    block = ratio[:, 1]
    draw = uniform(seed, positions, "crop").astype(np.float64)
    if audio.crop == "active":
        assert activity is not None
        centre = _active(activity, uniform(seed, positions, "active"), draw)
        start = (centre * total).astype(np.int64) - kept // 2
        start = np.clip(start, 0, np.maximum(free, 0)) // block * block
    else:
        start = _share(draw, np.maximum(free, 0) // block + 1) * block
    plan = _plan(rows, ids, positions, factor, start, np.full(len(ids), window), audio, augment.speed)
    plan["length"] = np.minimum(plan["length"], kept)
    return plan


def _kept(whole: Ints, positions: Ints, augment: Augment, seed: int) -> Ints:
    """(B,) samples that augment.crop leaves of `whole` ones, at least one."""
    if augment.crop is None or augment.crop.probability == 0:
        return whole
    low, high = augment.crop.keep
    share = low + (high - low) * uniform(seed, positions, "crop kept").astype(np.float64)
    chosen = uniform(seed, positions, "crop length") < augment.crop.probability
    return np.where(chosen, np.rint(share * whole).astype(np.int64).clip(1), whole)


def eval_windows(rows: NDArray[Any], ids: Ints, audio: Audio, hop: float | None = None) -> NDArray[Any]:
    """All windows of (B,) clips, clip by clip: as few as cover it (or one each `hop` s), evenly spaced to its end."""
    window = window_samples(audio)
    length = _convert(rows["frames"], _rates(rows, audio))
    free = np.maximum(length - window, 0)
    step = window if hop is None else max(1, round(hop * audio.sample_rate))
    count = -(-free // step) + 1
    clip = np.repeat(np.arange(len(ids)), count)
    number = np.arange(len(clip)) - np.repeat(np.cumsum(count) - count, count)
    start = free[clip] * number // np.maximum(count[clip] - 1, 1)
    return _plan(rows[clip], ids[clip], ids[clip], None, start, np.full(len(clip), window), audio, [])


def full_windows(rows: NDArray[Any], ids: Ints, audio: Audio, max_seconds: float) -> NDArray[Any]:
    """One window a clip, as long as the clip, at most `max_seconds`."""
    length = _convert(rows["frames"], _rates(rows, audio))
    window = np.clip(length, 1, max(1, round(max_seconds * audio.sample_rate)))
    return _plan(rows, ids, ids, None, np.zeros_like(window), window, audio, [])


def _plan(
    rows: NDArray[Any],
    ids: Ints,
    positions: Ints,
    factor: Ints | None,
    start: Ints,
    window: Ints,
    audio: Audio,
    speed: list[Fraction],
) -> NDArray[Any]:
    """Rows of PLAN for windows [start, start + window) of the converted clips; start is a multiple of the block."""
    plan = np.zeros(len(ids), PLAN)
    for name in ("offset", "size", "file", "frames", "rate", "label", "rms", "codec", "channels"):
        plan[name] = rows[name]
    factor = np.full(len(ids), len(speed)) if factor is None else factor
    rate = _rates(rows, audio)
    ratio = _table([*map(_parts, speed), (1, 1, 0)])[factor]
    length = _convert(_convert(rows["frames"], rate), ratio)
    orig, block, margin = ratio.T
    begin = start // block * orig - margin
    needed = -(-window // block) * orig + 2 * margin
    rate_orig, rate_block, rate_margin = rate.T
    plan["drop"] = begin % rate_block
    plan["first"] = begin // rate_block * rate_orig - rate_margin
    # As many blocks as the worst `drop` needs: the count depends on rate and factor alone, and so do all shapes.
    plan["count"] = (needed + 2 * rate_block - 2) // rate_block * rate_orig + 2 * rate_margin
    plan["id"], plan["position"], plan["start"], plan["window"] = ids, positions, start, window
    plan["length"] = np.clip(length - start, 0, window)
    plan["factor"] = np.where(factor < len(speed), factor, PLAIN)
    plan["weight"] = 1.0
    return plan


def _rates(rows: NDArray[Any], audio: Audio) -> Ints:
    """(B, 3) orig, new and width of the conversion of each row's rate."""
    rates, row = np.unique(rows["rate"], return_inverse=True)
    ratios = [rate_ratio(int(rate), audio.sample_rate) for rate in rates]
    return _table([(ratio.orig, ratio.new, ratio.width) for ratio in ratios])[row]


def _parts(factor: Fraction) -> tuple[int, int, int]:
    ratio = speed_ratio(factor)
    return ratio.orig, ratio.new, ratio.width


def _table(parts: list[tuple[int, int, int]]) -> Ints:
    return np.array(parts, dtype=np.int64).reshape(-1, 3)


def _convert(length: NDArray[Any], ratio: Ints) -> Ints:
    """ceil(length * new / orig) in whole numbers."""
    return np.asarray(-(-length.astype(np.int64) * ratio[:, 1] // ratio[:, 0]))


def _share(draw: NDArray[Any], choices: Ints | int) -> Ints:
    """A whole number below `choices` for each draw in [0, 1)."""
    return np.asarray(np.minimum((draw.astype(np.float64) * choices).astype(np.int64), np.asarray(choices) - 1))


def _active(activity: NDArray[np.uint8], segment_draw: NDArray[Any], inside_draw: NDArray[Any]) -> NDArray[np.float64]:
    """A place in [0, 1) of each clip, with a density in proportion to its level in equal segments (B, S)."""
    level = activity.astype(np.float64)
    level[level.sum(1) == 0] = 1.0
    total = np.cumsum(level, axis=1)
    segment = (total <= segment_draw[:, None].astype(np.float64) * total[:, -1:]).sum(1)
    return np.asarray((segment + inside_draw) / level.shape[1])
