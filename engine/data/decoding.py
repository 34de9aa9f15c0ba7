"""Decoding of pictures, in bounded memory.

A picture is recognised by its first bytes, whatever its name says, and only by the readers of `PICTURE_FORMATS`: others
of the image library start programs (PostScript) or take anything for a picture. Its pixels are counted before any
memory is taken for them.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from engine.data.parts import Picture
from engine.data.pixel_budget import PixelBudget
from engine.errors import DataError
from engine.reading import first_line, read_bytes

PICTURE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "QOI", "SGI", "SUN")
"""Formats that are read, by the image library's names: pure pictures with a signature of their own, whose size is known
before they are decoded (JPEG 2000 and AVIF state it twice, and the readers believe the one that cannot be seen)."""

PIXELS_VARIABLE = "LOCAL_LEARNING_PICTURE_PIXELS"
"""Environment variable that raises or lowers `PIXELS`."""

PIXELS = 50_000_000
"""The most pixels that an encoded picture may have; two thirds of it in a WebP, whose reader takes more for each. With
what the readers need besides, they take less than 1 GiB."""

BACKGROUND = (255, 255, 255)
"""What is seen through a transparent picture: white, as on a page."""

_budget = PixelBudget()
_OVERHEAD_BYTES = 1 << 20
_TILE_TAGS = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
_REPLACE = "replace or remove it"
_AS_IT_IS = Fraction(1)
_WEBP_COST = Fraction(3, 2)


class PictureError(DataError):
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


def encoded(picture: Picture) -> bytes:
    """Return the encoded bytes of a picture. Raises DataError: the file is missing, too large, or no regular file."""
    if picture.content is not None:
        return picture.content
    # No picture needs more than its pixels do as they are.
    return read_bytes(Path(picture.where), DataError, 4 * pixel_limit() + _OVERHEAD_BYTES)


@contextmanager
def decoded(picture: Picture) -> Iterator[tuple[Image.Image, bool]]:
    """Give a picture as RGB, and whether any of it was transparent, which shows `BACKGROUND`.

    Grey becomes three equal channels; EXIF rotation is ignored. Threads that are inside at the same time have no more
    pixels than one picture may have.

    Raises:
        PictureError: the picture is damaged, too large, no picture, or has more than 8 bits per channel.
        DataError: its file cannot be read.
    """
    with _opened_in_turn(picture) as image:
        try:
            image.load()
            found = _rgb(image)
        except Exception as error:
            raise _damaged(picture, error) from error
        yield found


def check(picture: Picture) -> bool:
    """Find out whether a picture can be decoded, in less time where its format allows; raises as `decoded`.

    Returns:
        Whether any of it is transparent.
    """
    with _opened_in_turn(picture) as image:
        try:
            # A JPEG is read to its end as ever, but only every eighth pixel is computed.
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            return _rgb(image)[1]
        except Exception as error:
            raise _damaged(picture, error) from error


@contextmanager
def undecoded(picture: Picture) -> Iterator[Image.Image]:
    """Give a picture as its file has it, of which only the header is read until its pixels are asked for.

    Raises:
        PictureError: it is too large, no picture, or has more than 8 bits per channel.
        DataError: its file cannot be read.
    """
    with _opened_in_turn(picture) as image:
        yield image


def num_pixels(picture: Picture) -> int:
    """Return how many pixels a picture says that it has; `pixel_limit` for one that cannot be used."""
    try:
        with _opened(picture, encoded(picture)) as image:
            return max(1, image.width * image.height)
    except DataError:
        return pixel_limit()


def pixel_limit() -> int:
    """Return the most pixels that a picture may have. Raises DataError: the variable holds no positive number."""
    given = os.environ.get(PIXELS_VARIABLE)
    if not given:
        return PIXELS
    if not (given.isascii() and given.isdigit() and len(given) <= 12 and int(given) > 0):
        raise DataError(f"{PIXELS_VARIABLE}={given[:40]}: expected a number of pixels, such as {PIXELS}")
    return int(given)


@contextmanager
def _opened_in_turn(picture: Picture) -> Iterator[Image.Image]:
    content, limit = encoded(picture), pixel_limit()
    # The reader of WebP takes memory for all pixels as soon as it opens a file, the others when they load it.
    at_once = math.prod(_webp_size(content))
    if at_once > 1:
        with _budget.taken(at_once, limit), _opened(picture, content) as image:
            yield image
    else:
        with _opened(picture, content) as image, _budget.taken(image.width * image.height, limit):
            yield image


def _opened(picture: Picture, content: bytes) -> Image.Image:
    limit = pixel_limit()
    _check_pixels(picture, _webp_size(content), limit, _WEBP_COST)
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    try:
        image = Image.open(io.BytesIO(content), formats=PICTURE_FORMATS)
    except UnidentifiedImageError as error:
        cause = (
            f"cannot be decoded: it does not begin as any of {', '.join(PICTURE_FORMATS)} does, so it is damaged or "
            "another kind of file"
        )
        raise PictureError(picture.where, cause, _REPLACE) from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise _too_large(picture, "", int(found[0]) if found else 0, limit) from error
    except Exception as error:
        raise _damaged(picture, error) from error
    _check_pixels(picture, image.size, limit)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile may be larger than the picture that it is cut to.
        _check_pixels(picture, tuple(_number(image.tag_v2.get(tag)) for tag in _TILE_TAGS), limit)
    if image.mode == "F" or image.mode.startswith("I"):
        cause = f"has more than 8 bits per channel (mode {image.mode}), expected 8"
        raise PictureError(picture.where, cause, "convert it first")
    return image


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return width and height as a WebP's first bytes give them; 1 x 1 for anything else."""
    kind, start = content[12:16], content[20:30]
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return 1, 1
    if kind == b"VP8X":
        return 1 + int.from_bytes(start[4:7], "little"), 1 + int.from_bytes(start[7:10], "little")
    if kind == b"VP8L":
        sides = int.from_bytes(start[1:5], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    return int.from_bytes(start[6:8], "little") & 0x3FFF, int.from_bytes(start[8:10], "little") & 0x3FFF


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _check_pixels(picture: Picture, size: tuple[int, ...], limit: int, cost: Fraction = _AS_IT_IS) -> None:
    width, height = size
    if width * height * cost > limit:
        raise _too_large(picture, f"{width:,} x {height:,} = ", width * height, limit, cost)


def _too_large(picture: Picture, sides: str, number: int, limit: int, cost: Fraction = _AS_IT_IS) -> PictureError:
    return PictureError(
        picture.where,
        f"has {sides}{number:,} pixels, more than the {math.floor(limit / cost):,} that are decoded, and takes "
        f"{PIXELS_VARIABLE}={math.ceil(number * cost)}",
        "set this environment variable so high, or make the picture smaller",
    )


def _damaged(picture: Picture, error: Exception) -> PictureError:
    # Damaged bytes make PIL's readers raise almost anything: OSError, SyntaxError, struct.error, ValueError.
    cause = f"cannot be decoded ({type(error).__name__}: {first_line(error)}), so it is damaged"
    return PictureError(picture.where, cause, _REPLACE)


def _rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    if image.has_transparency_data:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = layered.getchannel("A")
        if alpha.getextrema() != (255, 255):
            page = Image.new("RGB", image.size, BACKGROUND)
            page.paste(layered, mask=alpha)
            return page, True
    return (image if image.mode == "RGB" else image.convert("RGB")), False
