"""The score of features by which pictures of the same identity are found: mean average precision and ranks.

Protocol of Market-1501 (Zheng et al. 2015): for a query of identity i by camera c, pictures of i by c and junk are
taken out of the ranking, the other pictures of i are right, and all else, distractors too, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.data.appearances import GALLERY, JUNK, MOST_CAMERAS, QUERY, UNKNOWN_CAMERA, Appearances, unpacked
from engine.errors import DataError
from engine.tasks.metric import Metric

MEAN_AVERAGE_PRECISION = Metric("mean_average_precision")
"""Mean over the queries of the mean precision at their right pictures."""

TRAPEZOID = Metric("mean_average_precision_trapezoid")
"""As `MEAN_AVERAGE_PRECISION`, with the area below the precision by the trapezoid rule."""

INVERSE_PENALTY = Metric("mean_inverse_negative_penalty")
"""Mean over the queries of the number of right pictures divided by the rank of the last."""

RANKS = (1, 5, 10)

RETRIEVAL_SCORES = (MEAN_AVERAGE_PRECISION, TRAPEZOID, INVERSE_PENALTY, *(Metric(f"rank{rank}") for rank in RANKS))
"""What is measured, all of it shares."""

_CHUNK_BYTES = 64 << 20
_SHARE_OF_BLOCKS = 0.25
# Of a query and a picture: their distance, and what is sorted by it. Of a number: in both precisions.
_BYTES_OF_PAIR = 40
_BYTES_OF_NUMBER = 12

_NOT_A_NUMBER = 4.5
"""A squared distance beyond the largest of normalised features, which is 4: such pictures come last."""


@dataclass(frozen=True)
class Ranking:
    """What a query finds.

    Attributes:
        query: its position among all pictures.
        gallery: int64 [G], positions of the pictures that are left, the nearest first.
        right: bool [G], which of them show its identity.
    """

    query: int
    gallery: np.ndarray
    right: np.ndarray


class RetrievalScore:
    """Keeps the features of a split until all are there, float32 on the CPU, and compares them at the end.

    Distances are Euclidean, of L2-normalised features, in float64, some queries and some of the gallery at a time, so
    that besides the features no more than 64 MiB are held at once, or one query's ranking, if that is more. Of pictures
    that are equally far the earlier one comes first. A picture whose features are not numbers comes last, and finds
    nothing before it.

    Attributes:
        images: number of images so far.
    """

    def __init__(self) -> None:
        self.images = 0
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add one batch.

        Args:
            features: ``[B, D]``, any floating dtype, on any device.
            labels: int64 ``[B]``, as `engine.data.appearances` packs them, or classes.
        """
        assert features.dim() == 2 and len(features) == len(labels), "expected a row of features for each label"
        self.images += len(labels)
        self._features.append(normalised(features.detach().cpu().float()))
        self._labels.append(labels.detach().cpu())

    def kept(self) -> tuple[Tensor, Tensor]:
        """Return the normalised features, float32 ``[N, D]``, and the labels, int64 ``[N]``.

        Raises:
            DataError: there was no image.
        """
        if not self.images:
            raise DataError("no image was scored: the split is empty, so give it at least one image")
        return torch.cat(self._features), torch.cat(self._labels)

    def result(self) -> dict[str, float]:
        """Return the scores over all images so far.

        ``mean_average_precision`` (sum of the precisions at the right pictures, divided by their number), the same as
        ``mean_average_precision_trapezoid`` (first precision 1), ``rank1``, ``rank5`` and ``rank10`` (share of the
        queries with a right picture among the first), ``mean_inverse_negative_penalty`` (Ye et al. 2021); ``queries``
        that count, ``queries_without_match`` that do not, because nothing right is left in the gallery; ``images``.

        Raises:
            DataError: there was no image, or no query that counts.
        """
        features, labels = self.kept()
        sums = dict.fromkeys((metric.name for metric in RETRIEVAL_SCORES), 0.0)
        queries, lost = 0, 0
        for ranking in rankings(features, unpacked(labels.numpy())):
            if not ranking.right.any():
                lost += 1
                continue
            queries += 1
            for name, value in scores_of_ranking(ranking.right).items():
                sums[name] += value
        if not queries:
            raise DataError(
                f"none of the {lost:,} queries has a right picture in the gallery, so there is nothing to score: give "
                "pictures of the queries' identities, by other cameras where cameras are known"
            )
        scores = {name: value / queries for name, value in sums.items()}
        return scores | {"queries": queries, "queries_without_match": lost, "images": self.images}


