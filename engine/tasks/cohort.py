"""The score of networks together, and how far they are from one another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.tasks.classification_score import ClassificationScore


class CohortScore:
    """Counts over the batches of one evaluation of several networks on the same images.

    The ensemble predicts the mean of the networks' probabilities. A network whose logits are not finite, because it
    has left the cohort, does not count.

    Attributes:
        num_classes: number of logits per image.
        images: number of images so far.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.images = 0
        self._ensemble = ClassificationScore(num_classes)
        self._correct: dict[str, int] = {}
        self._scored: dict[str, int] = {}
        self._compared = 0
        self._divergence = 0.0
        self._disagreements = 0.0

    def update(self, logits: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add one batch.

        Args:
            logits: ``[B, classes]`` of each network, on the CPU.
            labels: int64 ``[B]``, on the CPU.
        """
        self.images += len(labels)
        finite = {name: each.double() for name, each in logits.items() if bool(each.isfinite().all())}
        if not finite:
            return
        log_probability = torch.stack([F.log_softmax(each, dim=1) for each in finite.values()])
        # As logits these give back the mean of the probabilities.
        self._ensemble.update(log_probability.logsumexp(dim=0), labels)
        predicted = torch.stack([each.argmax(dim=1) for each in finite.values()])
        for name, row in zip(finite, predicted, strict=True):
            self._correct[name] = self._correct.get(name, 0) + int((row == labels).sum())
            self._scored[name] = self._scored.get(name, 0) + len(labels)
        pairs = len(finite) * (len(finite) - 1)
        if pairs:
            self._compared += len(labels)
            cross = torch.einsum("jbc,kbc->jk", log_probability.exp(), log_probability)
            self._divergence += float((cross.diagonal()[:, None] - cross).sum()) / pairs
            self._disagreements += float((predicted[:, None] != predicted[None, :]).sum()) / pairs

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far.

        Those of `ClassificationScore` for the ensemble; ``accuracy_gap``, between the best and the worst network;
        ``kl_between_peers``, mean KL(p_j || p_k) over all ordered pairs in nats; ``disagreement``, the mean share of
        images on which two networks predict different classes. These need two networks that count; empty without any.
        """
        if not self._correct:
            return {}
        scores = self._ensemble.result()
        if not self._compared:
            return scores
        accuracies = [correct / self._scored[name] for name, correct in self._correct.items()]
        scores["accuracy_gap"] = max(accuracies) - min(accuracies)
        scores["kl_between_peers"] = self._divergence / self._compared
        scores["disagreement"] = self._disagreements / self._compared
        return scores
