"""Versions of an image that are evaluated together: several scales, and mirrored; their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from engine.objectives import enlarged


@dataclass(frozen=True)
class Version:
    """One way to show an image.

    Attributes:
        scale: what its height and width are multiplied by.
        mirrored: whether it is mirrored left to right.
    """

    scale: float = 1.0
    mirrored: bool = False

    def of(self, images: np.ndarray) -> np.ndarray:
        """Return images, uint8 ``[B, 3, H, W]``, at this scale (bilinear, 8 bits as before); copies."""
        size = scaled_size((images.shape[2], images.shape[3]), self.scale)
        if size != images.shape[2:]:
            images = np.stack([_resized(image, size) for image in images])
        return np.ascontiguousarray(images[:, :, :, ::-1] if self.mirrored else images)

    def probabilities(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the probabilities of one image's pixels as they were before, ``[1, C, H, W]``.

        Args:
            logits: ``[1, C, h, w]`` of the image shown in this way.
            size: its height and width before, H and W.
        """
        found = enlarged(logits, size).softmax(dim=1)
        return found.flip(3) if self.mirrored else found


WHOLE = (Version(),)
"""The image as it is."""


def versions_of(scales: Sequence[float], *, flip: bool) -> tuple[Version, ...]:
    """Return a version for each scale, each also mirrored with ``flip``."""
    return tuple(Version(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,)))


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return height and width multiplied by a scale, rounded, at least 1."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(image.transpose(1, 2, 0)).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture).transpose(2, 0, 1)
