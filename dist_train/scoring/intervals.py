"""Scored clips -> in which interval each score lies, by the bootstrap: what if the clips had been others like these?

    clips, or groups of clips -> drawn with replacement, as many as there are -> scores of each draw -> interval

Clips of one recording or speaker are not independent: where groups are known it is they that are drawn, and the
interval is as wide as it should be. Percentiles are bias-corrected (Efron 1981, BC): the calibration error of a draw
is larger than that of the clips it is drawn from. Where drawing a ranking would take minutes, its interval is the
normal one of the same variance to first order (infinitesimal jackknife).
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dist_train.scored import Scored
from dist_train.scores import Floats
from dist_train.scoring import ranked, tallies
from dist_train.scoring.figures import right
from dist_train.scoring.resampling import CHUNK, Ids, count, units, weights
from dist_train.scoring.tallies import Tally

DRAWS, LEVEL = 1000, 0.95
FEWEST = 5  # clips or groups under which a draw says nothing of other ones: all draws of a single one are alike
_FEW = 8  # cells up to which kinds of groups are counted
_NORMAL = NormalDist()

Interval = tuple[float, float]


def bootstrap(
    scored: Scored,
    names: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    groups: NDArray[np.unsignedinteger] | None = None,
) -> dict[str, Interval]:
    """Interval of each score of `names` (those of `figures.of(...).values`) by name; NaN where it means nothing.

    `groups`: (N,) the group of each clip, 0 for none, as in the index; None: clips are drawn. Of fewer than FEWEST of
    them NaN. Where all clips are right no draw can differ; the accuracy's interval is then the exact binomial one of as
    many draws as there are groups.
    """
    unit_N = units(groups)
    found = dict.fromkeys(names, (math.nan, math.nan))
    if count(unit_N, len(scored.keys)) >= FEWEST:
        for name, values in _drawn(scored, names, draws, seed, unit_N).items():
            low, high = _interval(*values, level)
            found[name] = (low, high) if name == "d_prime" else (max(low, 0.0), high)
    if "accuracy" in found:
        found["accuracy"] = _bounded(found["accuracy"], right(scored), unit_N, level)
    return found


def difference(
    first: Scored,
    second: Scored,
    names: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    groups: NDArray[np.unsignedinteger] | None = None,
) -> dict[str, Interval]:
    """Interval of `second` minus `first`, both scored on the same clips in the same order: each draw is of both."""
    assert np.array_equal(first.keys, second.keys), "clips are matched before"
    unit_N = units(groups)
    if count(unit_N, len(first.keys)) < FEWEST:
        return dict.fromkeys(names, (math.nan, math.nan))
    found = {}
    for name in names:
        moved = (ranked.difference if name in ranked.NAMES else _joint)(first, second, name, draws, seed, unit_N)
        if moved is None:
            pair = (_drawn(one, [name], draws, seed, unit_N, paired=True)[name] for one in (first, second))
            (before, drawn_before), (after, drawn_after) = pair
            moved = after - before, drawn_after - drawn_before
        found[name] = _interval(*moved, level)
    return found


def _joint(
    first: Scored, second: Scored, name: str, draws: int, seed: int, unit_N: Ids | None
) -> tuple[float, Floats] | None:
    """A score's difference in all draws, by cells that both have in common; None where there are too many."""
    sides = [tallies.of(one, name) for one in (first, second)]
    codes, cell_N = np.unique(sides[0].cell_N * sides[1].size + sides[1].cell_N, return_inverse=True)
    both = Tally(cell_N, len(codes), lambda counts_DK: {})
    if _kinds(both, unit_N) is None:
        return None
    keys = codes // sides[1].size, codes % sides[1].size
    drawn: list[list[Floats]] = [[], []]
    for counts_DK in _counts(both, draws, seed, unit_N, paired=False):
        for part, side, key_K in zip(drawn, sides, keys, strict=True):
            part.append(side.values(tallies.summed(counts_DK, key_K, side.size))[name])
    before, after = (np.concatenate(part) for part in drawn)
    return _whole(sides[1], name) - _whole(sides[0], name), after - before


