"""The score of features by which pictures of the same identity are found: mean average precision and ranks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data.appearances import unpacked
from engine.errors import DataError
from engine.tasks.metric import Metric
from engine.tasks.rankings import Ranking, mean_of_further, rankings

MEAN_AVERAGE_PRECISION = Metric("mean_average_precision")
"""Mean over the queries of the mean precision at their right pictures."""

TRAPEZOID = Metric("mean_average_precision_trapezoid")
"""As `MEAN_AVERAGE_PRECISION`, with the area below the precision by the trapezoid rule."""

INVERSE_PENALTY = Metric("mean_inverse_negative_penalty")
"""Mean over the queries of the number of right pictures divided by the rank of the last."""

RANKS = (1, 5, 10)

_SINGLE = (MEAN_AVERAGE_PRECISION, TRAPEZOID, INVERSE_PENALTY, *(Metric(f"rank{rank}") for rank in RANKS))
_MULTI = "multi_query_"

RETRIEVAL_SCORES = (*_SINGLE, *(Metric(f"{_MULTI}{metric.name}") for metric in _SINGLE))
"""What is measured, all of it shares; those of several pictures to a query only where there are some."""


class RetrievalScore:
    """Keeps the features of a split until all are there, float32 on the CPU, and compares them at the end.

    Attributes:
        images: number of images so far.
    """

    def __init__(self) -> None:
        self.images = 0
        self._features: list[Tensor] = []
        self._lengths: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add one batch.

        Args:
            features: ``[B, D]``, any floating dtype, on any device.
            labels: int64 ``[B]``, as `engine.data.appearances` packs them, or classes.
        """
        assert features.dim() == 2 and len(features) == len(labels), "expected a row of features for each label"
        self.images += len(labels)
        own = features.detach().cpu().float()
        self._features.append(normalised(own))
        self._lengths.append(own.norm(dim=1))
        self._labels.append(labels.detach().cpu())

    def kept(self) -> tuple[Tensor, Tensor]:
        """Return the normalised features, float32 ``[N, D]``, and the labels, int64 ``[N]``.

        Raises:
            DataError: there was no image.
        """
        if not self.images:
            raise DataError("no image was scored: the split is empty, so give it at least one image")
        return torch.cat(self._features), torch.cat(self._labels)

    def multi_queries(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """Return for each query the normalised mean of the features of its further pictures, float32 ``[Q, D]``.

        The mean is of features as the network gives them, before they are normalised, as in Market-1501's
        evaluation by averages (Zheng et al. 2015). None where there are no further pictures.

        Args:
            features: normalised, float32 ``[N, D]``, as `kept` returned them.
            labels: int64 ``[N]``, of the same.
        """
        return mean_of_further(features, torch.cat(self._lengths), unpacked(labels.numpy()))

    def result(self) -> dict[str, float]:
        """Return `scores_of` of all images so far; raises DataError as `kept` and `scores_of`."""
        features, labels = self.kept()
        return scores_of(features, labels, self.multi_queries(features, labels))


def scores_of(features: Tensor, labels: Tensor, multi_queries: Tensor | None) -> dict[str, float]:
    """Return the scores of the pictures of a split.

    ``mean_average_precision`` (sum of the precisions at the right pictures, divided by their number), the same as
    ``mean_average_precision_trapezoid`` (first precision 1), ``rank1``, ``rank5`` and ``rank10`` (share of the
    queries with a right picture among the first), ``mean_inverse_negative_penalty`` (Ye et al. 2021); all of them again
    with ``multi_query_`` in front, where there are further pictures of the queries; ``queries`` that count,
    ``queries_without_match`` that do not, because nothing right is left in the gallery; ``images``.

    Args:
        features: normalised, float32 ``[N, D]``.
        labels: int64 ``[N]``.
        multi_queries: features ``[Q, D]`` that are looked for in place of the queries' own, if there are any.

    Raises:
        DataError: no query counts.
    """
    known = unpacked(labels.numpy())
    scores, queries, lost = _means(rankings(features, known))
    if not queries:
        raise DataError(
            f"none of the {lost:,} queries has a right picture in the gallery, so there is nothing to score: give "
            "pictures of the queries' identities, by other cameras where cameras are known"
        )
    if multi_queries is not None:
        multi, _, _ = _means(rankings(features, known, asked=multi_queries))
        scores |= {f"{_MULTI}{name}": value for name, value in multi.items()}
    return scores | {"queries": queries, "queries_without_match": lost, "images": len(labels)}


def _means(found: Iterable[Ranking]) -> tuple[dict[str, float], int, int]:
    """Return the mean scores of the queries that count, how many these are, and how many do not."""
    sums = dict.fromkeys((metric.name for metric in _SINGLE), 0.0)
    queries, lost = 0, 0
    for ranking in found:
        if not ranking.right.any():
            lost += 1
            continue
        queries += 1
        for name, value in scores_of_ranking(ranking.right).items():
            sums[name] += value
    return {name: value / max(1, queries) for name, value in sums.items()}, queries, lost


def normalised(features: Tensor) -> Tensor:
    """Return rows ``[N, D]`` of length 1; a row of zeros stays."""
    return F.normalize(features, dim=1)


def scores_of_ranking(right: np.ndarray) -> dict[str, float]:
    """Return the scores of one query, by the names of its metrics.

    Args:
        right: bool ``[G]``, whether the picture at each rank is right; at least one is.
    """
    places = np.flatnonzero(right)
    found = np.arange(len(places))
    precisions = (found + 1) / (places + 1)
    # Before the first picture the precision is 1, as the authors of the data set have it.
    before = np.where(places > 0, found / np.maximum(places, 1), 1.0)
    scores = {
        MEAN_AVERAGE_PRECISION.name: float(precisions.mean()),
        TRAPEZOID.name: float(((before + precisions) / 2).mean()),
        INVERSE_PENALTY.name: float(len(places) / (places[-1] + 1)),
    }
    return scores | {f"rank{rank}": float(places[0] < rank) for rank in RANKS}
