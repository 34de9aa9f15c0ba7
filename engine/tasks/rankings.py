"""Rankings: the pictures of a gallery in the order of their distance to a query.

Protocol of Market-1501 (Zheng et al. 2015): for a query of identity i by camera c, pictures of i by c and junk are
taken out of the ranking, the other pictures of i are right, and all else, distractors too, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.data.appearances import FURTHER, GALLERY, JUNK, MOST_CAMERAS, QUERY, UNKNOWN_CAMERA, Appearances

_CHUNK_BYTES = 64 << 20
_SHARE_OF_BLOCKS = 0.25
# Of a query and a picture: their distance, and what is sorted by it. Of a number: in both precisions.
_BYTES_OF_PAIR = 40
_BYTES_OF_NUMBER = 12

_NOT_A_NUMBER, _AND_RIGHT = 4.5, 5.0
"""Squared distances beyond the largest of normalised features, which is 4: such pictures come last, right ones behind
the wrong, so that a network that gives no numbers never gains from the order of the gallery."""


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


def queries_with_match(appearances: Appearances) -> np.ndarray:
    """Return the positions, int64 [Q], of the queries of which a ranking holds a right picture, without ranking."""
    names, cameras, roles = appearances.identities, appearances.cameras, appearances.roles
    in_gallery = (roles & GALLERY > 0) & (names != JUNK)
    is_query = roles & QUERY > 0
    others = _counts(names, in_gallery)
    by_camera = _counts(_by_camera(appearances), in_gallery)
    removed = np.where(cameras == UNKNOWN_CAMERA, in_gallery, by_camera)
    return np.flatnonzero(is_query & (names != JUNK) & (others > removed))


def mean_of_further(features: Tensor, lengths: Tensor, appearances: Appearances) -> Tensor | None:
    """Return the normalised mean of the further pictures of each query, float32 ``[Q, D]``; None without any.

    These are the pictures of its identity by its camera with the role `FURTHER`. A query that has none is its own mean.

    Args:
        features: normalised, float32 ``[N, D]``.
        lengths: of the features before, float32 ``[N]``: longer ones count more.
        appearances: of the same N pictures.
    """
    further = np.flatnonzero(appearances.roles & FURTHER > 0)
    if not len(further):
        return None
    queries = np.flatnonzero(appearances.roles & QUERY > 0)
    groups = _by_camera(appearances)
    further = further[np.argsort(groups[further], kind="stable")]
    starts, stops = (np.searchsorted(groups[further], groups[queries], side) for side in ("left", "right"))
    found = features[torch.from_numpy(queries)]
    for row, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        if start < stop:
            own = torch.from_numpy(further[start:stop])
            mean = (features[own].double() * lengths[own].double()[:, None]).mean(dim=0)
            found[row] = torch.nn.functional.normalize(mean, dim=0).float()
    return found


def _by_camera(appearances: Appearances) -> np.ndarray:
    """Return int64 [N], equal for pictures of one identity by one camera and for no others."""
    groups: np.ndarray = appearances.identities * (MOST_CAMERAS + 1) + appearances.cameras
    return groups


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
    asked: Tensor | None = None,
) -> Iterator[Ranking]:
    """Yield what each query finds, as a `Ranking`, in the order of the queries.

    Distances are Euclidean, in float64, some queries and some of the gallery at a time, so that besides the features no
    more than 64 MiB are held at once, or one query's ranking, if that is more. Of pictures that are equally far the
    earlier one comes first. Pictures whose features are not numbers come last, and all of them for a query whose own
    are none; there right pictures come behind wrong ones.

    Args:
        features: normalised, float32 ``[N, D]``.
        appearances: of the same N pictures.
        chunk_bytes: memory for pictures of the gallery in float64, for distances, and for what is sorted by them; one
            query at a time if it is too little.
        queries: positions, int64 ``[Q]``; all queries unless given.
        asked: normalised features that are looked for, float32 ``[Q, D]``; the queries' own unless given.
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
        own = features[torch.from_numpy(some)] if asked is None else asked[start : start + at_once]
        distances = _distances(own, features, gallery, block)
        same = known.identities[some, None] == known.identities[None, gallery]
        distances[same & (distances == _NOT_A_NUMBER)] = _AND_RIGHT
        cameras = known.cameras[some, None] == known.cameras[None, gallery]
        removed = same & cameras & (known.cameras[some, None] != UNKNOWN_CAMERA)
        removed |= some[:, None] == gallery[None, :]
        order = np.argsort(np.where(removed, np.inf, distances), axis=1, kind="stable")
        for row, query in enumerate(some.tolist()):
            left = order[row, : len(gallery) - int(removed[row].sum())]
            yield Ranking(query, gallery[left], same[row, left])


def _distances(asked: Tensor, features: Tensor, gallery: np.ndarray, block: int) -> np.ndarray:
    """Return squared distances, float32 ``[Q, G]``, computed in float64 for some pictures of the gallery at a time."""
    looked_for = asked.double()
    products = torch.empty(len(asked), len(gallery), dtype=torch.float64)
    for start in range(0, len(gallery), block):
        looked_through = features[torch.from_numpy(gallery[start : start + block])].double()
        products[:, start : start + block] = looked_for @ looked_through.T
    distances = (2 - 2 * products).float().numpy()
    found: np.ndarray = np.nan_to_num(distances, nan=_NOT_A_NUMBER, posinf=_NOT_A_NUMBER)
    return found
