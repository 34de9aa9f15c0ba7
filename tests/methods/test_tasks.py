"""Is a task that a method does not take refused by name, and does every method learn those that it says it takes?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from engine.data import Facts, open_source
from engine.errors import RecipeError
from engine.methods import method_of, networks_sha256
from engine.recipes import (
    DHM,
    DML,
    METHODS,
    Augmentation,
    Backbone,
    Greedy,
    InfoPro,
    OwnTask,
    Peer,
    Recipe,
    Segmentation,
)
from engine.runtimes import ProcessRuntime

TOY = OwnTask(kind=f"{Path(__file__).parents[1] / 'tasks' / 'toy_task.py'}:Regression")
EVERY_TASK = {kind for kind, settings in METHODS.items() if settings.takes_tasks is None}
LABEL_MAPS = {kind for kind, settings in METHODS.items() if "segmentation" in (settings.takes_tasks or "segmentation")}
# A teacher of label maps is trained in tests/tasks/test_segmentation.py.
WITHOUT_TEACHER = {kind for kind, settings in METHODS.items() if not settings.reads_weights}
DENSE = f"{Path(__file__).parents[1] / 'tasks' / 'dense_task.py'}:network"
# What peers tell one another of a number is no distribution.
SETTINGS: dict[str, dict[str, Any]] = {"dml": {"weight": 0.0, "feature_weight": 0.1}}

TinyRecipe = Callable[..., Recipe]


@pytest.fixture
def facts(tiny_recipe: TinyRecipe) -> Facts:
    return open_source(tiny_recipe().data, 0).facts


@pytest.mark.parametrize("kind", sorted(set(METHODS) - EVERY_TASK))
def test_methods_of_classes_refuse_other_tasks_by_name(kind: str, tiny_recipe: TinyRecipe) -> None:
    settings: Any = METHODS[kind]
    method_of(tiny_recipe(method=settings()))
    with pytest.raises(RecipeError) as caught:
        method_of(tiny_recipe(method=settings(), task=TOY))
    assert f"task.kind={TOY.kind}" in str(caught.value)
    assert f"method.kind={kind}" in str(caught.value)


def losses_of_a_step(recipe: Recipe) -> set[str]:
    """Take a step, in which all networks change, and evaluate a batch; return the names of the losses."""
    with closing(open_source(recipe.data, recipe.seed, paired_images=recipe.method.paired_images)) as source:
        team = method_of(recipe).team(recipe, source.facts)
        assert len(team.networks) == len(recipe.method.networks(recipe.backbone))
        runtime = ProcessRuntime(recipe, source.facts, team, source.steps_per_epoch())
        before = networks_sha256(team.networks, source.facts, runtime.ask("state").result())
        runtime.submit(team.program(0), source.batch(0, 0))
        after = networks_sha256(team.networks, source.facts, runtime.ask("state").result())
        metrics = runtime.ask("metrics").result()
        runtime.submit(team.evaluation, next(source.evaluation_batches("test")))
        runtime.close()
    assert all(one != other for one, other in zip(before.split("-"), after.split("-"), strict=True))
    return {name for each in metrics.values() for name in each if name.startswith("loss/")}


@pytest.mark.parametrize("kind", sorted(EVERY_TASK & WITHOUT_TEACHER))
def test_methods_of_every_task_learn_one_of_ones_own(kind: str, tiny_recipe: TinyRecipe) -> None:
    method = TypeAdapter(METHODS[kind]).validate_python({"kind": kind, **SETTINGS.get(kind, {})})
    losses = losses_of_a_step(tiny_recipe(method=method, task=TOY, backbone=Backbone(name="resnet8")))
    assert "loss/squared_error" in losses and "loss/cross_entropy" not in losses


@pytest.mark.parametrize("kind", sorted(LABEL_MAPS & WITHOUT_TEACHER))
def test_methods_of_label_maps_learn_them(
    kind: str, tiny_recipe: TinyRecipe, label_map_set: Callable[..., Path], tmp_path: Path
) -> None:
    label_map_set(tmp_path, {"train": 4, "val": 2})
    fields = {"name": "label_maps", "root": str(tmp_path), "train_limit": None, "test_limit": None, "batch_size": 4}
    data = {**fields, "augmentation": Augmentation()}
    method = TypeAdapter(METHODS[kind]).validate_python({"kind": kind})
    recipe = tiny_recipe(method=method, task=Segmentation(), backbone=Backbone(name=DENSE), data=data)
    assert "loss/cross_entropy" in losses_of_a_step(recipe)


@pytest.mark.parametrize("kind", sorted(WITHOUT_TEACHER - EVERY_TASK))
def test_methods_of_classes_train_the_networks_that_they_say(kind: str, tiny_recipe: TinyRecipe) -> None:
    assert losses_of_a_step(tiny_recipe(method=METHODS[kind]()))


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
    with pytest.raises(RecipeError) as caught:
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
