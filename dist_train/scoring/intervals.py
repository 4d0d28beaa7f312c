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

from dist_train import scores
from dist_train.scored import Scored
from dist_train.scores import Floats
from dist_train.scoring import tallies
from dist_train.scoring.figures import right, truth_of
from dist_train.scoring.ranking import Ranking
from dist_train.scoring.tallies import Tally

DRAWS, LEVEL = 1000, 0.95
FEWEST = 5  # clips or groups under which a draw says nothing of other ones: all draws of a single one are alike
RANKED = ("map", "micro_map", "auc", "d_prime")
_CHUNK = 1 << 22  # weights at once, 32 MB
_MOST = 2e8  # clips times classes times draws of a ranking: some ten seconds
_FEW = 8  # cells up to which kinds of groups are counted
_NORMAL = NormalDist()

Interval = tuple[float, float]
Ids = NDArray[np.int64]


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
    if _count(unit_N, scored) >= FEWEST:
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
    if _count(unit_N, first) < FEWEST:
        return dict.fromkeys(names, (math.nan, math.nan))
    found = {}
    for name in names:
        moved = (_leaning if name in RANKED else _joint)(first, second, name, draws, seed, unit_N)
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


def _leaning(
    first: Scored, second: Scored, name: str, draws: int, seed: int, unit_N: Ids | None
) -> tuple[float, Floats] | None:
    """A ranking's difference where drawing would take minutes, by what each unit adds to both; else None.

    The quantiles of each side's own normal law are no pairs: their differences would know nothing of its width.
    """
    kind = "auc" if name == "d_prime" else name
    sides = [dict(_ranked_parts(one, [name])).get(kind, []) for one in (first, second)]
    if not all(rankings and _slow(first, kind, rankings, draws) for rankings in sides):
        return None
    (before, moved_U), (after, then_U) = (_influence(kind, one, unit_N, len(first.keys)) for one in sides)
    if name == "d_prime":
        moved_U, then_U = moved_U * _slope(before), then_U * _slope(after)
        before, after = scores.d_prime(before), scores.d_prime(after)
    return after - before, _law(after - before, then_U - moved_U, draws)


def _slope(auc: float) -> float:
    """Derivative of d' by the area; NaN where d' is infinite."""
    return math.sqrt(2) / _NORMAL.pdf(_NORMAL.inv_cdf(auc)) if 0 < auc < 1 else math.nan


def _whole(tally: Tally, name: str) -> float:
    """The score of the clips as they are."""
    return float(tally.values(np.bincount(tally.cell_N, minlength=tally.size)[None].astype(np.float64))[name][0])


def units(groups: NDArray[np.unsignedinteger] | None) -> Ids | None:
    """(N,) what is drawn together, from 0 on, a clip without a group (0) alone; None where each clip is alone."""
    if groups is None or not (groups > 0).any():
        return None
    unit_N = np.empty(len(groups), np.int64)
    names, unit_N[groups > 0] = np.unique(groups[groups > 0], return_inverse=True)
    unit_N[groups == 0] = len(names) + np.arange((groups == 0).sum())
    return unit_N if int(unit_N.max()) + 1 < len(groups) else None


def _count(unit_N: Ids | None, scored: Scored) -> int:
    """How many are drawn."""
    return len(scored.keys) if unit_N is None else int(unit_N.max()) + 1


