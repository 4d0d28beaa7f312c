"""Scores that rest on the order of clips (average precision, areas) -> they in all draws of the bootstrap.

Where drawing would take minutes: quantiles of the normal law of the same variance, from the influence of each clip.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from dist_train import scores
from dist_train.scored import Scored
from dist_train.scores import Floats
from dist_train.scoring.figures import truth_of
from dist_train.scoring.ranking import Ranking
from dist_train.scoring.resampling import Ids, weights

NAMES = ("map", "micro_map", "auc", "d_prime")
_MOST = 2e8  # clips times classes times draws: some ten seconds
_NORMAL = NormalDist()


def drawn(
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
        value, area_D = found["auc"]
        found["d_prime"] = scores.d_prime(value), np.array([scores.d_prime(float(one)) for one in area_D])
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
    parts = [value(weight_DN) for weight_DN in weights(clips, draws, seed, unit_N, entries)]
    return float(value(np.ones((1, clips)))[0]), np.concatenate(parts)


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


def difference(
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
