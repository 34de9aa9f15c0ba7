"""Memory of the knowledge store: taken when it is first written, or on a disk."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.errors import RecipeError
from engine.paths import kind_of

Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and dtype of each array, by its name."""

_REMEDY = "give a folder that can be written to, or none to hold knowledge in memory"


def allocate(layout: Layout, folder: Path | None) -> dict[str, np.ndarray]:
    """Return arrays of zeros, by name, which take room page by page as they are written.

    Args:
        layout: shape and dtype of each array.
        folder: whose disk holds them, in files without a name that are gone with the process however it ends; in
            memory if None. What is in use still fills spare memory, which the operating system takes back when needed.

    Raises:
        RecipeError: the folder does not exist, no file can be made in it, or its disk has too little room.
    """
    if folder is None:
        return {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
    needed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in layout.values())
    _check_room(folder, needed)
    try:
        return {name: _mapped(shape, dtype, folder) for name, (shape, dtype) in layout.items()}
    except OSError as error:
        raise RecipeError(
            f"method.knowledge_folder={folder}: no file of {needed:,} bytes can be made in it "
            f"({error.strerror or error}); {_REMEDY}"
        ) from error


def _check_room(folder: Path, needed: int) -> None:
    kind = kind_of(folder, "method.knowledge_folder", RecipeError)
    if kind != "folder":
        found = "there is no such folder" if kind is None else "is no folder"
        raise RecipeError(f"method.knowledge_folder={folder}: {found}; {_REMEDY}")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RecipeError(
            f"method.knowledge_folder={folder}: knowledge needs {needed:,} bytes, but the disk has {free:,} free; make "
            "room, keep less of each image with method.top_k, or give a folder on another disk"
        )


def _mapped(shape: tuple[int, ...], dtype: np.dtype, folder: Path) -> np.ndarray:
    # Such a file has no name from the start, or loses it at once: the mapping alone keeps it.
    with tempfile.TemporaryFile(dir=folder) as file:
        os.ftruncate(file.fileno(), math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype, mode="r+", shape=shape)
