"""The labels of a batch, and what a mean over a replica's part of them counts for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from engine.learners.meters import Meters
from engine.objectives import MixedLabels, Objective
from engine.tasks import Task


@dataclass(frozen=True)
class Labels:
    """Labels on the learner's device.

    Replicas add up their gradients by their shares of the images. Where a loss is a mean over what is labelled, as many
    images or pixels may not be labelled in one part as in another, and the shares are those of the labels.

    Attributes:
        own: those of this learner's images, as the task has them, [B, ...].
        labelled: how many the whole batch has, a scalar.
        share: of the batch that the learner's images are.
        factor: the learner's share of what is labelled over `share`; 1 where a learner has the whole batch, or none.
        parts: that the batch is cut into.
        mixed: what the images are mixed with; None where they are not.
    """

    own: Tensor
    labelled: Tensor
    share: float = 1.0
    factor: float = 1.0
    parts: int = 1
    mixed: MixedLabels | None = None

    def hits(self, task: Task, logits: Tensor | None) -> Tensor | None:
        """Return how many of the labels logits [B, classes] name, a scalar; None where there are no logits."""
        if logits is None:
            return None
        return task.hits(logits, self.own) if self.mixed is None else task.mixed_hits(logits, self.own, self.mixed)

    def factors(self, objective: Objective) -> dict[str, float] | None:
        """Return what the terms' weights are multiplied by; None where all count once."""
        if self.factor == 1.0:
            return None
        return {name: self._factor(name, objective) for name in objective.weights}

    def count(self, meters: Meters, losses: Mapping[str, Tensor], hits: Tensor | None, objective: Objective) -> None:
        """Tell meters the losses by term, and the hits, so that their means over the parts are those of the batch."""
        if hits is not None and self.parts > 1:
            hits = self.parts * hits
        if self.factor != 1.0:
            losses = {name: value * self._factor(name, objective) for name, value in losses.items()}
        meters.add(losses, len(self.own), hits, self.labelled, objective.need_labels)

    def _factor(self, name: str, objective: Objective) -> float:
        return self.factor if name in objective.need_labels else 1.0
