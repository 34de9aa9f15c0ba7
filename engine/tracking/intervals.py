"""Confidence intervals of the mean of a few values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.tracking.tables import mean_and_deviation

_LEVEL = 0.95
# Halving a right angle so often reaches the last bit of a double.
_HALVINGS = 60


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of n values and half the width of its 95 % Student-t interval, t(0.975, n - 1) s / sqrt(n).

    Of paired differences this is the interval of the paired t-test (Student, 1908). One value has no interval.
    """
    mean, deviation = mean_and_deviation(values)
    if deviation is None:
        return mean, None
    return mean, student_quantile(_LEVEL, len(values) - 1) * deviation / math.sqrt(len(values))


def student_quantile(level: float, degrees: int) -> float:
    """The t for which a Student-t variable lies between -t and t with this probability.

    Args:
        level: the probability, at least 0 and less than 1.
        degrees: degrees of freedom, 1 or more.

    Raises:
        ValueError: one of them is out of its range.
    """
    if not 0 <= level < 1 or degrees < 1:
        raise ValueError(f"level={level}, degrees={degrees}: expected 0 <= level < 1 and degrees >= 1")
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _central_probability(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _central_probability(angle: float, degrees: int) -> float:
    """Probability of [-t, t] where t = sqrt(degrees) tan(angle): Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    # The terms 1, 1/2 cos^2, 1*3/(2*4) cos^4, ... for an even number; cos, 2/3 cos^3, 2*4/(3*5) cos^5, ... for an odd.
    term, total = (cosine if odd else 1.0), 0.0
    for index in range(1, degrees // 2 + 1):
        total += term
        term *= cosine**2 * ((2 * index) / (2 * index + 1) if odd else (2 * index - 1) / (2 * index))
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
