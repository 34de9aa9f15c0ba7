"""Reader of STL-10's binary files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.data import class_names
from engine.data.inventory import Survey
from engine.data.parts import EncodedPart, Found, Loaded, PixelPart
from engine.data.readers.boundary import finder, is_folder, naming_files
from engine.data.readers.completeness import check_balance, check_file_size, check_labels, missing_set
from engine.errors import DataError
from engine.reading import read_bytes

FOLDER = "stl10_binary"
EXPECTED = {"train": 5_000, "test": 8_000}
_SIDE = 96
_IMAGE_BYTES = 3 * _SIDE * _SIDE
_IMAGES_AT_ONCE = 256
_MOST_LABELS = 1_000_000


@finder
def find_stl10(root: Path, strict: bool) -> Found | None:
    """Find the labelled files in `root`/stl10_binary or in `root`; None when there are none. Raises DataError."""
    folder = root / FOLDER if is_folder(root / FOLDER) else root
    files = {split: (folder / f"{split}_X.bin", folder / f"{split}_y.bin") for split in EXPECTED}
    paths = [path for pair in files.values() for path in pair]
    missing = [path.name for path in paths if not path.is_file()]
    if len(missing) == len(paths):
        return None
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: the copy is incomplete; fetch the missing files")
    return Found(
        root=str(root),
        files=tuple(map(str, paths)),
        load=lambda: _load(files, strict),
        survey=Survey(layout="the binary files as published", names_from="as published", root=str(root)),
    )


def missing_stl10(root: Path) -> DataError:
    """Return the error for a folder without STL-10."""
    return missing_set("stl10", root, [f"{FOLDER}/ with train_X.bin, train_y.bin, test_X.bin, test_y.bin"], True)


def _load(files: dict[str, tuple[Path, Path]], strict: bool) -> Loaded:
    parts: dict[str, EncodedPart | PixelPart] = {}
    for split, (images_path, labels_path) in files.items():
        if strict:
            check_file_size(labels_path, EXPECTED[split])
        # Files count classes from 1; a label 0 becomes 255 here and is refused below.
        stored = np.frombuffer(read_bytes(labels_path, DataError, _MOST_LABELS), dtype=np.uint8)
        if not len(stored):
            raise DataError(f"{labels_path} is empty: the copy is incomplete; fetch the file again")
        labels = (stored - np.uint8(1)).astype(np.int64)
        check_file_size(images_path, len(labels) * _IMAGE_BYTES)
        check_labels(f"{labels_path} (less 1)", labels, len(class_names.STL10))
        if strict:
            check_balance(str(labels_path), labels, len(class_names.STL10))
        parts[split] = PixelPart(labels, functools.partial(_blocks, images_path))
    return Loaded(class_names.STL10, parts)


def _blocks(path: Path) -> Iterator[np.ndarray]:
    with naming_files(path):
        stored = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 3, _SIDE, _SIDE)
    for start in range(0, len(stored), _IMAGES_AT_ONCE):
        # Each plane is stored column by column.
        yield stored[start : start + _IMAGES_AT_ONCE].transpose(0, 1, 3, 2)
