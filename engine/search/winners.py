"""Winners of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.search.definition import Sweep
from engine.search.trial import Trial


def best_trial(sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """Return the finished trial with the best metric, the earliest of equals; None if no trial finished."""
    known = _comparable(trials, (sweep.judged_by,))
    return max(known, key=lambda trial: (goodness(sweep, sweep.judged_by, trial), -trial.number), default=None)


def ranked(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials, finished ones by their metric and then the others by how far they came."""
    finished = {trial.number for trial in _comparable(trials, (sweep.judged_by,))}

    def order(trial: Trial) -> tuple[bool, float, int, float, int]:
        value = trial.metrics.get(sweep.judged_by, math.nan)
        good = -math.inf if math.isnan(value) else goodness(sweep, sweep.judged_by, trial)
        if trial.number in finished:
            return False, -good, 0, 0.0, trial.number
        return True, 0.0, -trial.epochs, -good, trial.number

    return sorted(trials, key=order)


def pareto_front(sweep: Sweep, trials: Sequence[Trial]) -> tuple[int, ...]:
    """Return the numbers of the finished trials of which no other is as good in everything and better in something.

    What counts is the metric and what it is held against; without the latter there is no front.
    """
    if not sweep.against:
        return ()
    names = (sweep.judged_by, *sweep.against)
    known = _comparable(trials, names)
    goods = {trial.number: tuple(goodness(sweep, name, trial) for name in names) for trial in known}
    return tuple(
        number
        for number, own in goods.items()
        if not any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in goods.values())
    )


def _comparable(trials: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    return [
        trial
        for trial in trials
        if trial.status == "finished" and all(math.isfinite(trial.metrics.get(name, math.nan)) for name in names)
    ]


def goodness(sweep: Sweep, name: str, trial: Trial) -> float:
    """Return a trial's value of a metric, with its sign turned where smaller is better."""
    value = trial.metrics[name]
    return value if sweep.measures[name].higher_is_better else -value
