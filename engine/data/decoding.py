"""How does an encoded picture become an image of the wanted size?"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from engine.data.parts import Picture
from engine.errors import DataError

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""


def decode(picture: Picture) -> Image.Image:
    """Return a picture as RGB: grey becomes three equal channels; EXIF rotation is ignored.

    Raises:
        DataError: the picture is missing, damaged or has more than 8 bits per channel; the message says where it is.
    """
    try:
        with Image.open(picture.where if picture.content is None else io.BytesIO(picture.content)) as image:
            image.load()
            if image.mode == "F" or image.mode.startswith("I"):
                raise DataError(
                    f"{picture.where} has more than 8 bits per channel (mode {image.mode}), expected 8: "
                    f"convert it first"
                )
            return image if image.mode == "RGB" else image.convert("RGB")
    except DataError:
        raise
    except Exception as error:
        # Damaged bytes make PIL's readers raise almost anything: OSError, SyntaxError, struct.error, ValueError.
        raise DataError(
            f"{picture.where} cannot be decoded ({type(error).__name__}: {error}): "
            f"the picture is damaged; replace or remove it"
        ) from error


def fit(image: Image.Image, image_size: int, resize_size: int) -> Image.Image:
    """Resize the shorter side to `resize_size` (bilinear, antialiased), then crop the central square `image_size`."""
    width, height = image.size
    shorter = min(width, height)
    if shorter != resize_size:
        width, height = width * resize_size // shorter, height * resize_size // shorter
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    if (width, height) == (image_size, image_size):
        return image
    left, upper = round((width - image_size) / 2), round((height - image_size) / 2)
    return image.crop((left, upper, left + image_size, upper + image_size))


def crop_and_resize(image: Image.Image, box: Box, image_size: int) -> Image.Image:
    """Resize one area of a picture to a square of `image_size` (bilinear, antialiased)."""
    return image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)


def pixels(image: Image.Image) -> np.ndarray:
    """Return uint8 [C, H, W]; a grey picture has one channel."""
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def fit_block(block: np.ndarray, image_size: int, resize_size: int) -> np.ndarray:
    """Resize and crop uint8 [n, C, H, W] images, C = 1 or 3, to [n, C, image_size, image_size]."""
    grey = block.shape[1] == 1
    pictures = (Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)) for image in block)
    return np.stack([pixels(fit(picture, image_size, resize_size)) for picture in pictures])
