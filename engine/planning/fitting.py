"""The number of segments, or the batch, that fits into a device's memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from engine.data import Facts
from engine.errors import InputError
from engine.planning.estimate import estimate_team, with_batch
from engine.planning.team_estimate import TeamEstimate
from engine.recipes import Plan, Recipe
from engine.runtimes.replicated import check_replicable
from engine.training.preview import check_batches

# Memory grows with the batch in a nearly straight line, so few looks are enough.
_LOOKS = 8
_LARGEST_BATCH = 1 << 20


def smallest_that_fits(estimates: Sequence[TeamEstimate], memory: int) -> TeamEstimate | None:
    """Return the estimate with the fewest segments that needs no more than so many bytes of a device; None if none."""
    fitting = [each for each in estimates if each.needed <= memory]
    return min(fitting, key=lambda each: each.num_segments or 1, default=None)


def largest_batch(recipe: Recipe, facts: Facts, plan: Plan, devices: int | None, memory: int) -> int:
    """Return the largest ``data.batch_size`` with which a recipe fits into so many bytes of a device; 0 if none does.

    It is one that `train` takes, and has no more images than the training set.

    Searches between a batch that fits and one that does not along the line through the two, until they are less than
    1 % apart, so the answer may be that much too small but never too large.
    """
    needed: dict[int, int] = {}

    def at(batch: int) -> int:
        if batch not in needed:
            needed[batch] = estimate_team(*with_batch(recipe, facts, batch), plan, devices).needed
        return needed[batch]

    step = recipe.data.classes_per_batch or 1
    # Two images for each replica, as batch norm needs, and of each class as many.
    smallest = -(-2 * plan.replicas // step) * step
    most = max(smallest, min(_LARGEST_BATCH, facts.sizes["train"]))
    found = _largest(at, memory, smallest, recipe.data.batch_size, most)
    for batch in range(found // step * step, smallest - 1, -step):
        if _is_taken(recipe, facts, plan, batch) and at(batch) <= memory:
            return batch
    return 0


def _is_taken(recipe: Recipe, facts: Facts, plan: Plan, batch: int) -> bool:
    """Return whether every batch of an epoch can be trained on, the last one among them."""
    changed = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, batch_size=batch))
    try:
        check_batches(changed, facts)
        check_replicable(changed, facts, plan)
    except InputError:
        return False
    return True


def _largest(at: Callable[[int], int], memory: int, smallest: int, own: int, most: int) -> int:
    """Return the largest batch from ``smallest`` to ``most`` that fits, looking at ``own`` early; 0 if none does."""
    low, high = smallest, min(max(own, 2 * smallest), most)
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
