"""The score of several networks together: features side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from engine.tasks.retrieval_score import RetrievalScore, scores_of


class RetrievalCohortScore:
    """Compares pictures by the normalised features of all networks, one behind the other.

    So the squared distance is the mean of the networks' own. The released code of Deep Mutual Learning joins them
    without normalising. A network with features that are not finite, because it has left the cohort, does not count.

    Attributes:
        images: number of images so far.
    """

    def __init__(self) -> None:
        self.images = 0
        self._scores: dict[str, RetrievalScore] = {}

    def update(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add one batch.

        Args:
            features: ``[B, D]`` of each network, on the CPU; D may differ.
            labels: int64 ``[B]``, on the CPU.
        """
        self.images += len(labels)
        for name, each in features.items():
            self._scores.setdefault(name, RetrievalScore()).update(each, labels)

    def result(self) -> dict[str, float]:
        """Return `scores_of` of all images so far; empty without a network that counts."""
        single, multi = [], []
        labels = torch.empty(0, dtype=torch.int64)
        for score in self._scores.values():
            features, labels = score.kept()
            if bool(features.isfinite().all()):
                single.append(features)
                multi.append(score.multi_queries(features, labels))
        if not single:
            return {}
        asked = [each for each in multi if each is not None]
        return scores_of(_side_by_side(single), labels, _side_by_side(asked) if asked else None)


def _side_by_side(normalised: list[Tensor]) -> Tensor:
    """Return rows of length 1, ``[N, D_1 + D_2 + ...]``."""
    return torch.cat(normalised, dim=1) / math.sqrt(len(normalised))
