"""Is what stands behind a segment measured on the objective that the method makes, whatever decides it?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from engine.data import Facts
from engine.methods.registry import chain_of
from engine.objectives import AuxiliaryClassification, Classification, Objective
from engine.partition import CostProfile, Origin, Segment, segments_of
from engine.planning.estimate import estimate_team, planned_network
from engine.planning.known_images import known_facts
from engine.recipes import Backbone, Greedy, Plan, Recipe
from engine.recipes.methods.local_learning import CutRule


def wide_head(segment: Segment, width: int, facts: Facts) -> nn.Sequential:
    hidden = nn.Linear(math.prod(segment.features), width)
    return nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(width, facts.num_classes))


def growing(recipe: Recipe, facts: Facts, segment: Segment, network: nn.Sequential, origin: Origin) -> Objective:
    """Return an objective that nothing in the recipe tells of: the later the segment, the wider its head."""
    if segment.is_last:
        return Objective({"cross_entropy": Classification()}, {"cross_entropy": 1.0})
    head = wide_head(segment, 16 * 4**segment.index, facts)
    return Objective({"cross_entropy": AuxiliaryClassification(head)}, {"cross_entropy": 1.0})


def test_the_objective_is_asked_at_each_place(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=4))
    facts, _ = known_facts(recipe)
    profile = CostProfile(recipe, facts, planned_network(recipe, facts), 4, growing)
    costs = [profile.auxiliary(part, 4) for part in range(3)]
    # Of the hidden layer, what ReLU gives is kept, in float32.
    hidden = [4 * recipe.data.batch_size * 16 * 4**part for part in range(3)]
    assert [each.saved - costs[0].saved for each in costs] == [each - hidden[0] for each in hidden]
    assert costs[0].seconds < costs[1].seconds < costs[2].seconds


def test_balanced_cuts_go_where_the_objective_is_cheap(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts="balanced_memory"))
    facts, _ = known_facts(recipe)
    network = planned_network(recipe, facts)
    chain = chain_of(recipe)
    first, _ = segments_of(recipe, facts, network, chain.objective)

    def dear_there(own: Recipe, facts: Facts, segment: Segment, whole: nn.Sequential, origin: Origin) -> Objective:
        if segment.features != first.features or segment.is_last:
            return chain.objective(own, facts, segment, whole, origin)
        head = wide_head(segment, 2**16, facts)
        return Objective({"cross_entropy": AuxiliaryClassification(head)}, {"cross_entropy": 1.0})

    assert segments_of(recipe, facts, network, dear_there)[0].features != first.features


FIRST_BLOCKS = """
from torch import nn


def network(num_classes, image_shape, first):
    frozen = nn.Conv2d(1, 1, 1).requires_grad_(False)
    block = nn.Flatten() if first == "flatten" else nn.Sequential(frozen, nn.Flatten())
    hidden = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(block, *hidden, nn.Linear(64, num_classes))
"""


@pytest.mark.parametrize("first", ["flatten", "frozen"])
@pytest.mark.parametrize("cuts", ["balanced_memory", "balanced_time"])
def test_a_first_block_that_learns_nothing_has_costs_too(
    cuts: CutRule, first: str, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FIRST_BLOCKS)
    backbone = Backbone(name=f"{tmp_path}/own.py:network", options={"first": first})
    recipe = tiny_recipe(method=Greedy(num_segments=2, cuts=cuts), backbone=backbone)
    facts, _ = known_facts(recipe)
    assert estimate_team(recipe, facts, Plan()).device_bytes > 0
    assert len(segments_of(recipe, facts, planned_network(recipe, facts), chain_of(recipe).objective)) == 2
