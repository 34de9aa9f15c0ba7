"""Recognition of pictures: by the ending of a file's name, or by its first bytes where the ending is unknown."""

from __future__ import annotations

import re

from engine.data.pictures.confined_decoding import CONFINED_FORMATS, confined_format, confined_formats

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
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "AVIF": (".avif", ".avifs"),
}
"""Endings of file names, in small letters, by the image library's name for the format: of all formats that are read."""

_NOT_READ = (".heic", ".heif", ".jxl", ".psd", ".svg", ".eps")

_ENDINGS = tuple(ending for kind, endings in ENDINGS.items() if kind not in CONFINED_FORMATS for ending in endings)
_FIRST_BYTES = 64
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
    """Tell whether a file's name ends as those of pictures do, in a format that this installation reads."""
    return name.lower().endswith((*_ENDINGS, *(ending for kind in confined_formats() for ending in ENDINGS[kind])))


_NO_PICTURES = (".txt", ".json", ".xml", ".csv", ".npy", ".npz", ".md", ".html", ".py", ".pdf", ".zip", ".mp4", ".mat")


def begins_as_picture(path: str) -> bool:
    """Tell whether a regular file's first bytes are those of a picture that this installation reads. Raises OSError.

    Files whose ending says something else, of which there may be one beside each picture, are not opened.
    """
    start = _first_bytes(path)
    return _BEGINNINGS.match(start) is not None or confined_format(start) in confined_formats()


def format_that_cannot_be_read(path: str) -> str | None:
    """Return the format of a picture that another installation of the image library would read. Raises OSError."""
    missing = [kind for kind in CONFINED_FORMATS if kind not in confined_formats()]
    named = [kind for kind in missing if path.lower().endswith(ENDINGS[kind])]
    if named:
        return named[0]
    found = confined_format(_first_bytes(path)) if missing else None
    return found if found in missing else None


def named_as_other_format(name: str) -> bool:
    """Tell whether a file's name ends as those of pictures do that are in a format which is not read."""
    return name.lower().endswith(_NOT_READ)


def _first_bytes(path: str) -> bytes:
    if path.lower().endswith(_NO_PICTURES):
        return b""
    with open(path, "rb") as file:
        return file.read(_FIRST_BYTES)
