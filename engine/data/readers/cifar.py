"""Readers of CIFAR-10 and CIFAR-100: the Python version, the binary version, and Parquet shards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data import class_names
from engine.data.inventory import Leavings, Survey
from engine.data.parts import EncodedPart, Found, Loaded, PixelPart
from engine.data.readers import parquet
from engine.data.readers.boundary import finder, is_folder
from engine.data.readers.completeness import check_balance, check_count, check_file_size, check_labels, missing_set
from engine.data.readers.pickles import read_pickle
from engine.errors import DataError

SHAPE = (3, 32, 32)
_PIXEL_BYTES = 3 * 32 * 32
_IMAGES_AT_ONCE = 2048
EXPECTED = {"train": 50_000, "test": 10_000}


@dataclass(frozen=True)
class _Layout:
    python_folder: str
    python_files: dict[str, tuple[str, ...]]
    label_key: str
    binary_folder: str
    binary_files: dict[str, tuple[str, ...]]
    label_bytes: int
    """Bytes before the pixels of a record; the last of them is the label (CIFAR-100 puts the coarse label first)."""
    class_names: tuple[str, ...]


_FIVE = tuple(f"data_batch_{number}" for number in range(1, 6))
LAYOUTS = {
    "cifar10": _Layout(
        python_folder="cifar-10-batches-py",
        python_files={"train": _FIVE, "test": ("test_batch",)},
        label_key="labels",
        binary_folder="cifar-10-batches-bin",
        binary_files={"train": tuple(f"{name}.bin" for name in _FIVE), "test": ("test_batch.bin",)},
        label_bytes=1,
        class_names=class_names.CIFAR10,
    ),
    "cifar100": _Layout(
        python_folder="cifar-100-python",
        python_files={"train": ("train",), "test": ("test",)},
        label_key="fine_labels",
        binary_folder="cifar-100-binary",
        binary_files={"train": ("train.bin",), "test": ("test.bin",)},
        label_bytes=2,
        class_names=class_names.CIFAR100,
    ),
}


@finder
def find_cifar(name: str, root: Path, strict: bool) -> Found | None:
    """Find the first layout that `root` holds: Python version, binary version, Parquet; None when there is none.

    `strict` refuses every number of images but the published one.

    Raises:
        DataError: a layout is there in part.
    """
    layout = LAYOUTS[name]
    python = _files(root, layout.python_folder, layout.python_files)
    if python:
        return _found(root, "Python", python, lambda: _load_python(layout, python, strict))
    binary = _files(root, layout.binary_folder, layout.binary_files)
    if binary:
        return _found(root, "binary", binary, lambda: _load_binary(layout, binary, strict))
    shards = parquet.find_shards(root)
    if shards:
        if "test" not in shards:
            raise DataError(f"{shards['train'][0].parent} holds train*.parquet only, expected test*.parquet beside it")
        return _in_shards(layout, root, shards, strict)
    return None


def _in_shards(layout: _Layout, root: Path, shards: parquet.Shards, strict: bool) -> Found:
    leavings = Leavings(root)
    unpublished = shards.get("validation", ())
    for path in unpublished:
        leavings.add("shards of a split that was not published", path)
    shards = {split: shards[split] for split in EXPECTED}
    columns, classes = parquet.read_columns(shards, published=layout.class_names)
    files = parquet.source_files(shards, columns.image)
    parquet.count_beside(root, (*files, *map(str, unpublished)), leavings)
    return Found(
        root=str(root),
        files=files,
        load=lambda: _load_parquet(layout, shards, columns.image, classes.labels, strict),
        survey=parquet.survey(root, shards, columns, classes, leavings, list(classes.notes)),
        reading=columns.reading | classes.reading,
    )


def missing_cifar(name: str, root: Path) -> DataError:
    """Return the error for a folder without CIFAR."""
    layout = LAYOUTS[name]
    layouts = [f"{layout.python_folder}/", f"{layout.binary_folder}/", "train*.parquet and test*.parquet"]
    return missing_set(name, root, layouts, downloadable=True)


def _found(root: Path, version: str, files: dict[str, list[Path]], load: Callable[[], Loaded]) -> Found:
    return Found(
        root=str(root),
        files=tuple(str(path) for paths in files.values() for path in paths),
        load=load,
        survey=Survey(layout=f"the {version} version as published", names_from="as published", root=str(root)),
    )


def _files(root: Path, folder_name: str, names: dict[str, tuple[str, ...]]) -> dict[str, list[Path]]:
    """Return the files per split when `root` or its named folder is this layout; empty when neither is."""
    inside = root / folder_name
    if is_folder(inside):
        folder = inside
    elif root.name == folder_name and is_folder(root):
        folder = root
    else:
        return {}
    files = {split: [folder / name for name in split_names] for split, split_names in names.items()}
    missing = [path.name for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: the copy is incomplete; fetch the set again")
    return files


def _check(layout: _Layout, where: str, split: str, labels: np.ndarray, strict: bool) -> None:
    check_labels(where, labels, len(layout.class_names))
    if strict:
        check_count(f"{where} ({split})", labels, EXPECTED[split])
        check_balance(f"{where} ({split})", labels, len(layout.class_names))


def _load_python(layout: _Layout, files: dict[str, list[Path]], strict: bool) -> Loaded:
    parts: dict[str, EncodedPart | PixelPart] = {}
    for split, paths in files.items():
        read = []
        for path in paths:
            if strict:
                check_file_size(path, EXPECTED[split] // len(paths) * _PIXEL_BYTES, at_least=True)
            read.append(_read_batch(path, layout.label_key))
        labels = np.concatenate([batch_labels for _, batch_labels in read])
        _check(layout, str(paths[0].parent), split, labels, strict)
        parts[split] = PixelPart(labels, functools.partial(_blocks, [images for images, _ in read]))
    return Loaded(layout.class_names, parts)


def _read_batch(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 [n, 3, 32, 32] and int64 [n] of one pickled batch."""
    content = read_pickle(path)
    images, labels = content.get("data"), content.get(label_key)
    if images is None or labels is None:
        raise DataError(
            f"{path} has the keys {', '.join(map(str, content))}, expected data and {label_key}; fetch the file again"
        )
    numbers = _numbers(labels)
    if numbers is None:
        raise DataError(
            f"{path}: {label_key} is {_describe(labels)}, expected a list of whole numbers from 0 to 255; "
            "fetch the file again"
        )
    usable = isinstance(images, np.ndarray) and images.dtype == np.uint8
    if not usable or images.shape != (len(numbers), _PIXEL_BYTES):
        raise DataError(
            f"{path}: data is {_describe(images)}, expected uint8 ({len(numbers)}, {_PIXEL_BYTES}); "
            "fetch the file again"
        )
    return images.reshape(-1, *SHAPE), numbers