def normalised(features: Tensor) -> Tensor:
    """Return rows ``[N, D]`` of length 1; a row of zeros stays."""
    return F.normalize(features, dim=1)


def scores_of_ranking(right: np.ndarray) -> dict[str, float]:
    """Return the scores of one query, by the names of `RETRIEVAL_SCORES`.

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


def queries_with_match(appearances: Appearances) -> np.ndarray:
    """Return the positions, int64 [Q], of the queries of which a ranking holds a right picture, without ranking."""
    names, cameras, roles = appearances.identities, appearances.cameras, appearances.roles
    in_gallery = (roles & GALLERY > 0) & (names != JUNK)
    is_query = roles & QUERY > 0
    others = _counts(names, in_gallery)
    by_camera = _counts(names * (MOST_CAMERAS + 1) + cameras, in_gallery)
    removed = np.where(cameras == UNKNOWN_CAMERA, in_gallery, by_camera)
    return np.flatnonzero(is_query & (names != JUNK) & (others > removed))


def _counts(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return for each value int64 [N] how many of those that are counted, bool [N], equal it, int64 [N]."""
    _, places = np.unique(values, return_inverse=True)
    numbers = np.bincount(places[counted], minlength=len(values))
    equal: np.ndarray = numbers[places]
    return equal


def rankings(
    features: Tensor,
    appearances: Appearances,
    chunk_bytes: int = _CHUNK_BYTES,
    queries: np.ndarray | None = None,
) -> Iterator[Ranking]:
    """Yield what each query finds, as a `Ranking`, in the order of the queries.

    Args:
        features: normalised, float32 ``[N, D]``.
        appearances: of the same N pictures.
        chunk_bytes: memory for pictures of the gallery in float64, for distances, and for what is sorted by them; one
            query at a time if it is too little.
        queries: positions, int64 ``[Q]``; all queries unless given.
    """
    known = appearances
    if queries is None:
        queries = np.flatnonzero(known.roles & QUERY > 0)
    gallery = np.flatnonzero((known.roles & GALLERY > 0) & (known.identities != JUNK))
    width = features.shape[1]
    block = max(1, int(chunk_bytes * _SHARE_OF_BLOCKS) // max(1, _BYTES_OF_NUMBER * width))
    of_query = _BYTES_OF_PAIR * len(gallery) + _BYTES_OF_NUMBER * width
    at_once = max(1, int(chunk_bytes * (1 - _SHARE_OF_BLOCKS)) // max(1, of_query))
    for start in range(0, len(queries), at_once):
        some = queries[start : start + at_once]
        # Single precision, so that the rounding of products does not put equal pictures into an order.
        distances = _distances(features, some, gallery, block)
        same = known.identities[some, None] == known.identities[None, gallery]
        cameras = known.cameras[some, None] == known.cameras[None, gallery]
        removed = same & cameras & (known.cameras[some, None] != UNKNOWN_CAMERA)
        removed |= some[:, None] == gallery[None, :]
        order = np.argsort(np.where(removed, np.inf, distances), axis=1, kind="stable")
        for row, query in enumerate(some.tolist()):
            left = order[row, : len(gallery) - int(removed[row].sum())]
            yield Ranking(query, gallery[left], same[row, left])


def _distances(features: Tensor, queries: np.ndarray, gallery: np.ndarray, block: int) -> np.ndarray:
    """Return squared distances, float32 ``[Q, G]``, computed in float64 for some pictures of the gallery at a time."""
    asked = features[torch.from_numpy(queries)].double()
    products = torch.empty(len(queries), len(gallery), dtype=torch.float64)
    for start in range(0, len(gallery), block):
        looked_through = features[torch.from_numpy(gallery[start : start + block])].double()
        products[:, start : start + block] = asked @ looked_through.T
    distances = (2 - 2 * products).float().numpy()
    found: np.ndarray = np.nan_to_num(distances, nan=_NOT_A_NUMBER, posinf=_NOT_A_NUMBER)
    return found
