"""Do learners train on label maps with an ignored value, and do all rooms take the shapes that the task says?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.data import Batch, Facts
from engine.errors import RecipeError
from engine.learners.inputs import Inputs
from engine.learners.meters import Meters
from engine.methods import method_of
from engine.objectives import Context, Objective, PixelClassification
from engine.planning.sizes import team_sizes
from engine.program import BATCH
from engine.recipes import DML, Backbone, Greedy, OwnTask, Peer, Recipe
from engine.runtimes.process import ProcessRuntime
from engine.tasks import task_of

DENSE = Path(__file__).with_name("dense_task.py")
IGNORED = 255
FACTS = Facts("maps", 2, ("dark", "light"), (1, 8, 12), (0.5,), (0.3,), {"train": 24, "test": 24}, "f")

TinyRecipe = Callable[..., Recipe]


def recipe_of(tiny_recipe: TinyRecipe, method: object) -> Recipe:
    return tiny_recipe(
        task=OwnTask(kind=f"{DENSE}:Lighter"), backbone=Backbone(name=f"{DENSE}:network"), method=method, seed=1
    )


def batch(epoch: int, step: int, split: str = "train", size: tuple[int, int] = (8, 12)) -> Batch:
    images = np.random.default_rng(step).integers(0, 256, (12, 1, *size), dtype=np.uint8)
    labels = (images[:, 0] > 127).astype(np.uint8)
    labels[:, 0] = IGNORED
    return Batch(images, labels, np.arange(12), split, epoch, step)


def runtime_of(recipe: Recipe) -> ProcessRuntime:
    return ProcessRuntime(recipe, FACTS, method_of(recipe).team(recipe, FACTS), 2)


def test_programs_and_sizes_are_those_of_the_task(tiny_recipe: TinyRecipe) -> None:
    recipe = recipe_of(tiny_recipe, Greedy(num_segments=2, cuts="balanced_memory"))
    team = method_of(recipe).team(recipe, FACTS)
    parts = team.training[0].messages[BATCH].parts
    assert parts == (((12, 1, 8, 12), "uint8"), ((12, 8, 12), "uint8"), ((12,), "int64"))
    sizes = team_sizes(recipe, FACTS, team)
    assert [size.parameters for size in sizes] == [
        summary.parameters * 4 + summary.auxiliary_parameters * 4 for summary in team.learners
    ]


def test_segments_learn_and_are_scored_on_images_of_another_size(tiny_recipe: TinyRecipe) -> None:
    recipe = recipe_of(tiny_recipe, Greedy(num_segments=2))
    runtime, team = runtime_of(recipe), method_of(recipe).team(recipe, FACTS)

    def score() -> float:
        for step in range(2):
            runtime.submit(team.evaluation, batch(0, step, "test", (16, 20)))
        answers = runtime.ask("score").result()
        (scores,) = (found["network"] for found in answers.values() if found)
        assert scores["images"] == 24
        return float(scores["pixel_accuracy"])

    before = score()
    for epoch in range(15):
        for step in range(2):
            runtime.submit(team.training[0], batch(epoch, step))
    metrics = runtime.ask("metrics").result()
    for found in metrics.values():
        assert 0.5 < found["accuracy"] <= 1
    assert score() > before
    runtime.close()


def test_peers_exchange_a_distribution_at_each_position(tiny_recipe: TinyRecipe) -> None:
    recipe = recipe_of(tiny_recipe, DML(peers=(Peer(), Peer())))
    runtime, team = runtime_of(recipe), method_of(recipe).team(recipe, FACTS)
    assert team.training[0].messages["peer0_predictions"].parts == (((12, 2, 4, 6), "float32"),)
    runtime.submit(team.training[0], batch(0, 0))
    for found in runtime.ask("metrics").result().values():
        assert found["loss/mimicry"] > 0
    runtime.close()


@pytest.mark.parametrize("known", [(9, 3), (5, 0), (0, 0)])
def test_replicas_weigh_their_losses_by_what_is_labelled(tiny_recipe: TinyRecipe, known: tuple[int, int]) -> None:
    """The sum over replicas is the loss of the whole batch, however the labels lie in their parts."""

    class Half:
        count = 2

        def __init__(self, index: int) -> None:
            self.index = index

        def rows(self, whole: Tensor) -> Tensor:
            return whole.tensor_split(2)[self.index]

    recipe = recipe_of(tiny_recipe, Greedy(num_segments=2))
    given = batch(0, 0)
    whole = np.full_like(given.labels, IGNORED)
    for part, rows in enumerate(np.array_split(np.arange(12), 2)):
        whole[rows, 1, : known[part]] = 1
    given = dataclasses.replace(given, labels=whole)
    task = task_of(recipe, FACTS)
    term = PixelClassification(None, "labelled")
    objective = Objective({"cross_entropy": term}, {"cross_entropy": 1.0})
    logits = torch.randn(12, 2, 8, 12, generator=torch.Generator().manual_seed(3))
    expected = float(term(logits, Context(Inputs(recipe, FACTS, task, torch.device("cpu")).labels(given).own)).loss)
    together, reported = 0.0, []
    for index in range(2):
        inputs = Inputs(recipe, FACTS, task, torch.device("cpu"))
        inputs.replicas = Half(index)  # type: ignore[assignment]
        labels, meters = inputs.labels(given), Meters()
        own = Half(index).rows(logits)
        loss = term(own, Context(labels.own)).loss
        factors = labels.factors(objective) or {"cross_entropy": 1.0}
        together += labels.share * factors["cross_entropy"] * float(loss)
        labels.count(meters, {"cross_entropy": loss}, task.hits(own, labels.own), objective)
        reported.append(meters.report().get("loss/cross_entropy", 0.0))
    assert together == pytest.approx(expected)
    assert sum(reported) / 2 == pytest.approx(expected)


def test_a_backbone_of_another_task_is_refused(tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(task=OwnTask(kind=f"{DENSE}:Lighter"), method=Greedy(num_segments=2))
    with pytest.raises(RecipeError, match=r"the last block gives \(2,\) for each image, but task\.kind=.* needs"):
        method_of(recipe).team(recipe, FACTS)
