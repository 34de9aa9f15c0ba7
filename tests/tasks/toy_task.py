"""A task and nothing else: the digit in an image is a number, not a class, and is predicted as one."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from engine.objectives import Context, Term, TermValue
from engine.tasks import Metric, Task


class SquaredError(Term):
    """Mean squared error of one number for each image, of a head or of the network itself."""

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