def _whole(tally: Tally, name: str) -> float:
    """The score of the clips as they are."""
    return float(tally.values(np.bincount(tally.cell_N, minlength=tally.size)[None].astype(np.float64))[name][0])


def _drawn(
    scored: Scored, names: Sequence[str], draws: int, seed: int, unit_N: Ids | None, paired: bool = False
) -> dict[str, tuple[float, Floats]]:
    """Each score, and it in all draws. `paired`: the draws of two that have the same clips are the same."""
    found: dict[str, tuple[float, Floats]] = {}
    if ordered := [name for name in names if name in ranked.NAMES]:
        found |= ranked.drawn(scored, ordered, draws, seed, unit_N)
    for name in names:
        if name not in found:
            tally = tallies.of(scored, name)
            parts = [tally.values(counts) for counts in _counts(tally, draws, seed, unit_N, paired)]
            found |= {key: (_whole(tally, key), np.concatenate([part[key] for part in parts])) for key in parts[0]}
    return {name: found[name] for name in names}


def _counts(tally: Tally, draws: int, seed: int, unit_N: Ids | None, paired: bool) -> Iterator[Floats]:
    """Some (d, cells) of all draws at a time."""
    clips = len(tally.cell_N)
    kinds = None if paired else _kinds(tally, unit_N)
    if kinds is not None:
        count_M, cells_MK = kinds
        random, rows = np.random.default_rng(seed), max(1, CHUNK // max(len(count_M), tally.size))
        for start in range(0, draws, rows):
            drawn_DM = random.multinomial(count_M.sum(), count_M / count_M.sum(), min(rows, draws - start))
            yield drawn_DM.astype(np.float64) if cells_MK is None else drawn_DM @ cells_MK
        return
    for weight_DN in weights(clips, draws, seed, unit_N):
        yield tallies.summed(weight_DN, tally.cell_N, tally.size)


def _kinds(tally: Tally, unit_N: Ids | None) -> tuple[Ids, Floats | None] | None:
    """What is drawn, by kind: how many there are (M,), and the clips of each cell in one of them (None: one of cell m).

    None where there are so many kinds that it is quicker to draw the clips: a kind costs as much as six of them.
    """
    if unit_N is None:
        return (np.bincount(tally.cell_N, minlength=tally.size), None) if 6 * tally.size < len(tally.cell_N) else None
    if tally.size > _FEW:
        return None
    many = count(unit_N, 0)
    cells_UK = np.bincount(unit_N * tally.size + tally.cell_N, minlength=many * tally.size).reshape(many, -1)
    cells_MK, count_M = np.unique(cells_UK, axis=0, return_counts=True)
    return (count_M, cells_MK.astype(np.float64)) if 6 * len(count_M) < many else None


def _interval(value: float, drawn: Floats, level: float) -> Interval:
    """Bias-corrected percentiles of the draws in which the score means something.

    Where the clips' own score lies in a tail of its draws, these percentiles are all in the tail's last draws, as near
    to each other as may be: the interval is then the normal one of the draws' deviation.
    """
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn) or math.isnan(value):
        return math.nan, math.nan
    below = float((drawn < value).mean() + (drawn == value).mean() / 2)
    tail = (1 - level) / 2
    if not tail <= below <= 1 - tail and np.isfinite(drawn).all():
        half = -_NORMAL.inv_cdf(tail) * float(drawn.std())
        return value - half, value + half
    shift = 2 * _NORMAL.inv_cdf(min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    low, high = np.quantile(drawn, [_NORMAL.cdf(shift + _NORMAL.inv_cdf(share)) for share in (tail, 1 - tail)])
    return float(low), float(high)


def _bounded(interval: Interval, right_N: NDArray[np.bool_], unit_N: Ids | None, level: float) -> Interval:
    """Clopper and Pearson's interval where all draws are alike."""
    if right_N.any() and not right_N.all():
        return interval
    edge = ((1 - level) / 2) ** (1 / count(unit_N, len(right_N)))
    return (edge, 1.0) if right_N.all() else (0.0, 1 - edge)
