"""Decoding of pictures, in bounded memory.

A picture is recognised by its first bytes, whatever its name says, and only by the readers of `PICTURE_FORMATS` and
`CONFINED_FORMATS`: others of the image library start programs (PostScript) or take anything for a picture. Its pixels
are counted before any memory is taken for them.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from engine.data.parts import Picture
from engine.data.pictures.confined_decoding import (
    CONFINED_FORMATS,
    COST,
    ConfinedError,
    ConfinedPicture,
    confined_format,
    confined_formats,
    opened_confined,
)
from engine.data.pictures.picture_limits import PictureError, check_depth, check_pixels, pixel_limit, too_large
from engine.data.pictures.pixel_budget import PixelBudget
from engine.errors import DataError
from engine.reading import first_line, read_bytes

PICTURE_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "QOI", "SGI", "SUN")
"""Formats that are read in this process, by the image library's names: pure pictures with a signature of their own,
whose size is known before they are decoded."""

BACKGROUND = (255, 255, 255)
"""What is seen through a transparent picture: white, as on a page."""

_budget = PixelBudget()
_OVERHEAD_BYTES = 1 << 20
_TILE_TAGS = (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
_WEBP_COST = Fraction(3, 2)


def encoded(picture: Picture) -> bytes:
    """Return the encoded bytes of a picture. Raises DataError: the file is missing, too large, or no regular file."""
    if picture.content is not None:
        return picture.content
    return read_bytes(Path(picture.where), DataError, encoded_limit())


def encoded_limit() -> int:
    """Return the most encoded bytes that a picture may have: none needs more than its pixels do as they are.

    Raises:
        DataError: as `pixel_limit`.
    """
    return 4 * pixel_limit() + _OVERHEAD_BYTES


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
        content = encoded(picture)
        if confined_format(content) is not None:
            with _header_read(picture, content) as found:
                return max(1, math.prod(found.size))
        with _opened(picture, content) as image:
            return max(1, image.width * image.height)
    except DataError:
        return pixel_limit()


@contextmanager
def _opened_in_turn(picture: Picture) -> Iterator[Image.Image]:
    content, limit = encoded(picture), pixel_limit()
    if confined_format(content) is not None:
        with (
            _header_read(picture, content) as found,
            _budget.taken(math.ceil(COST * math.prod(found.size)), limit),
        ):
            yield found.load()
        return
    # The reader of WebP takes memory for all pixels as soon as it opens a file, the others when they load it.
    at_once = math.prod(_webp_size(content))
    if at_once > 1:
        with _budget.taken(at_once, limit), _opened(picture, content) as image:
            yield image
    else:
        with _opened(picture, content) as image, _budget.taken(image.width * image.height, limit):
            yield image


@contextmanager
def _header_read(picture: Picture, content: bytes) -> Iterator[ConfinedPicture]:
    """Give a picture of one of `CONFINED_FORMATS`, not decoded yet; raises PictureError, then or in the block."""
    kind = confined_format(content)
    if kind not in confined_formats():
        cause = f"is {kind}, which the image library of this installation cannot read, or not in bounded memory"
        raise PictureError(picture.where, cause, "convert it to PNG first")
    try:
        with opened_confined(content) as found:
            check_pixels(picture, found.size, pixel_limit(), COST)
            check_depth(picture, found.mode)
            yield found
    except ConfinedError as error:
        cause = f"cannot be decoded ({error}), so it is damaged, or larger than it says"
        raise PictureError(picture.where, cause, picture.remedy) from error


def _opened(picture: Picture, content: bytes) -> Image.Image:
    limit = pixel_limit()
    check_pixels(picture, _webp_size(content), limit, _WEBP_COST)
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    try:
        image = Image.open(io.BytesIO(content), formats=PICTURE_FORMATS)
    except UnidentifiedImageError as error:
        cause = (
            f"cannot be decoded: it does not begin as any of {', '.join(PICTURE_FORMATS + CONFINED_FORMATS)} does, so "
            "it is damaged or another kind of file"
        )
        raise PictureError(picture.where, cause, picture.remedy) from error
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        raise too_large(picture, "", int(found[0]) if found else 0, limit) from error
    except Exception as error:
        raise _damaged(picture, error) from error
    check_pixels(picture, image.size, limit)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile may be larger than the picture that it is cut to.
        check_pixels(picture, tuple(_number(image.tag_v2.get(tag)) for tag in _TILE_TAGS), limit)
    check_depth(picture, image.mode)
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


def _damaged(picture: Picture, error: Exception) -> PictureError:
    # Damaged bytes make PIL's readers raise almost anything: OSError, SyntaxError, struct.error, ValueError.
    cause = f"cannot be decoded ({type(error).__name__}: {first_line(error)}), so it is damaged"
    return PictureError(picture.where, cause, picture.remedy)


def _rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    if image.has_transparency_data:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = layered.getchannel("A")
        if alpha.getextrema() != (255, 255):
            page = Image.new("RGB", image.size, BACKGROUND)
            page.paste(layered, mask=alpha)
            return page, True
    return (image if image.mode == "RGB" else image.convert("RGB")), False
