"""Limits of a picture: how many pixels, and how many bits in each channel."""

from __future__ import annotations

import math
import os
from fractions import Fraction

from engine.data.parts import Picture
from engine.errors import DataError

PIXELS_VARIABLE = "LOCAL_LEARNING_PICTURE_PIXELS"
"""Environment variable that raises or lowers `PIXELS`."""

PIXELS = 50_000_000
"""The most pixels that an encoded picture may have; two thirds of it in a WebP, two fifths in a JPEG 2000 or an
AVIF, whose readers take more for each. With what the readers need besides, they take less than 1 GiB."""

_AS_IT_IS = Fraction(1)


class UnusablePicturesError(DataError):
    """Pictures cannot be used; the message says which, why and what to do."""


class PictureError(UnusablePicturesError):
    """One picture cannot be used.

    Attributes:
        where: its path, or its shard and row.
        cause: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, where: str, cause: str, remedy: str) -> None:
        # All three go to the base class, so the error survives being pickled across processes.
        super().__init__(where, cause, remedy)
        self.where = where
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where} {self.cause}; {self.remedy}"


def pixel_limit() -> int:
    """Return the most pixels that a picture may have. Raises DataError: the variable holds no positive number."""
    given = os.environ.get(PIXELS_VARIABLE)
    if not given:
        return PIXELS
    if not (given.isascii() and given.isdigit() and len(given) <= 12 and int(given) > 0):
        raise DataError(f"{PIXELS_VARIABLE}={given[:40]}: expected a number of pixels, such as {PIXELS}")
    return int(given)


def check_pixels(picture: Picture, size: tuple[int, ...], limit: int, cost: Fraction = _AS_IT_IS) -> None:
    """Raise PictureError for a picture (or a tile of it) of more than `limit` pixels, each of which costs so much."""
    width, height = size
    if width * height * cost > limit:
        raise too_large(picture, f"{width:,} x {height:,} = ", width * height, limit, cost)


def too_large(picture: Picture, sides: str, number: int, limit: int, cost: Fraction = _AS_IT_IS) -> PictureError:
    """Return the error for so many pixels; `sides` says where the number comes from."""
    return PictureError(
        picture.where,
        f"has {sides}{number:,} pixels, more than the {math.floor(limit / cost):,} that are decoded, and takes "
        f"{PIXELS_VARIABLE}={math.ceil(number * cost)}",
        "set this environment variable so high, or make the picture smaller",
    )


def check_depth(picture: Picture, mode: str) -> None:
    """Raise PictureError for a mode of the image library that has more than 8 bits in a channel."""
    if mode == "F" or mode.startswith("I"):
        cause = f"has more than 8 bits per channel (mode {mode}), expected 8"
        raise PictureError(picture.where, cause, "convert it first")
