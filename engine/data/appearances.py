"""Labels of pictures that are found again by identity: who is seen, by which camera, and what the picture is for.

All of it is packed into one int64, which no class label can be, so that batches, caches and messages stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

QUERY, GALLERY, FURTHER = 1, 2, 4
"""What a picture is for, to be added up: it is looked for, it is found, or it is one more of a query's own pictures."""

JUNK = -1
"""The identity of pictures that are neither right nor wrong, and are taken out of every ranking."""

UNKNOWN_CAMERA = -1
"""The camera of a picture of which it is not known."""

MOST_IDENTITIES = 1 << 31
MOST_CAMERAS = (1 << 16) - 1

_ROLE_BITS, _CAMERA_BITS = 8, 16
_MARK = np.int64(1) << 62


@dataclass(frozen=True)
class Appearances:
    """What is known of N pictures, each int64 [N]."""

    identities: np.ndarray
    """0 to `MOST_IDENTITIES` - 1, or `JUNK`."""

    cameras: np.ndarray
    """0 to `MOST_CAMERAS` - 1, or `UNKNOWN_CAMERA`."""

    roles: np.ndarray
    """Sums of `QUERY`, `GALLERY` and `FURTHER`."""


def packed(appearances: Appearances) -> np.ndarray:
    """Return labels int64 [N], from which `unpacked` makes the same again."""
    identities, cameras = appearances.identities.astype(np.int64) + 1, appearances.cameras.astype(np.int64) + 1
    assert identities.min(initial=0) >= 0 and identities.max(initial=0) <= MOST_IDENTITIES
    assert cameras.min(initial=0) >= 0 and cameras.max(initial=0) <= MOST_CAMERAS
    shifted = (identities << (_CAMERA_BITS + _ROLE_BITS)) | (cameras << _ROLE_BITS)
    known: np.ndarray = _MARK | shifted | appearances.roles.astype(np.int64)
    return known


def is_packed(labels: np.ndarray) -> bool:
    """Tell whether labels int64 [N] are of appearances, not of classes; of an empty array, that they are not."""
    return len(labels) > 0 and bool(labels[0] >= _MARK)


def unpacked(labels: np.ndarray) -> Appearances:
    """Return what labels int64 [N] say.

    Of labels that are classes, every picture is query and gallery in turn, of the identity of its class, by a camera
    that is not known.
    """
    if not is_packed(labels):
        every = np.full_like(labels, UNKNOWN_CAMERA)
        return Appearances(labels.astype(np.int64), every, np.full_like(labels, QUERY | GALLERY))
    identities = (labels ^ _MARK) >> (_CAMERA_BITS + _ROLE_BITS)
    cameras = (labels >> _ROLE_BITS) & ((1 << _CAMERA_BITS) - 1)
    return Appearances(identities - 1, cameras - 1, labels & ((1 << _ROLE_BITS) - 1))


def notes_on_held_out(tested: np.ndarray) -> tuple[str, ...]:
    """Return what is to be said where images are held out of a training set, a sentence each.

    Args:
        tested: labels int64 [M] of the test images.
    """
    if not is_packed(tested) or (unpacked(tested).cameras == UNKNOWN_CAMERA).all():
        return ()
    return (
        "held-out images have training identities, of which no cameras are kept: from the ranking of each nothing but "
        "itself is taken out, so that validation scores are higher than those of the test, and not to be compared with "
        "them",
    )
