"""The fastest way to train a recipe that fits into a device's memory: number of segments, cuts, and recomputation.

All three give work for memory. Cuts add heads and decoders and let more devices work, recomputation adds up to a
forward pass and needs neither. What a way costs is first guessed from one look at each block, so that only the fastest
few that may fit are sized learner by learner.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from engine import backbones
from engine.data import Facts
from engine.methods.registry import chain_of
from engine.partition import Cost, CostProfile, RecomputedCosts, balance
from engine.planning.estimate import estimate_team, obstacle_to_cuts, planned_network, with_batch, with_segments
from engine.planning.team_estimate import TeamEstimate
from engine.recipes import Plan, Recipe, segmented, with_modelled_cuts, without_files

_GROUPS = (1, 2, 4)
_MOST_BLOCKS = _GROUPS[-1] + 1
# Guesses of time are this good, so ways that are slower by less may still be the fastest; so many are looked at.
_TOLERANCE = 1.15
_FURTHER_LOOKS = 3
# Of a device's memory, for what autograd keeps; the rest is for weights, gradients and what a step frees at once.
_CAP = 0.8


@dataclass(frozen=True)
class Choice:
    """A way to train a recipe.

    Attributes:
        recipe: with the fields that the choice sets.
        team: its estimate.
        fields: what to write behind the recipe's name on a command line; empty for the recipe as it is.
    """

    recipe: Recipe
    team: TeamEstimate
    fields: tuple[str, ...]

    @property
    def rank(self) -> tuple[float, int]:
        """The smaller, the better."""
        return self.team.seconds, self.team.needed

    def in_process(self) -> Choice:
        """Return the same with all learners in turn in one process, which needs less of one device."""
        team = dataclasses.replace(self.team, in_process=True)
        return dataclasses.replace(self, team=team, fields=(*self.fields, "plan.executor=process"))


@dataclass(frozen=True)
class _Guess:
    recipe: Recipe
    num_segments: int
    saved: float
    times: tuple[float, ...]

    def seconds(self, devices: int | None) -> float:
        """Return the work of the busiest device, if consecutive segments share them."""
        count = min(devices or len(self.times), len(self.times))

        def together(part: int, start: int, stop: int) -> float:
            return sum(self.times[start:stop])

        inner = balance(together, len(self.times), count)
        return max(sum(self.times[start:stop]) for start, stop in pairwise((0, *inner, len(self.times))))


def fastest_that_fits(
    recipe: Recipe,
    facts: Facts,
    plan: Plan,
    devices: Sequence[int | None],
    memory: int,
    counts: Sequence[int | None],
    estimated: Mapping[int | None, Sequence[TeamEstimate]] | None = None,
) -> list[Choice | None]:
    """Return for each number of devices the fastest way that needs no more than so many bytes of one; None if none.

    Cuts are the recipe's own (``balanced_time`` where they are still to be measured), the balanced ones, and those that
    are fastest with what fits into memory. Where there is an `obstacle_to_cuts`, the recipe is cut as it is. What one
    device has no room for as actors takes turns in one process if that fits, and its fields say so.

    Args:
        recipe: whose method, network and data stay as they are.
        facts: what is known of the images.
        plan: whose executor, window, replicas and fractions of a GPU count.
        devices: how many there are; None for one for each learner.
        memory: bytes of a device.
        counts: numbers of segments to look at; (None,) for a method that does not cut.
        estimated: by number of devices, teams of the recipe with some of these numbers of segments, cut as
            `with_segments` does; none that fits is faster than what is returned.
    """
    share = -(-recipe.data.batch_size // plan.replicas)
    part, of_part = with_batch(with_modelled_cuts(recipe), facts, share)
    looked = [] if obstacle_to_cuts(part) else [count for count in counts if count]
    guesses = [guess for count in looked for guess in _guesses(part, of_part, count, memory)]
    if not guesses:
        guesses = [_Guess(_recomputing(part, blocks), 1, 0.0, (0.0,)) for blocks in _groups(part, _MOST_BLOCKS)]

    may_take_turns = plan.executor == "ray" and plan.replicas == 1

    def fitted(way: Recipe, team: TeamEstimate) -> Choice | None:
        choice = Choice(way, team, _fields(recipe, way))
        if team.needed > memory and may_take_turns and len(team.groups) == 1 < len(team.sizes):
            choice = choice.in_process()
        return choice if choice.team.needed <= memory else None

    def look(guess: _Guess, number: int | None) -> Choice | None:
        way = dataclasses.replace(guess.recipe, data=recipe.data)
        return fitted(way, estimate_team(way, facts, plan, number))

    def known(team: TeamEstimate) -> Choice | None:
        own = with_modelled_cuts(recipe)
        return fitted(own if team.num_segments is None else with_segments(own, team.num_segments, facts), team)

    found = []
    for number in devices:
        ways = [_fastest(guesses, number, memory, look), *map(known, (estimated or {}).get(number, ()))]
        found.append(min(filter(None, ways), key=lambda each: each.rank, default=None))
    return found


def _fastest(
    guesses: Sequence[_Guess], devices: int | None, memory: int, look: Callable[[_Guess, int | None], Choice | None]
) -> Choice | None:
    best: Choice | None = None
    limit, left = math.inf, _FURTHER_LOOKS
    # By the number of segments, how much autograd keeps where more was needed than there is.
    too_much: dict[int, float] = {}
    for guess in sorted(guesses, key=lambda each: (each.seconds(devices), each.saved)):
        seconds = guess.seconds(devices)
        if seconds > limit or not left:
            break
        if guess.saved > memory or guess.saved >= too_much.get(guess.num_segments, math.inf):
            continue
        # Nothing was guessed of a network that is not cut: each way is looked at.
        left -= best is not None and seconds > 0
        choice = look(guess, devices)
        if choice is None:
            too_much[guess.num_segments] = guess.saved or math.inf
            continue
        best = choice if best is None else min(best, choice, key=lambda each: each.rank)
        limit = min(limit, seconds * _TOLERANCE)
    return best


def _guesses(recipe: Recipe, facts: Facts, count: int, memory: int) -> Iterator[_Guess]:
    """Yield ways to train with so many segments, of different cuts and groups of blocks."""
    recipe = with_segments(recipe, count, facts)
    inside = segmented(recipe)
    assert inside is not None
    own = without_files(dataclasses.replace(recipe, method=inside))
    network = planned_network(own, facts)
    profile = CostProfile(own, facts, network, count, chain_of(own).objective)
    places = {name: stop for stop, name in enumerate(backbones.cut_points(network), start=1)}
    names = {stop: name for name, stop in places.items()}
    rules = _rules(own, facts, network, profile)
    for blocks in _groups(recipe, profile.units):
        costs = RecomputedCosts(profile, blocks)
        cuts: dict[Any, tuple[int, ...]] = dict(rules)
        if count > 1:
            for cost in (costs.saved, _capped(costs, _CAP * memory)):
                inner = balance(cost, profile.units, count)
                # Under its rule, a cut is shorter to write.
                if inner not in cuts.values():
                    cuts[tuple(names[stop] for stop in inner)] = inner
        for cut, inner in cuts.items():
            ranges = list(pairwise((0, *inner, profile.units)))
            saved = max(costs.saved(part, *each) for part, each in enumerate(ranges))
            times = tuple(costs.seconds(part, *each) for part, each in enumerate(ranges))
            changed: Any = dataclasses.replace(inside, cuts=cut)
            method = recipe.method.with_inside(changed)
            way = _recomputing(dataclasses.replace(recipe, method=method), blocks)
            yield _Guess(way, count, saved, times)


def _rules(recipe: Recipe, facts: Facts, network: nn.Sequential, profile: CostProfile) -> dict[Any, tuple[int, ...]]:
    """Return the unit at which each segment but the first begins, by the first rule, or the names, that cut so."""
    inside = segmented(recipe)
    assert inside is not None
    if profile.num_segments == 1:
        return {inside.cuts: ()}
    found: dict[Any, tuple[int, ...]] = {}
    for rule in dict.fromkeys((inside.cuts, "balanced_layers", "balanced_memory", "balanced_time")):
        if rule in ("balanced_memory", "balanced_time"):
            cost = profile.saved if rule == "balanced_memory" else profile.seconds
            inner = balance(cost, profile.units, profile.num_segments)
        else:
            ranges = backbones.cut(network, profile.num_segments, rule, recipe.backbone.name, facts.image_shape)
            inner = tuple(start for start, _ in ranges[1:])
        # Twice the same would be looked at in place of another.
        if inner not in found.values():
            found[rule] = inner
    return found


def _capped(costs: RecomputedCosts, memory: float) -> Cost:
    """Return the seconds of a segment, infinite for one that keeps more than so many bytes."""
    return lambda *where: costs.seconds(*where) if costs.saved(*where) <= memory else math.inf


def _groups(recipe: Recipe, units: int) -> list[int]:
    """Return after how many blocks a group that is run again may end; 0 for none."""
    if recipe.numerics.compile:
        return [0]
    own = recipe.numerics.recomputed_blocks
    return sorted({0, own, *(blocks for blocks in _GROUPS if blocks < units)})


def _recomputing(recipe: Recipe, blocks: int) -> Recipe:
    if blocks == recipe.numerics.recomputed_blocks:
        return recipe
    recompute: Any = {0: "none", 1: "blocks"}.get(blocks, blocks)
    return dataclasses.replace(recipe, numerics=dataclasses.replace(recipe.numerics, recompute=recompute))


def _fields(recipe: Recipe, changed: Recipe) -> tuple[str, ...]:
    """Return the assignments that make one recipe of the other; the number of segments is said in any case."""
    before, after = segmented(recipe), segmented(changed)
    fields = []
    if before is not None and after is not None:
        path = recipe.method.inside_field
        fields.append(f"{path}.num_segments={after.num_segments}")
        if after.cuts != before.cuts:
            cuts = after.cuts if isinstance(after.cuts, str) else ",".join(after.cuts)
            fields.append(f"{path}.cuts={cuts}")
    if changed.numerics.recompute != recipe.numerics.recompute:
        fields.append(f"numerics.recompute={changed.numerics.recompute}")
    return tuple(fields)
