"""The number of segments, or the batch, that fits into a device's memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from engine.data import Facts
from engine.planning.estimate import estimate_team
from engine.planning.team_estimate import TeamEstimate
from engine.recipes import Plan, Recipe

# Memory grows with the batch in a nearly straight line, so few looks are enough.
_LOOKS = 8
_LARGEST_BATCH = 1 << 20


def smallest_that_fits(estimates: Sequence[TeamEstimate], memory: int) -> TeamEstimate | None:
    """Return the estimate with the fewest segments that needs no more than so many bytes of a device; None if none."""
    fitting = [each for each in estimates if each.needed <= memory]
    return min(fitting, key=lambda each: each.num_segments or 1, default=None)


def largest_batch(recipe: Recipe, facts: Facts, plan: Plan, devices: int | None, memory: int) -> int:
    """Return the largest ``data.batch_size`` with which a recipe fits into so many bytes of a device; 0 if none does.

    No batch has more images than the training set.

    Searches between a batch that fits and one that does not along the line through the two, until they are less than
    1 % apart, so the answer may be that much too small but never too large.
    """
    needed: dict[int, int] = {}

    def at(batch: int) -> int:
        if batch not in needed:
            changed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, batch_size=batch))
            needed[batch] = estimate_team(changed, facts, plan, devices).needed
        return needed[batch]

    most = min(_LARGEST_BATCH, facts.sizes["train"])
    low, high = 2, min(max(recipe.data.batch_size, 4), most)
    if at(low) > memory:
        return 0
    for _ in range(_LOOKS):
        if at(high) > memory:
            break
        guess = low + (high - low) * (memory - at(low)) / max(at(high) - at(low), 1)
        low, high = high, min(max(int(guess) + 1, high + 1), most)
        if low == high:
            return low
    else:
        return low
    for _ in range(_LOOKS):
        if high - low <= max(1, low // 100):
            break
        guess = low + (high - low) * (memory - at(low)) / (at(high) - at(low))
        middle = min(max(int(guess), low + 1), high - 1)
        low, high = (middle, high) if at(middle) <= memory else (low, middle)
    return low
