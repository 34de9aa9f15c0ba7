"""Does the running accuracy of training count both classes of a mixed image, each by its share?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import engine
from engine.data import open_source
from engine.learners.labels import Labels
from engine.learners.meters import Meters
from engine.objectives import Classification, MixedLabels, Objective
from engine.recipes import DataMix, Recipe
from engine.streams import generator
from engine.tasks import task_of
from engine.tasks.classification import ClassificationTask
from engine.tracking import Preparation
from engine.training.session import Session

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def task(tiny_recipe: MakeRecipe) -> Any:
    recipe = tiny_recipe()
    return task_of(recipe, open_source(recipe.data, recipe.seed).facts)


def naming(*classes: int) -> Tensor:
    return F.one_hot(torch.tensor(classes), 10).float()


def test_each_class_counts_by_its_share_of_the_image(task: Any) -> None:
    first, second = torch.tensor([1, 1, 1, 4]), torch.tensor([2, 2, 2, 4])
    labels = Labels(first, torch.tensor(4), mixed=MixedLabels(second, torch.tensor([0.75, 0.25, 0.5, 0.5])))
    # The first, the second, neither, and both at once.
    found = labels.hits(task, naming(1, 2, 3, 4))
    assert found is not None
    assert found.item() == 0.75 + 0.75 + 0 + 1
    assert labels.hits(task, None) is None


def test_the_larger_part_is_right_by_three_quarters_on_average(task: Any) -> None:
    share = torch.rand(20_000, generator=generator("mixed hits"))
    first, second = torch.zeros(len(share), dtype=torch.int64), torch.ones(len(share), dtype=torch.int64)
    larger = torch.where(share > 0.5, first, second)
    found = Labels(first, torch.tensor(len(share)), mixed=MixedLabels(second, share)).hits(
        task, naming(*larger.tolist())
    )
    assert found is not None
    # The mean of max(lambda, 1 - lambda), within 5 standard deviations.
    assert found.item() / len(share) == pytest.approx(0.75, abs=5 * 0.145 / len(share) ** 0.5)


def test_a_part_without_a_label_is_left_out(task: Any) -> None:
    first, second = torch.tensor([1, -1]), torch.tensor([-1, 2])
    labels = Labels(first, torch.tensor(1), mixed=MixedLabels(second, torch.tensor([0.25, 0.25])))
    found = labels.hits(task, naming(1, 2))
    assert found is not None
    assert found.item() == 1


def test_images_that_are_not_mixed_count_once(task: Any) -> None:
    found = Labels(torch.tensor([1, 1]), torch.tensor(2)).hits(task, naming(1, 2))
    assert found is not None
    assert found.item() == 1


def test_shares_are_added_up_in_a_report_and_after_a_resumption(task: Any) -> None:
    objective = Objective({Classification.name: Classification()}, {Classification.name: 1.0})
    first, second = torch.tensor([1, 1]), torch.tensor([2, 2])
    labels = Labels(first, torch.tensor(2), mixed=MixedLabels(second, torch.tensor([0.75, 0.75])))
    meters, resumed = Meters(), Meters()
    labels.count(meters, {"total": torch.tensor(1.0)}, labels.hits(task, naming(1, 2)), objective)
    resumed.load_state(meters.state())
    for each in (meters, resumed):
        labels.count(each, {"total": torch.tensor(1.0)}, labels.hits(task, naming(1, 1)), objective)
        assert each.report()["accuracy"] == (0.75 + 0.25 + 0.75 + 0.75) / 4


def test_a_network_that_is_trained_on_mixed_images_counts_so(
    tiny_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[MixedLabels] = []
    count = ClassificationTask.mixed_hits

    def noted(task: ClassificationTask, outputs: Tensor, labels: Tensor, mixed: MixedLabels) -> Tensor | None:
        seen.append(mixed)
        return count(task, outputs, labels, mixed)

    monkeypatch.setattr(ClassificationTask, "mixed_hits", noted)
    recipe = tiny_recipe(method=DataMix(style="mixup"))
    with Session(recipe, engine.Plan(executor="process"), Preparation(lambda text: None)) as session:
        runtime, program = session.start(), session.team.program(0)
        runtime.submit(program, session.source.batch(0, 0))
        (metrics,) = runtime.ask("metrics").result().values()
    assert len(seen) == 1
    assert 0 <= metrics["accuracy"] <= 1
