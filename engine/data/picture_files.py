"""Which files are pictures: by the ending of their names, or by their first bytes where the ending is unknown."""

from __future__ import annotations

import re

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
}
"""Endings of file names, in small letters, by the image library's name for the format; all of `PICTURE_FORMATS`."""

_NOT_READ = (".avif", ".heic", ".heif", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".jxl", ".psd", ".svg", ".eps")

_ENDINGS = tuple(ending for endings in ENDINGS.values() for ending in endings)
_FIRST_BYTES = 32
_BEGINNINGS = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    # Two letters alone would take texts for pictures: the size of the second header is looked at, too.
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    rb"|RIFF.{4}WEBP"
    rb"|II[\x2a\x2b]\0|MM\0[\x2a\x2b]"  # TIFF
    rb"|P[1-6][ \t\r\n]+[0-9#]"
    rb"|qoif"
    rb"|\x01\xda[\0\x01][\x01\x02]"  # SGI
    rb"|\x59\xa6\x6a\x95",  # SUN
    re.DOTALL,
)


def named_as_picture(name: str) -> bool:
    """Tell whether a file's name ends as those of pictures do."""
    return name.lower().endswith(_ENDINGS)


_NO_PICTURES = (".txt", ".json", ".xml", ".csv", ".npy", ".npz", ".md", ".html", ".py", ".pdf", ".zip", ".mp4", ".mat")


def begins_as_picture(path: str) -> bool:
    """Tell whether a regular file's first bytes are those of a picture. Raises OSError.

    Files whose ending says something else, of which there may be one beside each picture, are not opened.
    """
    if path.lower().endswith(_NO_PICTURES):
        return False
    with open(path, "rb") as file:
        return _BEGINNINGS.match(file.read(_FIRST_BYTES)) is not None


def named_as_other_format(name: str) -> bool:
    """Tell whether a file's name ends as those of pictures do that are in a format which is not read."""
    return name.lower().endswith(_NOT_READ)
