"""A task, the digit in an image as a number instead of a class, and a method of weighed local losses for it."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from engine.data import Facts
from engine.methods.chain import Chain
from engine.objectives import Context, Objective, Term, TermValue
from engine.partition import Segment
from engine.recipes import Recipe, Segmented
from engine.recipes.settings import settings
from engine.tasks import Metric, Task, task_of


class SquaredError(Term):
    name = "squared_error"

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, context: Context) -> TermValue:
        return TermValue(F.mse_loss(self.head(features)[:, 0].float(), context.labels.float()))


class ErrorScore:
    def __init__(self) -> None:
        self.images, self._sum = 0, 0.0

    def update(self, outputs: Tensor, labels: Tensor) -> None:
        self.images += len(labels)
        self._sum += float((outputs[:, 0].double() - labels).abs().sum())

    def result(self) -> dict[str, float]:
        return {"mean_absolute_error": self._sum / self.images, "images": self.images}


class Regression(Task):
    headline: ClassVar[Metric] = Metric("mean_absolute_error", higher_is_better=False, is_share=False)
    outputs = 1

    def final_term(self) -> Term:
        return SquaredError(nn.Identity())

    def local_term(self, head: nn.Module) -> Term:
        return SquaredError(head)

    def score(self) -> ErrorScore:
        return ErrorScore()


@settings
class Weighed(Segmented):
    local_weight: float = 0.5


def local_objective(recipe: Recipe, facts: Facts, segment: Segment) -> Objective:
    assert isinstance(recipe.method, Weighed)
    task = task_of(recipe, facts)
    head = task.local_head("linear", segment.features, facts.image_shape, segment.final_channels)
    return Objective({"squared_error": task.local_term(head)}, {"squared_error": recipe.method.local_weight})


METHOD = Chain(local_objective)
