"""Are the winners of a search those that nothing beats?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.search import Sweep, Trial
from engine.search.winners import best_trial, pareto_front, ranked

SPACE = {"seed": {"grid_search": [0, 1]}}
AGAINST = ("memory_bytes", "images_per_second")
ACCURACY = "validation/accuracy"

# Few values, so that equals come up.
_values = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan, math.inf, None])
_statuses = st.sampled_from(["finished", "finished", "finished", "pruned", "failed", "running", "waiting"])
_rows = st.lists(st.tuples(_statuses, _values, _values, _values), max_size=12)


def _sweep(metric: str = ACCURACY, against: tuple[str, ...] = AGAINST) -> Sweep:
    return Sweep("s", "infopro_digits", SPACE, metric=metric, against=against)


def _trials(rows: Any) -> list[Trial]:
    names = (ACCURACY, *AGAINST)
    return [
        Trial(number, {}, status, 1, {n: value for n, value in zip(names, values, strict=True) if value is not None})
        for number, (status, *values) in enumerate(rows)
    ]


def _of(*values: float | None, status: Any = "finished", metric: str = ACCURACY) -> list[Trial]:
    return [Trial(n, {}, status, 1, {} if v is None else {metric: v}) for n, v in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ((0.1, 0.9, 0.5), 1),
        ((0.1, 0.9, 0.9), 1),
        ((math.nan, 0.2, math.nan), 1),
        ((None, 0.2), 1),
        ((math.inf, 0.2), 1),
        ((0.0,), 0),
    ],
)
def test_the_best_is_the_earliest_of_equals(values: Any, best: int) -> None:
    trials = _of(*values)
    found = best_trial(_sweep(), trials)
    assert found is trials[best]
    assert best_trial(_sweep(), trials[::-1]) is trials[best]


@pytest.mark.parametrize("trials", [[], _of(math.nan), _of(None), _of(0.9, status="pruned"), _of(0.9, status="failed")])
def test_without_a_finished_trial_there_is_no_best(trials: list[Trial]) -> None:
    assert best_trial(_sweep(), trials) is None
    assert pareto_front(_sweep(), trials) == ()


@pytest.mark.parametrize("metric", ["validation/loss", "memory_bytes", "validation/expected_calibration_error"])
def test_some_metrics_are_better_when_small(metric: str) -> None:
    found = best_trial(_sweep(metric), _of(3.0, 1.0, 2.0, metric=metric))
    assert found is not None and found.number == 1
    assert _sweep(metric).mode == "min"
    assert _sweep().mode == _sweep("images_per_second").mode == "max"


def test_finished_trials_come_first_and_then_who_came_far() -> None:
    rows: list[tuple[Any, int, float | None]] = [
        ("pruned", 2, 0.99),
        ("finished", 5, 0.2),
        ("failed", 3, None),
        ("finished", 5, 0.8),
        ("pruned", 2, 0.5),
        ("finished", 5, math.nan),
        ("running", 4, 0.5),
        ("finished", 5, 0.8),
        ("waiting", 0, None),
    ]
    trials = [
        Trial(number, {}, status, epochs, {} if value is None else {ACCURACY: value})
        for number, (status, epochs, value) in enumerate(rows)
    ]
    order = [trial.number for trial in ranked(_sweep(), trials)]
    assert order[:3] == [3, 7, 1], "finished, the earliest of equals first"
    assert sorted(order) == list(range(9))
    # Scores of different epochs say little: of the others the furthest come first, and then those that scored best.
    assert order[3:] == [5, 6, 2, 0, 4, 8]
    assert [trial.number for trial in ranked(_sweep(), trials[::-1])] == order


def _beats(sweep: Sweep, one: Trial, other: Trial) -> bool:
    """Whether a trial is as good in everything and better in something, written out one by one."""
    pairs = [
        (one.metrics[ACCURACY], other.metrics[ACCURACY]),
        (-one.metrics["memory_bytes"], -other.metrics["memory_bytes"]),
        (one.metrics["images_per_second"], other.metrics["images_per_second"]),
    ]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(rows=_rows)
def test_the_front_is_what_nothing_beats(rows: Any) -> None:
    sweep, trials = _sweep(), _trials(rows)
    usable = [
        trial
        for trial in trials
        if trial.status == "finished"
        and len(trial.metrics) == 3
        and not any(math.isnan(value) or math.isinf(value) for value in trial.metrics.values())
    ]
    expected = [trial.number for trial in usable if not any(_beats(sweep, other, trial) for other in usable)]
    assert list(pareto_front(sweep, trials)) == expected
    assert bool(expected) == bool(usable)
    # The order in which trials are known has no influence.
    assert sorted(pareto_front(sweep, trials[::-1])) == expected


@given(rows=_rows)
def test_the_best_is_the_largest_of_the_finished_ones(rows: Any) -> None:
    trials = _trials(rows)
    known = [(t.metrics.get(ACCURACY, math.nan), -t.number) for t in trials if t.status == "finished"]
    known = [pair for pair in known if math.isfinite(pair[0])]
    found = best_trial(_sweep(), trials)
    assert (None if found is None else found.number) == (-max(known)[1] if known else None)
    # Who leads the table is who has won.
    if found is not None:
        assert ranked(_sweep(), trials)[0] is found


def test_without_what_it_is_held_against_there_is_no_front() -> None:
    assert pareto_front(_sweep(against=()), _of(0.1, 0.9)) == ()


def test_equals_are_both_on_the_front(make_sweep: Callable[..., Sweep]) -> None:
    same = {ACCURACY: 0.5, "memory_bytes": 10.0}
    trials = [Trial(n, {}, "finished", 1, dict(same)) for n in range(2)]
    trials.append(Trial(2, {}, "finished", 1, {ACCURACY: 0.4, "memory_bytes": 10.0}))
    assert pareto_front(make_sweep(against=("memory_bytes",)), trials) == (0, 1)
