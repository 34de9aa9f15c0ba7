"""Text files of names or numbers, and tables in CSV, in any encoding they may have."""

from __future__ import annotations

import codecs
import csv
from pathlib import Path

from engine.errors import DataError
from engine.reading import JSON_BYTES, naming, read_bytes

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_lines(path: Path, limit: int = JSON_BYTES) -> list[str]:
    """Return the lines of a file in UTF-8 or UTF-16, with or without a byte-order mark and with any line ends.

    Bytes that are no UTF-8 are kept as the operating system keeps them in file names; see `class_names.readable`.

    Raises:
        DataError: it is missing, no regular file, larger than `limit` bytes, or may not be read.
    """
    content = read_bytes(path, DataError, limit)
    with naming(path, DataError):
        utf16 = content.startswith(_UTF16)
        text = content.decode("utf-16") if utf16 else content.decode("utf-8-sig", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def csv_rows(path: Path, limit: int = JSON_BYTES) -> list[list[str]]:
    """Return the rows of a table in CSV, cell by cell; empty ones are empty lists.

    Raises:
        DataError: as `text_lines`, a cell is longer than any should be, or quotation marks are not those of CSV.
    """
    # Not strict, a quotation mark that is never closed would make one cell of all rows that follow.
    reader = csv.reader(text_lines(path, limit), strict=True)
    rows: list[list[str]] = []
    begins = 1
    try:
        for row in reader:
            rows.append(row)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} line {begins}: {error}, as where a quotation mark is never closed; correct the quotation marks"
        ) from error
    return rows
