"""Label maps: pictures of one channel whose values are the classes of the pixels."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

from engine.data.parts import Picture
from engine.data.pictures.decoding import undecoded
from engine.data.pictures.fitting import Fitting
from engine.data.pictures.picture_limits import PictureError
from engine.data.readers.class_tables import ClassTable
from engine.reading import first_line

_ONE_CHANNEL = ("L", "P", "1")
# Of a PNG's header, which precedes all else.
_DEPTH, _COLOUR_TYPE, _GREY = 24, 25, 0
_UPRIGHT, _TURNED = 1, range(2, 9)


def encoded_map(path: str) -> Picture:
    """Return a label map as a file to be decoded."""
    return Picture(path, remedy="replace it, or remove it with its picture")


def read_map(path: str, table: ClassTable) -> np.ndarray:
    """Return the classes of a label map's pixels, uint8 ``[H, W]``, 255 where a pixel has none.

    Args:
        path: a PNG file: grey with 8 bits, or with a palette, whose colours are not looked at.
        table: what its values mean.

    Raises:
        PictureError: it is damaged, no PNG, has colours, 16 bits, fewer than 8 without a palette, or a value that is
            not in the table.
    """
    with undecoded(encoded_map(path)) as image:
        if image.format != "PNG":
            kind = image.format or "another format"
            cause = f"is a label map in {kind}, which does not keep or name its values; expected PNG"
            raise PictureError(path, cause, "write it as PNG from the original labels")
        if image.mode not in _ONE_CHANNEL:
            cause = (
                f"is a colour picture (mode {image.mode}), expected a label map: one channel with the class of each "
                "pixel, or a palette"
            )
            raise PictureError(path, cause, "translate its colours to the values of the table of classes")
        with open(path, "rb") as file:
            header = file.read(_COLOUR_TYPE + 1)
        if header[_COLOUR_TYPE] == _GREY and header[_DEPTH] < 8:
            cause = (
                f"is grey with a depth of {header[_DEPTH]}, whose values may be classes or shades up to white; "
                "expected 8 bits, or a palette"
            )
            raise PictureError(path, cause, "write it with 8 bits, from the original labels")
        try:
            found = np.asarray(image).astype(np.uint8)
        except Exception as error:
            cause = f"cannot be decoded ({type(error).__name__}: {first_line(error)}), so it is damaged"
            raise PictureError(path, cause, encoded_map(path).remedy) from error
    try:
        return table.classes_of(found)
    except ValueError as error:
        cause = f"has values that are not in the table of classes: {error}; the table has {table.words()}"
        raise PictureError(path, cause, "correct the file or the table") from error


def fit_map(label_map: np.ndarray, fitting: Fitting | None) -> np.ndarray:
    """Return a label map resized and cut as its picture is; each pixel takes the nearest.

    Args:
        label_map: uint8 ``[h, w]``.
        fitting: the way to the image's size; None keeps it.
    """
    if fitting is None:
        return label_map
    height, width = fitting.resized(*label_map.shape)
    upper, left = round((height - fitting.height) / 2), round((width - fitting.width) / 2)
    rows = nearest(upper + np.arange(fitting.height), label_map.shape[0] / height, label_map.shape[0])
    columns = nearest(left + np.arange(fitting.width), label_map.shape[1] / width, label_map.shape[1])
    return label_map[rows[:, None], columns[None, :]]


def nearest(places: np.ndarray, step: float, length: int) -> np.ndarray:
    """Return which of so many pixels lies nearest to the centre of each resized one, int64.

    Args:
        places: of the resized pixels, int64.
        step: original pixels for each resized one.
        length: number of original pixels.
    """
    return np.clip(np.floor((places + 0.5) * step).astype(np.int64), 0, length - 1)


def check_fit(picture: Picture, path: str, label_map: np.ndarray) -> None:
    """Refuse a picture that is to be turned before it is shown, and a label map of another size than its picture.

    Raises:
        PictureError: the picture has an EXIF orientation, or another size, or cannot be read.
    """
    with undecoded(picture) as image:
        orientation, size = _orientation(image), (image.height, image.width)
    if orientation != _UPRIGHT:
        cause = (
            f"has the EXIF orientation {orientation}: it is shown turned or mirrored, but trained on as it is stored, "
            "and its label map may fit either; expected a picture without one"
        )
        remedy = (
            "write it upright without this tag if the map fits what is shown, or remove the tag if the map fits what "
            "is stored"
        )
        raise PictureError(picture.where, cause, remedy)
    if label_map.shape != size:
        height, width = label_map.shape
        cause = f"has {height} x {width} pixels, but its picture {picture.where} has {size[0]} x {size[1]}"
        raise PictureError(path, cause, "give a label map for each pixel of the picture")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that decoding leaves to others, 1 to 8; 1 where none can be read."""
    if image.format == "TIFF":
        # The image library turns these when it decodes them, and only these.
        return _UPRIGHT
    try:
        # The base's own: the reader of PNG decodes the whole picture first.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, _UPRIGHT)
    except Exception:
        # Damaged bytes make it raise almost anything, and viewers take no notice of them.
        return _UPRIGHT
    return found if found in _TURNED else _UPRIGHT
