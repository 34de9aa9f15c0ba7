"""How does a data set become arrays of bytes on the disk, decoded once and in parallel?

Threads, because PIL decodes without holding Python's lock. Tiny pictures gain nothing from them (reading a header
holds the lock: 10,000 CIFAR pictures take 1.3 s with one thread or two), but two processes took 5 s, most of it to
start. For each split the entry holds NAME.images.npy, uint8 [N, C, H, W], and NAME.labels.npy, int64 [N].
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.data.cache import Entry, check_room
from engine.data.decoding import decode, fit, fit_block, pixels
from engine.data.normalisation import statistics, value_sums
from engine.data.parts import EncodedPart, Loaded, Picture, PixelPart, Progress
from engine.data.threads import num_threads
from engine.errors import DataError

Sizes = tuple[int, int]
"""Side of the image, and shorter side before its centre crop."""

Shape = tuple[int, int, int]

_PICTURES_AT_ONCE = 128
_BLOCKS_AHEAD_PER_THREAD = 3
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def content_hash(shape: tuple[int, ...], blocks: Iterable[np.ndarray], labels: np.ndarray) -> str:
    """Return a sha256 of images and labels that does not depend on the format that they came in."""
    digest = _begin_hash(shape)
    for block in blocks:
        digest.update(np.ascontiguousarray(block).data)
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _begin_hash(shape: tuple[int, ...]) -> Any:
    return hashlib.sha256(json.dumps([int(length) for length in shape]).encode())


def store(
    loaded: Loaded, sizes: dict[str, Sizes | None], folder: Path, limit_bytes: int | None, progress: Progress
) -> dict[str, Any]:
    """Write all splits of a data set into an empty folder and return the manifest.

    Args:
        loaded: the data set.
        sizes: by split, what images are resized to; None keeps the size that they have.
        folder: an empty folder.
        limit_bytes: refuse sets that are larger when decoded; None for no limit.
        progress: told how many images are done.

    Raises:
        DataError: a picture is damaged or has another size than the first; the set is too large; the disk is full.
    """
    manifest: dict[str, Any] = {"class_names": list(loaded.class_names), "splits": {}}
    for split, part in loaded.parts.items():
        report = functools.partial(progress, f"decoding the {split} images")
        manifest["splits"][split] = _store_part(part, sizes[split], folder, split, limit_bytes, report)
    return manifest


def open_stored(entry: Entry, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (memory-mapped, read-only) and the labels of a split."""
    images = np.load(entry.folder / f"{split}.images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.load(entry.folder / f"{split}.labels.npy", allow_pickle=False)
    return images, labels


def _store_part(
    part: EncodedPart | PixelPart,
    sizes: Sizes | None,
    folder: Path,
    split: str,
    limit_bytes: int | None,
    report: Callable[[float], None],
) -> dict[str, Any]:
    number = len(part.labels)
    with ThreadPoolExecutor(num_threads()) as pool:
        blocks = _decoded_blocks(part, sizes, pool)
        first = next(blocks, None)
        if first is None:
            raise DataError(f"the {split} split holds no images, expected at least one")
        shape = (number, *first.shape[1:])
        total = int(np.prod(shape, dtype=np.int64))
        if limit_bytes is not None and total > limit_bytes:
            raise DataError(
                f"the {number:,} {split} images need {total:,} bytes when decoded, more than the {limit_bytes:,} that "
                f"are kept decoded: set data.image_size, and they are decoded while the training runs"
            )
        check_room(folder, total)
        sums = np.zeros((3, shape[1]), dtype=np.int64)
        digest = _begin_hash(shape)
        written = 0
        # Written in order rather than into a memory map: a full disk is then an error and not a dead process.
        with (folder / f"{split}.images.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
            )
            for block in itertools.chain([first], blocks):
                content = np.ascontiguousarray(block)
                file.write(content.data)
                digest.update(content.data)
                if split == "train":
                    sums += value_sums(content)
                written += len(content)
                report(min(1.0, written / number))
    if written != number:
        raise DataError(f"the {split} split has {number:,} labels but {written:,} images; the files are damaged")
    np.save(folder / f"{split}.labels.npy", part.labels)
    digest.update(part.labels.astype("<i8").tobytes())
    made: dict[str, Any] = {"shape": list(map(int, shape)), "sha256": digest.hexdigest()}
    if split == "train":
        made["mean"], made["std"] = statistics(sums)
    return made


def _decoded_blocks(
    part: EncodedPart | PixelPart, sizes: Sizes | None, pool: ThreadPoolExecutor
) -> Iterator[np.ndarray]:
    if isinstance(part, PixelPart):
        if sizes is None:
            yield from part.blocks()
            return
        image_size, resize_size = sizes
        yield from _in_order(lambda block: fit_block(block, image_size, resize_size), part.blocks(), pool)
        return
    expected: list[tuple[Shape, str]] = []
    for block, places in _in_order(lambda pictures: _decode_block(pictures, sizes), _groups(part.pictures()), pool):
        for image, where in zip(block, places, strict=True):
            if not expected:
                expected.append((part.shape, "this set") if part.shape and sizes is None else (image.shape, where))
            shape, example = expected[0]
            if image.shape != shape:
                raise DataError(
                    f"{where} has {image.shape[1]} x {image.shape[2]} pixels, but {example} has "
                    f"{shape[1]} x {shape[2]}: when sizes vary, data.image_size is required"
                )
        yield np.stack(block)


def _decode_block(pictures: list[Picture], sizes: Sizes | None) -> tuple[list[np.ndarray], list[str]]:
    images = (decode(picture) for picture in pictures)
    fitted = images if sizes is None else (fit(image, *sizes) for image in images)
    return [pixels(image) for image in fitted], [picture.where for picture in pictures]


def _groups(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    stream = iter(pictures)
    while group := list(itertools.islice(stream, _PICTURES_AT_ONCE)):
        yield group


def _in_order(work: Callable[[_Item], _Result], items: Iterable[_Item], pool: ThreadPoolExecutor) -> Iterator[_Result]:
    """Yield the results in order, with a bounded number of them under way, so that memory stays small."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > _BLOCKS_AHEAD_PER_THREAD * num_threads():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
