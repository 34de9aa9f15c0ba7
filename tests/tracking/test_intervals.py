"""Are the quantiles and intervals of Student's t those of scipy and of the printed tables?"""

from __future__ import annotations

import math

import pytest
from scipy import stats

from engine.tracking.intervals import mean_and_half_width, student_quantile


@pytest.mark.parametrize("degrees", [*range(1, 12), 30, 31, 99, 500])
@pytest.mark.parametrize("level", [0.0, 0.5, 0.95, 0.999])
def test_quantiles_are_those_of_scipy(level: float, degrees: int) -> None:
    expected = stats.t.ppf((1 + level) / 2, degrees)
    assert student_quantile(level, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_printed_table() -> None:
    assert [round(student_quantile(0.95, degrees), 3) for degrees in (1, 2, 4, 9)] == [12.706, 4.303, 2.776, 2.262]


@pytest.mark.parametrize(("level", "degrees"), [(1.0, 3), (-0.1, 3), (0.95, 0)])
def test_values_out_of_range_are_refused(level: float, degrees: int) -> None:
    with pytest.raises(ValueError, match=f"degrees={degrees}"):
        student_quantile(level, degrees)


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    ours, theirs = [0.91, 0.93, 0.925, 0.94], [0.90, 0.91, 0.93, 0.92]
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, half = mean_and_half_width(gains)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert half is not None
    assert (mean - half, mean + half) == pytest.approx((expected.low, expected.high))


def test_one_value_has_no_interval_and_equal_ones_have_no_width() -> None:
    assert mean_and_half_width([0.5]) == (0.5, None)
    assert mean_and_half_width([0.25, 0.25, 0.25]) == (0.25, 0.0)
    assert math.isnan(mean_and_half_width([])[0])
