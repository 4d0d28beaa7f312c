"""Two models' right and wrong guesses on the same clips -> whether they differ: McNemar's test (Psychometrika, 1947).

Only clips count that one model got right and the other wrong; if the models were equally good, each such clip would
be a coin's toss.
"""

import math
from dataclasses import dataclass

import numpy as np

from dist_train.scores import Marks

EXACT = 1000  # discordant clips up to which the binomial law is summed; beyond it chi-squared is as good


@dataclass(frozen=True)
class Test:
    """first, second: clips that only that one got right; p: two-sided; method: exact binomial, or chi-squared."""

    both: int
    first: int
    second: int
    neither: int
    p: float
    method: str


def test(first_N: Marks, second_N: Marks) -> Test:
    """`*_N`: (N,) whether each clip was right."""
    one, two = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    exact = one + two <= EXACT
    p = binomial(one, two) if exact else chi_squared(one, two)
    both, neither = int((first_N & second_N).sum()), int(np.sum(~first_N & ~second_N))
    return Test(both, one, two, neither, p, "exact binomial" if exact else "chi-squared, continuity-corrected")


def binomial(one: int, two: int) -> float:
    """Two-sided p of `one` of one + two tosses of a coin, in whole numbers; 1 without a toss."""
    count, least = one + two, min(one, two)
    tail, term = 0, 1
    for number in range(least + 1):
        tail += term
        term = term * (count - number) // (number + 1)
    return min(1.0, 2 * tail / (1 << count))  # of integers of any size, rounded once


def chi_squared(one: int, two: int) -> float:
    """p of (|one - two| - 1)^2 / (one + two) with one degree of freedom (Edwards, 1948)."""
    statistic = max(0, abs(one - two) - 1) ** 2 / (one + two)
    return math.erfc(math.sqrt(statistic / 2))
