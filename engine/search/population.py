"""Population-based training: who copies whom, and with which settings it goes on.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", sections 3.1 and 4.1: exploitation by truncation
selection, exploration by perturbing or resampling. All members are compared at the same epoch, and every choice is a
pure function of the search's seed, the epoch and the members' scores: a search is the same each time, however many
members train at once and however often it was killed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.tune.search.sample import Float, Integer, Quantized

from engine.search.definition import Sweep
from engine.search.settings import Settings, choices, draw
from engine.search.trial import Trial
from engine.search.winners import goodness
from engine.streams import stream_seed

SELECTED = 0.25
"""Share of the population that copies, and that is copied from."""

RESAMPLED = 0.25
"""Probability that a field is drawn anew rather than perturbed."""

FACTORS = (0.8, 1.2)
"""By what numbers are multiplied when they are perturbed."""


def donors(sweep: Sweep, members: Sequence[Trial], epoch: int) -> dict[int, int]:
    """Return from whom each member of the worst quarter copies: one of the best quarter, drawn at random.

    Args:
        sweep: whose metric counts; a member without a finite value is among the worst.
        members: all that have trained until this epoch.
        epoch: finished epochs.

    Returns:
        numbers of donors by numbers of members; without those for whom the donor would be no better.
    """

    def good(trial: Trial) -> float:
        known = math.isfinite(trial.metrics.get(sweep.judged_by, math.nan))
        return goodness(sweep, sweep.judged_by, trial) if known else -math.inf

    ranked = sorted(members, key=lambda trial: (-good(trial), trial.number))
    count = min(math.ceil(SELECTED * len(ranked)), len(ranked) // 2)
    found = {}
    for trial in ranked[len(ranked) - count :]:
        donor = ranked[_stream(sweep, "donor", trial.number, epoch).randint(count)]
        if good(donor) > good(trial):
            found[trial.number] = donor.number
    return found


def explored(sweep: Sweep, settings: Settings, member: int, epoch: int) -> Settings:
    """Return the settings with which a member goes on that has copied another one.

    A quarter of the fields, drawn at random, gets a new value from its domain. Of the others, numbers are multiplied by
    0.8 or 1.2, kept inside the domain and on its grid, and listed values give way to a neighbour in their list.

    Args:
        sweep: what is searched.
        settings: the donor's.
        member: number of the member that copies.
        epoch: finished epochs.
    """
    found = {}
    for name, value in settings.items():
        # As with the first settings, a stream for each field.
        random = _stream(sweep, name, member, epoch)
        resample, upwards = random.random_sample() < RESAMPLED, random.random_sample() < 0.5
        listed = choices(sweep, name)
        if resample or (listed is None and not isinstance(sweep.space[name], (Float, Integer))):
            found[name] = draw(sweep, name, random)
        elif listed is not None:
            found[name] = _neighbour(listed, value, upwards)
        else:
            found[name] = _multiplied(sweep.space[name], value, FACTORS[upwards])
    return found


def _stream(sweep: Sweep, name: str, member: int, epoch: int) -> np.random.RandomState:
    return np.random.RandomState(stream_seed(sweep.seed, "population", name, member, epoch) % 2**32)


def _neighbour(listed: Sequence[Any], value: Any, upwards: bool) -> Any:
    place = listed.index(value)
    others = [each for each in (place + 1, place - 1) if 0 <= each < len(listed)]
    # Beside an end of the list there is one neighbour only, and none where one value is listed.
    return listed[others[0 if upwards else -1]] if others else value


def _multiplied(domain: Any, value: float, factor: float) -> float:
    sampler = domain.get_sampler()
    whole = isinstance(domain, Integer)
    grid = sampler.q if isinstance(sampler, Quantized) else 1 if whole else None
    lower, upper = domain.lower, domain.upper
    # Without a grid the upper bound of whole numbers is itself no value.
    if whole and not isinstance(sampler, Quantized):
        upper -= 1
    moved = value * factor
    if grid is not None:
        cells = round(moved / grid)
        if cells == round(value / grid):
            cells += 1 if moved > value else -1
        moved = cells * grid
    moved = min(max(moved, lower), upper)
    return int(moved) if whole else float(moved)
