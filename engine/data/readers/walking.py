"""Pictures in and below a folder, and what else lies there.

As torchvision's ImageFolder walks: all folders below a class belong to it, links are followed. Unlike there, nothing
is passed over without being counted, and a link that leads nowhere, or into a folder that was walked already, is
refused.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

from engine.data.class_names import byte_order, printable
from engine.data.inventory import Leavings
from engine.data.pictures.picture_files import (
    begins_as_picture,
    format_that_cannot_be_read,
    named_as_other_format,
    named_as_picture,
)
from engine.errors import DataError

NO_PICTURE = "files that are no pictures by name or content"
OTHER_FORMAT = "pictures in a format that is not read, to be converted to PNG"
MISSING_CODEC = "{} pictures, which the image library of this installation cannot read, to be converted to PNG"
HIDDEN = "hidden files and folders"
UNNAMED = "pictures that no row names"
_MOST_NAMED = 5

Walked = dict[tuple[int, int], str]
"""Folders of one split that were walked, by device and inode."""


class Walk:
    """Walks the folders of one split."""

    def __init__(self, leavings: Leavings) -> None:
        self._leavings = leavings
        self._walked: Walked = {}
        self._dangling: list[str] = []

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of the folders and pictures in a folder, each in `byte_order`.

        Raises:
            OSError: it may not be read.
            DataError: it was walked already, or a picture is no regular file.
        """
        self._enter(folder)
        folders: list[str] = []
        pictures: list[str] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: byte_order(entry.name)):
                if entry.is_dir():
                    if entry.name.startswith((".", "__")):
                        self._leavings.add(HIDDEN, entry.path)
                    else:
                        folders.append(entry.name)
                elif entry.name.startswith("."):
                    self._leavings.add(HIDDEN, entry.path)
                elif self._is_picture(entry):
                    pictures.append(entry.name)
        return folders, pictures

    def pictures(self, folder: str) -> list[str]:
        """Return the paths of all pictures in and below a folder: folder by folder, both in `byte_order`."""
        found: list[tuple[tuple[bytes, bytes], list[str]]] = []
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            parts = waiting.pop()
            current = os.path.join(folder, *parts)
            folders, pictures = self.entries(current)
            waiting += [(*parts, name) for name in folders]
            found.append((byte_order(*parts), [os.path.join(current, name) for name in pictures]))
        return [path for _, pictures in sorted(found) for path in pictures]

    def finish(self) -> None:
        """Refuse links that led nowhere, all at once. Raises DataError."""
        if not self._dangling:
            return
        named = ", ".join(printable(f"{path} -> {os.readlink(path)}", None) for path in self._dangling[:_MOST_NAMED])
        more = len(self._dangling) - _MOST_NAMED
        raise DataError(
            f"{named}{f' and {more:,} more' if more > 0 else ''}: symbolic links to what is not there; bring back "
            f"what they lead to, or remove the links"
        )

    def _enter(self, folder: str) -> None:
        state = os.stat(folder)
        place = (state.st_dev, state.st_ino)
        if place in self._walked:
            raise DataError(
                f"{printable(folder, None)} is the same folder as {printable(self._walked[place], None)}: its "
                f"pictures would count twice; remove the link"
            )
        self._walked[place] = folder

    def _is_picture(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_file():
            if entry.is_symlink() and not os.path.exists(entry.path):
                self._dangling.append(entry.path)
            elif named_as_picture(entry.name):
                raise DataError(
                    f"{printable(entry.path, None)} is called like a picture, but is no regular file (a pipe, socket "
                    f"or device); remove it"
                )
            else:
                self._leavings.add("pipes, sockets and devices", entry.path)
            return False
        if named_as_picture(entry.name) or begins_as_picture(entry.path):
            return True
        missing = format_that_cannot_be_read(entry.path)
        if missing is not None:
            self._leavings.add(MISSING_CODEC.format(missing), entry.path)
        else:
            self._leavings.add(OTHER_FORMAT if named_as_other_format(entry.name) else NO_PICTURE, entry.path)
        return False


def count_unnamed(root: str | os.PathLike[str], used: Iterable[str], leavings: Leavings, beside: str) -> None:
    """Count what lies in a folder and is not used, file by file in folders below it that are used in part.

    Args:
        root: the folder.
        used: paths of files, also such as lie elsewhere.
        leavings: take what is counted.
        beside: what files are that are no pictures, and folders of which nothing is used, in words.
    """
    real = functools.cache(os.path.realpath)
    files = {(real(os.path.dirname(path)), os.path.basename(path)) for path in used}
    holding = {folder for folder, _ in files}
    top, seen = real(os.fspath(root)), set()
    for folder in list(holding):
        while folder.startswith(top + os.sep) and folder != top:
            folder = os.path.dirname(folder)
            holding.add(folder)
    waiting = [os.fspath(root)]
    seen.add(top)
    while waiting:
        current = waiting.pop()
        with os.scandir(current) as entries:
            # Links last: what can be named without one is.
            for entry in sorted(entries, key=lambda entry: (entry.is_symlink(), byte_order(entry.name))):
                is_folder = entry.is_dir()
                if (real(current), entry.name) in files or (is_folder and real(entry.path) in seen):
                    continue
                if entry.name.startswith("."):
                    leavings.add(HIDDEN, entry.path)
                elif is_folder and real(entry.path) in holding:
                    seen.add(real(entry.path))
                    waiting.append(entry.path)
                else:
                    leavings.add(UNNAMED if not is_folder and named_as_picture(entry.name) else beside, entry.path)
