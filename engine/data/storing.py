"""Decodes a data set once, in parallel, into arrays of bytes on the disk.

Threads, because PIL decodes without holding Python's lock. Tiny pictures gain nothing from them (reading a header
holds the lock: 10,000 CIFAR pictures take 1.3 s with one thread or two), but two processes took 5 s, most of it to
start. For each split the entry holds NAME.images.npy, uint8 [N, C, H, W], and NAME.labels.npy, int64 [N] or, of label
maps, uint8 [N, H, W].
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.cache import check_room
from engine.data.entries import Entry
from engine.data.map_storing import look_for_faults, store_maps
from engine.data.normalisation import statistics, value_sums
from engine.data.parts import EncodedPart, Loaded, Picture, PixelPart, Progress
from engine.data.pictures.decoding import decoded, num_pixels
from engine.data.pictures.findings import Findings
from engine.data.pictures.fitting import Fitting, fit, fit_block, pixels
from engine.data.pictures.picture_limits import pixel_limit
from engine.data.threads import groups, in_order, num_threads
from engine.data.varied_sizes import VariedImages, write_header
from engine.errors import DataError
from engine.reading import naming

Shape = tuple[int, int, int]

Images = np.ndarray | VariedImages
"""Read by position."""

_PICTURES_AT_ONCE = 128
_BYTES_AT_ONCE = 32 << 20
_BYTES_AHEAD = 512 << 20
_ENCODED_AT_ONCE = 8 << 20
_ENCODED_AHEAD = 256 << 20


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
    loaded: Loaded, fittings: dict[str, Fitting | None], folder: Path, limit_bytes: int | None, progress: Progress
) -> dict[str, Any]:
    """Write all splits of a data set into an empty folder and return the manifest.

    Args:
        loaded: the data set.
        fittings: by split, what pictures are brought to; None keeps the size that they have.
        folder: an empty folder.
        limit_bytes: refuse sets that are larger when decoded; None for no limit.
        progress: told how many images are done.

    Raises:
        DataError: pictures are damaged, all of which are named; one has another size than the first; the set is too
            large; the disk is full.
    """
    pixel_limit()  # a wrong variable is no fault of the pictures
    manifest: dict[str, Any] = {"class_names": list(loaded.class_names), "splits": {}}
    findings = Findings()
    for split, part in loaded.parts.items():
        report = functools.partial(progress, f"decoding the {split} images")
        manifest["splits"][split] = _store_part(part, fittings[split], folder, split, limit_bytes, report, findings)
    findings.refuse(sum(len(part.labels) for part in loaded.parts.values()))
    return manifest | {"transparent": findings.transparent}


def open_stored(entry: Entry, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (memory-mapped, read-only) and the labels of a split. Raises DataError."""
    with naming(entry.folder, DataError):
        images = np.load(entry.folder / f"{split}.images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(entry.folder / f"{split}.labels.npy", allow_pickle=False)
    return images, labels


def open_stored_maps(entry: Entry, split: str) -> tuple[Images, Images, np.ndarray | None]:
    """Return images, label maps, and where these have several sizes int64 [N, 2], their heights and widths.

    Raises:
        DataError: a file is damaged.
    """
    with naming(entry.folder, DataError):
        images, labels = (
            np.load(entry.folder / f"{split}.{kind}.npy", mmap_mode="r", allow_pickle=False)
            for kind in ("images", "labels")
        )
        if "varied" not in entry.manifest["splits"][split]:
            return images, labels, None
        sizes = np.load(entry.folder / f"{split}.sizes.npy", allow_pickle=False)
    return VariedImages(images, sizes, (3,)), VariedImages(labels, sizes, ()), sizes


def _store_part(
    part: EncodedPart | PixelPart,
    fitting: Fitting | None,
    folder: Path,
    split: str,
    limit_bytes: int | None,
    report: Callable[[float], None],
    findings: Findings,
) -> dict[str, Any]:
    number = len(part.labels)
    with ThreadPoolExecutor(num_threads()) as pool:
        pixels = None
        if isinstance(part, EncodedPart) and part.maps is not None and fitting is None:
            pixels = _pixels(part, pool)
        most_pixels = None if pixels is None else max(pixels, default=1)
        blocks = _decoded_blocks(part, fitting, pool, findings, report, most_pixels)
        first = next(blocks, None)
        if first is None:
            if findings.faults:
                return _unstored(part, findings)
            raise DataError(
                f"the {split} split holds no images, expected at least one; give it some, or leave its files out"
            )
        shape = (number, *first.shape[1:])
        total = int(np.prod(shape, dtype=np.int64)) if pixels is None else int(shape[1]) * sum(pixels)

        def refuse_above(total: int) -> None:
            if limit_bytes is not None and total > limit_bytes:
                raise DataError(
                    f"the {number:,} {split} images need {total:,} bytes when decoded, more than the {limit_bytes:,} "
                    "that are kept decoded: set data.image_size, and they are decoded while the training runs"
                )

        refuse_above(total)
        check_room(folder, total)
        sums = np.zeros((3, shape[1]), dtype=np.int64)
        digest = _begin_hash(shape)
        sizes: list[tuple[int, ...]] = []
        used = 0
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
                sizes += len(content) * [content.shape[2:]]
                used += content.nbytes
                refuse_above(used)
                report(min(1.0, len(sizes) / number))
    if findings.faults:
        return _unstored(part, findings)
    if len(sizes) != number:
        raise DataError(f"the {split} split has {number:,} labels but {len(sizes):,} images; fetch the files again")
    varied = len(set(sizes)) > 1
    largest = [max(lengths) for lengths in zip(*sizes, strict=True)]
    made: dict[str, Any] = {"shape": [number, int(shape[1]), *map(int, largest)]}
    if varied:
        made["varied"] = True
        write_header(folder / f"{split}.images.npy", (used,))
        np.save(folder / f"{split}.sizes.npy", np.array(sizes, dtype=np.int64))
        digest.update(np.array(sizes, dtype="<i8").tobytes())
    place = folder / f"{split}.labels.npy"
    if isinstance(part, EncodedPart) and part.maps is not None:
        stored = (used // int(shape[1]),) if varied else (number, *shape[2:])
        with ThreadPoolExecutor(num_threads()) as pool:
            made["pixels"] = store_maps(part, fitting, stored, place, pool, findings, digest, report)
    else:
        np.save(place, part.labels)
        digest.update(part.labels.astype("<i8").tobytes())
    made["sha256"] = digest.hexdigest()
    if split == "train":
        made["mean"], made["std"] = statistics(sums)
    return made


def _unstored(part: EncodedPart | PixelPart, findings: Findings) -> dict[str, Any]:
    """Look at the label maps, too, so that all files that cannot be used are named at once; return no manifest."""
    if isinstance(part, EncodedPart) and part.maps is not None:
        look_for_faults(part, findings)
    return {}


def _decoded_blocks(
    part: EncodedPart | PixelPart,
    fitting: Fitting | None,
    pool: ThreadPoolExecutor,
    findings: Findings,
    report: Callable[[float], None],
    most_pixels: int | None,
) -> Iterator[np.ndarray]:
    """Yield uint8 [n, C, H, W]; after a picture that cannot be used, only look for more of them.

    `most_pixels` are those of the largest picture where sizes may vary, and None where they may not.
    """
    if isinstance(part, PixelPart):
        if fitting is None:
            yield from part.blocks()
            return
        yield from in_order(lambda block: fit_block(block, fitting), part.blocks(), pool)
        return
    expected: list[tuple[Shape, str]] = []
    seen = 0
    at_once, bytes_of_one = _pictures_at_once(part, fitting, most_pixels)
    # Encoded pictures may have any number of bytes for each pixel that becomes of them.
    pictures = groups(part.pictures(), at_once, _encoded_bytes, _ENCODED_AT_ONCE)
    ahead = max(1, _BYTES_AHEAD // (at_once * bytes_of_one))
    decoded_ahead = in_order(
        lambda group: _decode_block(group, fitting),
        pictures,
        pool,
        ahead,
        lambda group: sum(map(_encoded_bytes, group)),
        _ENCODED_AHEAD,
    )
    for block, found in decoded_ahead:
        findings.add(found)
        seen += len(block) + len(found.faults)
        if findings.faults:
            report(min(1.0, seen / len(part.labels)))
            continue
        for image, where in block:
            if not expected:
                expected.append((part.shape, "this set") if part.shape and fitting is None else (image.shape, where))
            shape, example = expected[0]
            if image.shape != shape and most_pixels is None:
                raise DataError(
                    f"{where} has {image.shape[1]} x {image.shape[2]} pixels, but {example} has "
                    f"{shape[1]} x {shape[2]}: when sizes vary, data.image_size is required"
                )
        for _, alike in itertools.groupby((image for image, _ in block), lambda image: image.shape):
            yield np.stack(list(alike))


def _encoded_bytes(picture: Picture) -> int:
    return len(picture.content or b"")


def _pixels(part: EncodedPart, pool: ThreadPoolExecutor) -> list[int]:
    """Return how many pixels each picture of a split has, as their headers say."""
    found = in_order(num_pixels, part.pictures(), pool)
    # One that cannot be used, of which the limit is told, is yet to be named.
    return [pixels for pixels in found if pixels < pixel_limit()]


def _pictures_at_once(part: EncodedPart, fitting: Fitting | None, most_pixels: int | None) -> tuple[int, int]:
    """Return how many pictures are decoded to one block, so that its bytes are bounded, and the bytes of one."""
    if most_pixels is not None:
        return 1, 3 * most_pixels
    if fitting is not None:
        pixels_of_one = fitting.height * fitting.width
    else:
        # The others must have its size, or are refused.
        first = next(iter(part.pictures()), None)
        pixels_of_one = num_pixels(first) if first is not None else 1
    bytes_of_one = 3 * pixels_of_one
    return max(1, min(_PICTURES_AT_ONCE, _BYTES_AT_ONCE // bytes_of_one)), bytes_of_one


def _decode_block(pictures: list[Picture], fitting: Fitting | None) -> tuple[list[tuple[np.ndarray, str]], Findings]:
    images, found = [], Findings()
    for picture in pictures:
        with found.noting(picture):
            with decoded(picture) as (image, transparent):
                images.append((pixels(image if fitting is None else fit(image, fitting)), picture.where))
            found.transparent += transparent
    return images, found
