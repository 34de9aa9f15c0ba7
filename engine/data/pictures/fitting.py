"""Fitting: pictures of any size become images of one height and width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""

_RESIZED_PIXELS = 1 << 25


@dataclass(frozen=True)
class Fitting:
    """The size that pictures are brought to, and the way there.

    A picture is resized (bilinear, antialiased) until it covers the image, whose middle is then cut out; or it is
    stretched to the image's height and width.
    """

    height: int
    """H of the images."""

    width: int
    """W of the images."""

    shorter_side: int | None = None
    """What the picture's shorter side becomes before the cut; unless given, the picture covers the image exactly."""

    stretch: bool = False
    """Whether the whole picture is kept, and its aspect ratio is not."""

    first_size: tuple[int, int] | None = None
    """Height and width that a picture is stretched to before that; none in between unless given."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.height, self.width

    def to_json(self) -> Any:
        """Return plain values that are equal for equal ways; of squares as the earlier versions wrote them."""
        if self.height == self.width and not self.stretch:
            return [self.height, self.shorter_side or self.height]
        way = {"height": self.height, "width": self.width, "shorter_side": self.shorter_side, "stretch": self.stretch}
        return way if self.first_size is None else way | {"first_size": list(self.first_size)}

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a resized picture, before the cut."""
        if self.stretch:
            return self.size
        if self.shorter_side is not None or self.height == self.width:
            shorter, wanted = min(height, width), self.shorter_side or self.height
        else:
            tall = height * self.width >= width * self.height
            shorter, wanted = (width, self.width) if tall else (height, self.height)
        return height * wanted // shorter, width * wanted // shorter


def fit(image: Image.Image, fitting: Fitting) -> Image.Image:
    """Return a picture resized and cut (or stretched) to the size of a fitting."""
    if fitting.first_size is not None:
        image = image.resize(fitting.first_size[::-1], Image.Resampling.BILINEAR)
    height, width = fitting.resized(image.height, image.width)
    left, upper = round((width - fitting.width) / 2), round((height - fitting.height) / 2)
    edges = (left, upper, left + fitting.width, upper + fitting.height)
    if (width, height) != image.size and width * height > _RESIZED_PIXELS:
        # So long a picture would take gigabytes, nearly all of which the cut throws away. What is left may differ
        # from the ordinary way by the rounding of its coordinates, so this is not done to others.
        across, down = image.width / width, image.height / height
        box = (edges[0] * across, edges[1] * down, edges[2] * across, edges[3] * down)
        return crop_and_resize(image, box, fitting.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image if (height, width) == fitting.size else image.crop(edges)


def crop_and_resize(image: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """Resize one area of a picture to a height and width (bilinear, antialiased)."""
    height, width = size
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def pixels(image: Image.Image) -> np.ndarray:
    """Return uint8 [C, H, W]; a grey picture has one channel."""
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def fit_block(block: np.ndarray, fitting: Fitting) -> np.ndarray:
    """Fit uint8 [n, C, h, w] images, C = 1 or 3, to [n, C, H, W]."""
    return np.stack([pixels(fit(picture, fitting)) for picture in _pictures(block)])


def _pictures(block: np.ndarray) -> Iterator[Image.Image]:
    grey = block.shape[1] == 1
    for image in block:
        yield Image.fromarray(image[0] if grey else image.transpose(1, 2, 0))