def _drawn(
    scored: Scored, names: Sequence[str], draws: int, seed: int, unit_N: Ids | None, paired: bool = False
) -> dict[str, tuple[float, Floats]]:
    """Each score, and it in all draws. `paired`: the draws of two that have the same clips are the same."""
    found: dict[str, tuple[float, Floats]] = {}
    if ranked := [name for name in names if name in RANKED]:
        found |= _rankings(scored, ranked, draws, seed, unit_N)
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
        random, rows = np.random.default_rng(seed), max(1, _CHUNK // max(len(count_M), tally.size))
        for start in range(0, draws, rows):
            drawn_DM = random.multinomial(count_M.sum(), count_M / count_M.sum(), min(rows, draws - start))
            yield drawn_DM.astype(np.float64) if cells_MK is None else drawn_DM @ cells_MK
        return
    for weight_DN in _weights(clips, draws, seed, unit_N):
        yield tallies.summed(weight_DN, tally.cell_N, tally.size)


def _kinds(tally: Tally, unit_N: Ids | None) -> tuple[Ids, Floats | None] | None:
    """What is drawn, by kind: how many there are (M,), and the clips of each cell in one of them (None: one of cell m).

    None where there are so many kinds that it is quicker to draw the clips: a kind costs as much as six of them.
    """
    if unit_N is None:
        return (np.bincount(tally.cell_N, minlength=tally.size), None) if 6 * tally.size < len(tally.cell_N) else None
    if tally.size > _FEW:
        return None
    count = int(unit_N.max()) + 1
    cells_UK = np.bincount(unit_N * tally.size + tally.cell_N, minlength=count * tally.size).reshape(count, -1)
    cells_MK, count_M = np.unique(cells_UK, axis=0, return_counts=True)
    return (count_M, cells_MK.astype(np.float64)) if 6 * len(count_M) < count else None


def _weights(clips: int, draws: int, seed: int, unit_N: Ids | None, entries: int = 1) -> Iterator[Floats]:
    """How often each clip is in a draw, some (d, clips) at a time; the same whatever they are wanted for.

    `entries`: of a clip in what is made of them.
    """
    random, count = np.random.default_rng(seed), clips if unit_N is None else int(unit_N.max()) + 1
    rows = max(1, _CHUNK // (clips * entries))
    for start in range(0, draws, rows):
        some = min(rows, draws - start)
        taken = random.integers(0, count, (some, count)) + np.arange(some)[:, None] * count
        weight_DU = np.bincount(taken.ravel(), minlength=some * count).reshape(some, count).astype(np.float64)
        yield weight_DU if unit_N is None else weight_DU[:, unit_N]


def _rankings(
    scored: Scored, names: Sequence[str], draws: int, seed: int, unit_N: Ids | None
) -> dict[str, tuple[float, Floats]]:
    """Scores that rest on the order of clips, in all draws; beyond _MOST in as many quantiles of a normal law."""
    clips = len(scored.keys)
    found = {name: (math.nan, np.full(draws, np.nan)) for name in names}
    for name, rankings in _ranked_parts(scored, names):
        if rankings and _slow(scored, name, rankings, draws):
            value, influence_U = _influence(name, rankings, unit_N, clips)
            found[name] = value, _law(value, influence_U, draws)
        elif rankings:
            found[name] = _sampled(name, rankings, draws, seed, unit_N, clips)
    if "d_prime" in names and "auc" in found:
        value, drawn = found["auc"]
        found["d_prime"] = scores.d_prime(value), np.array([scores.d_prime(float(one)) for one in drawn])
    return found


def _ranked_parts(scored: Scored, names: Sequence[str]) -> list[tuple[str, list[Ranking]]]:
    """What is ranked for each score: all labels together, or each class that has a positive (and a negative)."""
    parts: list[tuple[str, list[Ranking]]] = []
    if "micro_map" in names and scored.truth.any():
        parts.append(("micro_map", [Ranking(scored.probability_NC.ravel(), scored.truth.ravel() > 0)]))
    if set(names) - {"micro_map"}:
        columns = [(truth_of(scored, one), scored.probability_NC[:, one]) for one in range(len(scored.classes))]
        kept = [Ranking(score_N, truth_N) for truth_N, score_N in columns if truth_N.any()]
        parts += [("map", kept)] if "map" in names else []
        parts += [("auc", [one for one in kept if not one.truth.all()])] if {"auc", "d_prime"} & set(names) else []
    return parts


def _slow(scored: Scored, name: str, rankings: Sequence[Ranking], draws: int) -> bool:
    clips, width = scored.probability_NC.shape
    return bool(clips * len(rankings) * draws * (width if name == "micro_map" else 1) > _MOST)


def _sampled(
    name: str, rankings: Sequence[Ranking], draws: int, seed: int, unit_N: Ids | None, clips: int
) -> tuple[float, Floats]:
    def value(weight_DN: Floats) -> Floats:
        values_RD = np.stack([_ranked(name, one, weight_DN) for one in rankings])
        with np.errstate(invalid="ignore"):  # a draw may leave no class that has both kinds of clips
            return np.asarray(np.nansum(values_RD, axis=0) / (~np.isnan(values_RD)).sum(0))

    entries = len(rankings[0].order) // clips
    drawn = [value(weight_DN) for weight_DN in _weights(clips, draws, seed, unit_N, entries)]
    return float(value(np.ones((1, clips)))[0]), np.concatenate(drawn)


def _influence(name: str, rankings: Sequence[Ranking], unit_N: Ids | None, clips: int) -> tuple[float, Floats]:
    """The score, and the influence of each unit on it."""
    value = float(np.mean([_ranked(name, one, np.ones((1, len(one.order))))[0] for one in rankings]))
    influence_N = np.zeros(clips)
    for one in rankings:
        moved = one.area_influence() if name == "auc" else one.precision_influence()
        influence_N += moved.reshape(clips, -1).sum(1) / len(rankings)
    return value, influence_N if unit_N is None else np.bincount(unit_N, influence_N).astype(np.float64)


def _law(value: float, influence_U: Floats, draws: int) -> Floats:
    """Quantiles of the normal law whose variance is the sum of the units' squared influences."""
    spread = float(np.sqrt((influence_U**2).sum()))
    if spread == 0:
        return np.full(draws, value)
    law = NormalDist(value, spread)
    return np.array([law.inv_cdf((number + 0.5) / draws) for number in range(draws)])


def _ranked(name: str, ranking: Ranking, weight_DN: Floats) -> Floats:
    return ranking.area(weight_DN) if name == "auc" else ranking.average_precision(weight_DN)


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
    count = len(right_N) if unit_N is None else int(unit_N.max()) + 1
    edge = ((1 - level) / 2) ** (1 / count)
    return (edge, 1.0) if right_N.all() else (0.0, 1 - edge)
