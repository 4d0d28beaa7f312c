"""Student's t distribution, for the mean of a few seeds. In: degrees of freedom; out: a two-sided quantile."""

import math


def quantile(freedom: int, level: float = 0.95) -> float:
    """t such that |T| <= t with probability `level`."""
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def inside(angle: float, freedom: int) -> float:
    """P(|T| <= tan(angle) sqrt(freedom)): the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for number in range(1, freedom // 2 + 1):
        total += term
        term *= cosine**2 * (2 * number / (2 * number + 1) if odd else (2 * number - 1) / (2 * number))
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
