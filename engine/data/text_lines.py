"""How is a text file of names or numbers read, whoever wrote it?"""

from __future__ import annotations

import codecs
from pathlib import Path

from engine.errors import DataError
from engine.reading import JSON_BYTES, naming, read_bytes, read_text

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_lines(path: Path, limit: int = JSON_BYTES) -> list[str]:
    """Return the lines of a file in UTF-8 or UTF-16, with or without a byte-order mark and with any line ends.

    Bytes that are no UTF-8 are kept as the operating system keeps them in file names; see `class_names.readable`.

    Raises:
        DataError: it is missing, no regular file, larger than `limit` bytes, or may not be read.
    """
    content = read_bytes(path, DataError, limit)
    if not content.startswith(_UTF16):
        return read_text(path, DataError, limit).split("\n")
    with naming(path, DataError):
        text = content.decode("utf-16")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
