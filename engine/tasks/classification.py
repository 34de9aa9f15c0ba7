"""Classification: one of C classes for each image, learned by cross-entropy, scored by accuracy."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from engine.objectives import AuxiliaryClassification, Classification, HookedClassification, MixedLabels, Term
from engine.recipes import Classification as ClassificationSettings
from engine.tasks.classification_score import ClassificationScore
from engine.tasks.cohort import CohortScore
from engine.tasks.metric import ACCURACY, Metric
from engine.tasks.task import CommonScore, Score, Task


class ClassificationTask(Task):
    """Labels are int64 classes, 0 to C - 1; a network gives C logits, whose softmax is the prediction."""

    headline: ClassVar[Metric] = ACCURACY
    distribution_axis: ClassVar[int | None] = 1

    @property
    def outputs(self) -> int:
        """Number of classes C."""
        return self.facts.num_classes

    @property
    def num_classes(self) -> int | None:
        """Number of classes C."""
        return self.facts.num_classes

    def final_term(self) -> Term:
        """Return cross-entropy of the network's logits, with the recipe's label smoothing."""
        own = self.settings
        # Tasks of one's own that are children of this one have other settings.
        smoothing = own.label_smoothing if isinstance(own, ClassificationSettings) else None
        return Classification(smoothing or 0.0)

    def local_term(self, head: nn.Module) -> Term:
        """Return cross-entropy of a head's logits."""
        return AuxiliaryClassification(head)

    def hooked_term(self, block: str, head: nn.Module) -> Term:
        """Return cross-entropy of a classifier on the output of a block."""
        return HookedClassification(block, head)

    def hits(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """Return how many labels are the class with the largest logit."""
        return (outputs.argmax(1) == labels).sum()

    def mixed_hits(self, outputs: Tensor, labels: Tensor, mixed: MixedLabels) -> Tensor | None:
        """Return the sum over the images of lambda where the first class is predicted, 1 - lambda where the second is.

        As mixup's authors count (mixup-cifar10, train.py). An image whose second part has no label is judged by its
        first.
        """
        predicted = outputs.argmax(1)
        share = torch.where(mixed.second == self.no_label, 1.0, mixed.share)
        found = share * (predicted == labels) + (1 - share) * (predicted == mixed.second)
        return (found * (labels != self.no_label)).sum()

    def score(self) -> Score:
        """Return an empty score of accuracy, cross-entropy and calibration."""
        return ClassificationScore(self.outputs)

    def common_score(self) -> CommonScore:
        """Return an empty score of the ensemble of a cohort, and of how far its networks are apart."""
        return CohortScore(self.outputs)


TASK = ClassificationTask