def _numbers(labels: object) -> np.ndarray | None:
    """Return a list of small whole numbers as int64 [n]; None when it is something else."""
    if isinstance(labels, np.ndarray):
        return labels.astype(np.int64) if labels.ndim == 1 and labels.dtype.kind in "iu" else None
    small = isinstance(labels, list) and all(type(label) is int and 0 <= label <= 255 for label in labels)
    return np.array(labels, dtype=np.int64) if small else None


def _describe(images: object) -> str:
    return f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__


def _blocks(arrays: list[np.ndarray]) -> Iterator[np.ndarray]:
    for array in arrays:
        for start in range(0, len(array), _IMAGES_AT_ONCE):
            yield array[start : start + _IMAGES_AT_ONCE]


def _load_binary(layout: _Layout, files: dict[str, list[Path]], strict: bool) -> Loaded:
    record = layout.label_bytes + _PIXEL_BYTES
    parts: dict[str, EncodedPart | PixelPart] = {}
    for split, paths in files.items():
        read = []
        for path in paths:
            size = path.stat().st_size
            if strict:
                check_file_size(path, EXPECTED[split] // len(paths) * record)
            if size % record:
                raise DataError(
                    f"{path} has {size:,} bytes, expected a multiple of {record:,}: the copy is incomplete; "
                    f"fetch the file again"
                )
            read.append(np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, record))
        labels = np.concatenate([records[:, layout.label_bytes - 1] for records in read]).astype(np.int64)
        _check(layout, str(paths[0].parent), split, labels, strict)
        parts[split] = PixelPart(labels, functools.partial(_binary_blocks, layout, read))
    return Loaded(layout.class_names, parts)


def _binary_blocks(layout: _Layout, read: list[np.ndarray]) -> Iterator[np.ndarray]:
    return (block[:, layout.label_bytes :].reshape(-1, *SHAPE) for block in _blocks(read))


def _load_parquet(
    layout: _Layout, shards: parquet.Shards, image_column: str, labels: dict[str, np.ndarray], strict: bool
) -> Loaded:
    parts: dict[str, EncodedPart | PixelPart] = {}
    for split, paths in shards.items():
        if split not in labels:
            raise DataError(f"{paths[0]}: no row has a label, expected the published ones; fetch the file again")
        _check(layout, str(paths[0] if len(paths) == 1 else paths[0].parent), split, labels[split], strict)
        parts[split] = parquet.encoded_part(paths, image_column, labels[split], SHAPE)
    return Loaded(layout.class_names, parts)
