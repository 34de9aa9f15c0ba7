"""Is the division into consecutive parts the best one, and are balanced cuts those that were measured?"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Plan, apply_overrides, load_recipe
from engine.learners.memory import SavedActivations
from engine.methods import method_of
from engine.methods.registry import chain_of
from engine.partition import Cost, CostCounter, CostProfile, balance
from engine.planning.estimate import planned_network
from engine.planning.known_images import known_facts
from engine.planning.sizes import team_sizes
from engine.recipes import Recipe


def by_trying_all(cost: Cost, units: int, parts: int) -> tuple[float, float, tuple[int, ...]]:
    """Return the least (largest cost, sum, boundaries) over all divisions."""
    found = []
    for inner in combinations(range(1, units), parts - 1):
        costs = [cost(part, *each) for part, each in enumerate(pairwise((0, *inner, units)))]
        found.append((max(costs), sum(costs), inner))
    return min(found)


def random_costs(seed: int, units: int, parts: int, whole: bool) -> Cost:
    """Return body costs that add up, and auxiliary costs that depend on the part and where it stops."""
    draw = random.Random(seed)
    number: Callable[[], float] = (lambda: draw.randint(0, 5)) if whole else draw.random
    body = [number() for _ in range(units)]
    auxiliary = {(part, stop): number() for part in range(parts) for stop in range(1, units)}
    return lambda part, start, stop: sum(body[start:stop]) + auxiliary.get((part, stop), 0)


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 11), st.integers(1, 11), st.booleans())
def test_the_division_is_the_best_of_all(seed: int, units: int, parts: int, whole: bool) -> None:
    parts = min(units, parts)
    cost = random_costs(seed, units, parts, whole)
    largest, total, inner = by_trying_all(cost, units, parts)
    found = balance(cost, units, parts)
    costs = [cost(part, *each) for part, each in enumerate(pairwise((0, *found, units)))]
    assert max(costs) == largest
    assert sum(costs) == pytest.approx(total, abs=1e-12)
    if whole:
        assert found == inner


def recipe_of(name: str, *fields: str) -> Recipe:
    return apply_overrides(load_recipe(name), Plan(), fields)[0]


def profile_of(name: str, num_segments: int, *fields: str) -> CostProfile:
    recipe = recipe_of(name, "data.batch_size=128", *fields)
    facts, _ = known_facts(recipe)
    return CostProfile(recipe, facts, planned_network(recipe, facts), num_segments, chain_of(recipe).objective)


@pytest.mark.parametrize(("num_segments", "share"), [(2, 0.547), (3, 0.374), (4, 0.303), (8, 0.171)])
def test_memory_balanced_cuts_have_the_measured_share(num_segments: int, share: float) -> None:
    profile = profile_of("greedy_cifar10_resnet32", num_segments)
    inner = balance(profile.saved, profile.units, num_segments)
    largest = max(profile.saved(part, *each) for part, each in enumerate(pairwise((0, *inner, profile.units))))
    assert largest / profile.saved(0, 0, profile.units) == pytest.approx(share, abs=0.0006)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "side", "classes", "num_segments", "share"),
    [("resnet110", 32, 10, 4, 0.265), ("resnet50", 224, 1000, 4, 0.308), ("resnet152", 224, 1000, 8, 0.145)],
)
def test_so_they_have_for_large_networks(
    network: str, side: int, classes: int, num_segments: int, share: float
) -> None:
    fields = ("data.name=folder", f"data.image_size={side}", f"data.num_classes={classes}", f"backbone.name={network}")
    profile = profile_of("greedy_cifar10_resnet32", num_segments, *fields)
    inner = balance(profile.saved, profile.units, num_segments)
    largest = max(profile.saved(part, *each) for part, each in enumerate(pairwise((0, *inner, profile.units))))
    assert largest / profile.saved(0, 0, profile.units) == pytest.approx(share, abs=0.0016)


@pytest.mark.parametrize(("name", "measured"), [("greedy_cifar10_resnet32", 6), ("infopro_cifar10_resnet32", 5)])
def test_the_time_balanced_cut_is_at_or_next_to_the_measured_one(name: str, measured: int) -> None:
    profile = profile_of(name, 2)
    (stop,) = balance(profile.seconds, profile.units, 2)
    assert abs(stop - measured) <= 1


def test_modelled_times_of_blocks_are_the_measured_ones() -> None:
    """One core, batch 128, milliseconds; measured on a machine that was not idle, give or take 15 %."""
    profile = profile_of("greedy_cifar10_resnet32", 2)
    measured = [17, *[60] * 5, 45, *[30.5] * 4, *[21] * 5]
    # To the end of the network, where there is no head.
    rest = [1e3 * profile.seconds(1, unit, profile.units) for unit in range(profile.units)]
    modelled = [one - other for one, other in pairwise([*rest, 0.0])]
    assert modelled == pytest.approx(measured, rel=0.2)
    assert sum(modelled) == pytest.approx(sum(measured), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("num_segments", [2, 4])
@pytest.mark.parametrize(
    "fields",
    [(), ("method.branches.kind=dsn",), ("backbone.name=wrn_16_8",), ("backbone.name=densenet_bc_40_12",)],
    ids=" ".join,
)
def test_summed_costs_are_those_of_whole_segments(fields: tuple[str, ...], num_segments: int) -> None:
    cuts = ("method.cuts=balanced_memory", f"method.num_segments={num_segments}")
    recipe = recipe_of("infopro_cifar10_resnet32", "data.batch_size=32", *cuts, *fields)
    facts, _ = known_facts(recipe)
    network = planned_network(recipe, facts)
    profile = CostProfile(recipe, facts, network, num_segments, chain_of(recipe).objective)
    inner = balance(profile.saved, profile.units, num_segments)
    sizes = team_sizes(recipe, facts, method_of(recipe).team(recipe, facts))
    for part, (size, each) in enumerate(zip(sizes, pairwise((0, *inner, profile.units)), strict=True)):
        assert size.activations == pytest.approx(profile.saved(part, *each), rel=0.005)


@pytest.mark.parametrize("rule", ["balanced_memory", "balanced_time"])
def test_every_learner_finds_the_same_cut(rule: str) -> None:
    recipe = recipe_of("infopro_digits", "method.num_segments=3", f"method.cuts={rule}")
    facts, _ = known_facts(recipe)
    method = method_of(recipe)
    team = method.team(recipe, facts)
    for summary in team.learners:
        built = method.build_learner(recipe, facts, 10, summary.name, torch.device("cpu"))
        assert tuple(name for name, _ in built.body.named_children()) == summary.blocks


def test_a_counter_counts_by_hand_what_a_convolution_does() -> None:
    images = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    weight = torch.empty(4, 3, 3, 3, device="meta", requires_grad=True)
    kept, counter = SavedActivations([weight]), CostCounter()
    with counter, kept.counting():
        output = torch.nn.functional.conv2d(images, weight, padding=1)
        forward = counter.macs
        output.sum().backward()
    assert forward == 2 * 4 * 8 * 8 * 3 * 9
    assert counter.macs == 3 * forward
    assert kept.bytes == images.nbytes
    # The output, then its gradient beside those of images and weight; the output itself lives on.
    assert counter.peak >= output.nbytes + images.nbytes + weight.nbytes


def test_tensors_that_have_values_are_drawn_under_a_counter_too() -> None:
    with CostCounter():
        normal, uniform = torch.zeros(64).normal_(), torch.zeros(64).uniform_()
    assert normal.std() > 0.5 and uniform.std() > 0.1


def test_the_short_ways_of_a_counter_change_no_shape() -> None:
    norm = torch.nn.BatchNorm2d(4, device="meta")
    images = torch.empty(2, 4, 8, 8, device="meta", requires_grad=True)

    def kept_bytes() -> int:
        kept = SavedActivations([*norm.parameters(), *norm.buffers()])
        with kept.counting():
            output = norm(images).relu()
        output.backward(torch.empty_like(output))
        assert output.shape == images.shape
        assert images.grad is not None and norm.weight.grad is not None
        assert images.grad.shape == images.shape and norm.weight.grad.shape == norm.weight.shape
        return kept.bytes

    plain = kept_bytes()
    with CostCounter():
        assert kept_bytes() == plain
