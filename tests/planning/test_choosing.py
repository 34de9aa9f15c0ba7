"""Is the fastest way found that fits into a device's memory, by segments, cuts and recomputation together?"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from engine import Plan, apply_overrides, load_recipe
from engine.methods.registry import chain_of
from engine.partition import CostProfile, RecomputedCosts, balance
from engine.planning.choosing import Choice, _guesses, fastest_that_fits
from engine.planning.estimate import RECOMPUTED, compare_cuts, estimate_team, planned_network, with_segments
from engine.planning.known_images import known_facts
from engine.recipes import Recipe

SMALL = ("data.batch_size=16", "numerics.device=cpu")


def recipe_of(name: str, *fields: str) -> Recipe:
    return apply_overrides(load_recipe(name), Plan(), fields)[0]


def needed(recipe: Recipe, devices: int | None = 1) -> int:
    return estimate_team(recipe, known_facts(recipe)[0], Plan(), devices).needed


def chosen(recipe: Recipe, memory: float, devices: int | None, *counts: int | None) -> Choice | None:
    facts = known_facts(recipe)[0]
    (found,) = fastest_that_fits(recipe, facts, Plan(), [devices], int(memory), counts)
    return found


def test_actors_that_share_a_device_do_not_take_turns() -> None:
    recipe = recipe_of("greedy_digits", "method.num_segments=2")
    facts = known_facts(recipe)[0]
    for plan, devices in ((Plan(), 1), (Plan(gpus_per_learner=0.5), None)):
        team = estimate_team(recipe, facts, plan, devices)
        assert len(team.groups) == 1
        assert team.needed == team.device_bytes == sum(size.peak for size in team.sizes) > team.in_turn_bytes
    for number in (1, 2, None):
        team = estimate_team(recipe, facts, Plan(executor="process"), number)
        assert len(team.groups) == 1 and team.needed == team.in_turn_bytes


def test_learners_that_have_to_take_turns_are_put_in_one_process() -> None:
    recipe = recipe_of("greedy_digits", "numerics.compile=true")
    facts = known_facts(recipe)[0]
    team = estimate_team(with_segments(recipe, 2, facts), facts, Plan(), 1)
    roomy, tight = (chosen(recipe, memory, 1, 2) for memory in (1.1 * team.device_bytes, team.in_turn_bytes))
    assert roomy is not None and "plan.executor=process" not in roomy.fields
    assert tight is not None and tight.fields[-1] == "plan.executor=process"
    assert tight.team.needed <= team.in_turn_bytes < tight.team.device_bytes
    # The words mean what was estimated.
    found, plan = apply_overrides(load_recipe("greedy_digits"), Plan(), ("numerics.compile=true", *tight.fields))
    assert estimate_team(found, facts, plan).needed == tight.team.needed
    # Replicas cannot take turns.
    assert fastest_that_fits(recipe, facts, Plan(replicas=2), [1], tight.team.needed // 2, [2]) == [None]


def test_no_team_that_was_estimated_already_and_fits_is_faster() -> None:
    recipe = recipe_of("greedy_digits", "numerics.compile=true")
    facts = known_facts(recipe)[0]
    row = dataclasses.replace(estimate_team(with_segments(recipe, 2, facts), facts, Plan(), 1), seconds=0.0)
    for memory, fields in (
        (row.device_bytes, ("method.num_segments=2",)),
        (row.in_turn_bytes, ("method.num_segments=2", "plan.executor=process")),
    ):
        (found,) = fastest_that_fits(recipe, facts, Plan(), [1], memory, [1, 2], {1: [row]})
        assert found is not None and found.team.seconds == 0.0 and found.fields == fields
    (found,) = fastest_that_fits(recipe, facts, Plan(), [None], row.device_bytes, [1, 2], {1: [row]})
    assert found is not None and found.team.seconds > 0.0


def test_one_cut_is_guessed_once_whatever_its_names() -> None:
    # Both balances are the same cut.
    recipe = recipe_of("greedy_cifar10_resnet32", *SMALL, "numerics.compile=true")
    guesses = list(_guesses(recipe, known_facts(recipe)[0], 4, 1 << 40))
    assert len({guess.times for guess in guesses}) == len(guesses) > 1


def test_a_network_that_is_not_cut_is_run_again_where_it_must() -> None:
    recipe = recipe_of("end_to_end_cifar10_resnet32", *SMALL)
    whole = needed(recipe)
    assert chosen(recipe, 0.1 * whole, 1, None) is None
    easy, tight = chosen(recipe, whole, 1, None), chosen(recipe, 0.5 * whole, 1, None)
    assert easy is not None and easy.fields == () and easy.recipe == recipe
    assert tight is not None and tight.team.needed <= 0.5 * whole
    ((field, _, value),) = (word.partition("=") for word in tight.fields)
    assert field == "numerics.recompute" and value != "none"
    assert tight.team.seconds > easy.team.seconds


def _slow(*values: float | None) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("share", "devices"),
    [(0.4, 1), _slow(0.2, 1), _slow(0.7, 1), _slow(0.4, 2), _slow(0.2, None), _slow(0.4, None), _slow(0.7, None)],
)
def test_no_usual_way_that_fits_is_faster(share: float, devices: int | None) -> None:
    recipe = recipe_of("infopro_cifar10_resnet32", *SMALL)
    facts = known_facts(recipe)[0]
    memory = int(share * needed(recipe_of("infopro_cifar10_resnet32", "method.num_segments=1", *SMALL)))
    found = chosen(recipe, memory, devices, 1, 2, 4)
    # On one device learners may take turns.
    plan = Plan(executor="process" if devices == 1 else "ray")
    fitting = []
    for count, rule, recompute in itertools.product((1, 2, 4), ("memory", "time"), ("none", "blocks")):
        words = (f"method.num_segments={count}", f"method.cuts=balanced_{rule}", f"numerics.recompute={recompute}")
        team = estimate_team(recipe_of("infopro_cifar10_resnet32", *words, *SMALL), facts, plan, devices)
        fitting += [team.seconds] if team.needed <= memory else []
    if not fitting:
        return
    assert found is not None
    assert found.team.needed <= memory
    assert found.team.seconds <= 1.02 * min(fitting)
    # The words say all of it.
    assert recipe_of("infopro_cifar10_resnet32", *SMALL, *found.fields) == found.recipe


def test_peers_are_cut_and_run_again_too() -> None:
    recipe = recipe_of("dml_infopro_digits", "backbone.name=resnet32", *SMALL)
    found = chosen(recipe, 0.6 * needed(recipe, None), None, 1, 2, 4)
    assert found is not None
    assert found.fields[0].startswith("method.peer_method.num_segments=")
    assert recipe_of("dml_infopro_digits", "backbone.name=resnet32", *SMALL, *found.fields) == found.recipe


def test_what_is_compiled_is_not_run_again() -> None:
    recipe = recipe_of("infopro_digits", "numerics.compile=true")
    found = chosen(recipe, 1e9, 1, 1, 2)
    assert found is not None and found.recipe.numerics.recompute == "none"
    assert chosen(recipe, 1e5, 1, 1, 2) is None


@pytest.mark.parametrize("network", ["resnet32", "densenet_bc_40_12"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_costs_of_segments_are_those_of_learners(network: str, blocks: int) -> None:
    words = (f"backbone.name={network}", "method.num_segments=3", "method.cuts=balanced_time", *SMALL)
    recipe = recipe_of("infopro_cifar10_resnet32", *words, f"numerics.recompute={blocks}")
    facts = known_facts(recipe)[0]
    profile = CostProfile(recipe, facts, planned_network(recipe, facts), 3, chain_of(recipe).objective)
    costs = RecomputedCosts(profile, blocks)
    places = (0, *balance(profile.seconds, profile.units, 3), profile.units)
    ranges = itertools.pairwise(places)
    for part, (where, size) in enumerate(zip(ranges, estimate_team(recipe, facts, Plan()).sizes, strict=True)):
        assert costs.saved(part, *where) == pytest.approx(size.activations, rel=0.01)
        assert costs.seconds(part, *where) == pytest.approx(size.seconds, rel=0.2)


def test_a_cut_for_networks_that_are_run_again_is_shown_beside_the_others() -> None:
    recipe = recipe_of("greedy_cifar10_resnet32", "numerics.recompute=blocks", *SMALL)
    cuts = {cut.rule: cut for cut in compare_cuts(recipe, known_facts(recipe)[0], 4)}
    assert cuts[RECOMPUTED].memory == min(cut.memory for cut in cuts.values()) < 0.15
    plain = recipe_of("greedy_cifar10_resnet32", *SMALL)
    before = {cut.rule: cut.blocks for cut in compare_cuts(plain, known_facts(plain)[0], 4)}
    # A rule cuts alike with and without, so that the weights stay what they are.
    assert before == {rule: cut.blocks for rule, cut in cuts.items() if rule != RECOMPUTED}
