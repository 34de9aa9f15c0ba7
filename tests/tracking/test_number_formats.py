"""Numbers as people read them."""

from __future__ import annotations

import math
import statistics

import pytest

from engine.tasks import ACCURACY
from engine.tracking import (
    format_bytes,
    format_nats,
    format_points,
    format_seconds,
)
from engine.tracking.scores import format_scores
from engine.tracking.tables import format_rate


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (1023.4 * 1024, "1,023 KiB"),
        (1023.7 * 1024, "1.00 MiB"),
        (1.25 * 2**30, "1.25 GiB"),
        (2000 * 2**50, "2,000 PiB"),
        (-2048, "-2.00 KiB"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86399, "1 d 00 h"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
        (-1, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0.00"), (0.5, "0.50"), (98.7, "98.7"), (1234.5, "1,234"), (math.nan, "-")]
)
def test_rates(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_differences_of_shares_are_points_and_divergences_nats() -> None:
    assert (format_points(0.0125), format_points(-1.0), format_nats(0.03125)) == (
        "1.25 points",
        "-100.00 points",
        "0.0312 nats",
    )


def test_accuracy_is_mean_and_sample_deviation() -> None:
    values = (0.91, 0.92, 0.95)
    expected = f"{100 * sum(values) / 3:.2f} ± {100 * statistics.stdev(values):.2f} %"
    assert format_scores(ACCURACY, values) == expected == "92.67 ± 2.08 %"
    assert format_scores(ACCURACY, (0.5,)) == "50.00 %"
    assert format_scores(ACCURACY, ()) == "-"
    assert format_scores(ACCURACY, (0.5, math.nan)) == "nan"
