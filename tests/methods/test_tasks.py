"""Is a task that a method does not take refused by name, and does every method say what it takes?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.data import Facts, open_source
from engine.errors import RecipeError
from engine.methods import method_of
from engine.recipes import DHM, DML, METHODS, Backbone, Greedy, InfoPro, OwnTask, Peer, Recipe

TOY = OwnTask(kind=f"{Path(__file__).parents[1] / 'tasks' / 'toy_task.py'}:Regression")
EVERY_TASK = {"end_to_end", "greedy", "dgl", "infopro", "dml"}

TinyRecipe = Callable[..., Recipe]


@pytest.fixture
def facts(tiny_recipe: TinyRecipe) -> Facts:
    return open_source(tiny_recipe().data, 0).facts


@pytest.mark.parametrize("kind", sorted(set(METHODS) - EVERY_TASK))
def test_methods_of_classes_refuse_other_tasks_by_name(kind: str, tiny_recipe: TinyRecipe) -> None:
    settings: Any = METHODS[kind]
    method_of(tiny_recipe(method=settings()))
    with pytest.raises((RecipeError, ValidationError)) as caught:
        method_of(tiny_recipe(method=settings(), task=TOY))
    assert f"task.kind={TOY.kind}" in str(caught.value)
    assert f"method.kind={kind}" in str(caught.value)


@pytest.mark.parametrize("kind", sorted(EVERY_TASK - {"dml"}))
def test_methods_of_any_task_build_its_losses(kind: str, tiny_recipe: TinyRecipe, facts: Facts) -> None:
    settings: Any = METHODS[kind]
    method = settings(head="softmax") if kind == "infopro" else settings()
    recipe = tiny_recipe(method=method, task=TOY, backbone=Backbone(name="resnet8"))
    team = method_of(recipe).team(recipe, facts)
    assert {network.outputs for network in team.networks.values()} == {1}


@pytest.mark.parametrize(
    "method",
    [
        Greedy(head="contrastive"),
        InfoPro(head="contrastive"),
        Greedy(branches=DHM()),
        DML(peers=(Peer(), Peer()), peer_method=DHM(), weight=0.0),
    ],
)
def test_a_part_of_a_method_that_needs_classes_is_refused_with_the_task(
    method: Any, tiny_recipe: TinyRecipe, facts: Facts
) -> None:
    with pytest.raises((RecipeError, ValidationError)) as caught:
        method_of(recipe := tiny_recipe(method=method, task=TOY)).team(recipe, facts)
    assert f"task.kind={TOY.kind}" in str(caught.value)


@pytest.mark.parametrize("field", ["weight", "confidence_weight"])
def test_peers_compare_only_distributions(field: str, tiny_recipe: TinyRecipe, facts: Facts) -> None:
    weights = {"weight": 0.0, "confidence_weight": 0.0, field: 0.1}
    recipe = tiny_recipe(method=DML(peers=(Peer(), Peer()), **weights), task=TOY)
    with pytest.raises(RecipeError) as caught:
        method_of(recipe).team(recipe, facts)
    assert str(caught.value) == (
        f"method.{field} compares distributions, but what is predicted for task.kind={TOY.kind} is none: set "
        f"method.{field}=0"
    )


def test_classifiers_that_a_backbone_brings_need_a_loss_of_the_task(tiny_recipe: TinyRecipe, facts: Facts) -> None:
    backbone = Backbone(name="inception_v1", auxiliary_heads=True)
    recipe = tiny_recipe(method=Greedy(num_segments=1), task=TOY, backbone=backbone)
    with pytest.raises(RecipeError, match=r"backbone\.auxiliary_heads=true: task\.kind=.* has no loss for"):
        method_of(recipe).team(recipe, facts)
