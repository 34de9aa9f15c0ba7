"""Reader of SVHN (cropped digits, format 2) in MATLAB files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.data import class_names
from engine.data.parts import EncodedPart, Found, Loaded, PixelPart
from engine.data.readers.completeness import check_count, check_labels, missing_set
from engine.data.readers.matlab import MatlabError, read_arrays
from engine.errors import DataError
from engine.reading import naming

EXPECTED = {"train": 73_257, "test": 26_032}
_IMAGES_AT_ONCE = 2048
_MOST_IMAGES = 300_000
_IMAGE_BYTES = 32 * 32 * 3
_LABEL_BYTES = 8


def find_svhn(root: Path, strict: bool) -> Found | None:
    """Find train_32x32.mat and test_32x32.mat in `root`; None when neither is there. Raises DataError."""
    files = {split: root / f"{split}_32x32.mat" for split in EXPECTED}
    missing = [path.name for path in files.values() if not path.is_file()]
    if len(missing) == len(files):
        return None
    if missing:
        raise DataError(f"{root} lacks {missing[0]}: the copy is incomplete; fetch the missing file")
    return Found(root=str(root), files=tuple(map(str, files.values())), load=lambda: _load(files, strict))


def missing_svhn(root: Path) -> DataError:
    """Return the error for a folder without SVHN."""
    return missing_set("svhn", root, ["train_32x32.mat and test_32x32.mat"], downloadable=True)


def _load(files: dict[str, Path], strict: bool) -> Loaded:
    parts: dict[str, EncodedPart | PixelPart] = {}
    for split, path in files.items():
        images, labels = _read(path, EXPECTED[split] if strict else _MOST_IMAGES)
        check_labels(str(path), labels, len(class_names.SVHN))
        if strict:
            check_count(str(path), labels, EXPECTED[split])
        parts[split] = PixelPart(labels, functools.partial(_blocks, images))
    return Loaded(class_names.SVHN, parts)


def _blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield uint8 [n, 3, 32, 32]; the file stores the images' axis last: [row, column, channel, image]."""
    for start in range(0, images.shape[-1], _IMAGES_AT_ONCE):
        yield images[..., start : start + _IMAGES_AT_ONCE].transpose(3, 2, 0, 1)


def _read(path: Path, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 [32, 32, 3, N] and int64 [N], where MATLAB's label 10 has become the digit 0."""
    try:
        with naming(path, DataError):
            content = read_arrays(path, {"X": most * _IMAGE_BYTES, "y": most * _LABEL_BYTES})
        images, labels = content["X"], _whole_numbers(content["y"].reshape(-1))
    except (MatlabError, KeyError) as error:
        cause = f"it holds no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read ({cause}): the copy is incomplete or damaged; "
            "fetch it again"
        ) from error
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)):
        raise DataError(
            f"{path}: X is {images.dtype} {images.shape}, expected uint8 (32, 32, 3, {len(labels)}); fetch it again"
        )
    if len(labels) and labels.min() < 1:
        raise DataError(
            f"{path}: found the label {labels.min()}, expected 1 to 10; the file is not the published one: "
            "fetch it again"
        )
    return images, np.where(labels == 10, 0, labels)


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise MatlabError("y holds numbers that are no labels")
    # Whatever is beyond is refused for what it is, but must not overflow.
    return np.clip(values, -1, 1 << 20).astype(np.int64)
