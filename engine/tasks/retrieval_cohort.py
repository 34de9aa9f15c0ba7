"""The score of several networks together: features side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.tasks.retrieval_score import RetrievalScore, normalised


class RetrievalCohortScore:
    """Compares pictures by the normalised features of all networks, one behind the other.

    So the squared distance is the mean of the networks' own. The released code of Deep Mutual Learning joins them
    without normalising. A network with features that are not finite, because it has left the cohort, does not count.

    Attributes:
        images: number of images so far.
    """

    def __init__(self) -> None:
        self.images = 0
        self._features: dict[str, list[Tensor]] = {}
        self._labels: list[Tensor] = []

    def update(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add one batch.

        Args:
            features: ``[B, D]`` of each network, on the CPU; D may differ.
            labels: int64 ``[B]``, on the CPU.
        """
        self.images += len(labels)
        self._labels.append(labels)
        for name, each in features.items():
            self._features.setdefault(name, []).append(normalised(each.float()))

    def result(self) -> dict[str, float]:
        """Return the scores of `RetrievalScore` over all images so far; empty without a network that counts."""
        whole = [torch.cat(each) for each in self._features.values()]
        counted = [each for each in whole if bool(each.isfinite().all())]
        if not counted:
            return {}
        score = RetrievalScore()
        score.update(torch.cat(counted, dim=1) / math.sqrt(len(counted)), torch.cat(self._labels))
        return score.result()
