"""Data sets: a recipe's data as images that can be read by position."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from engine.data import packed
from engine.data.cache import cached
from engine.data.class_names import printable
from engine.data.images import EncodedImages, Images, StoredImages
from engine.data.inventory import Survey
from engine.data.label_map_sets import check_fields_of_label_maps, with_label_maps
from engine.data.normalisation import IMAGENET, statistics, value_sums
from engine.data.opened import Opened, held_out_differ, with_held_out
from engine.data.parts import EncodedPart, Found, Loaded, Picture, PixelPart, Progress
from engine.data.pictures.fitting import Fitting, fit_block
from engine.data.readers.digits import load_digits
from engine.data.readers.formats import find_files
from engine.data.remote.download import DOWNLOADABLE
from engine.data.storing import content_hash, open_stored, store
from engine.data.synthetic import DEFAULT_SIDE, SyntheticImages
from engine.errors import DataError, RecipeError
from engine.recipes.data import Data

STORED_LIMIT_BYTES = 8 * 1024**3
"""Folders and Parquet sets are kept decoded up to this size (Tiny ImageNet 1.4 GB), and decoded ahead above it."""

# Enough images for a mean and standard deviation: 1024 of 32 x 32 pixels.
_SYNTHETIC_SAMPLE_BYTES = 3 * 1024 * 1024


BeforeDecoding = Callable[[tuple[str, ...], tuple[int, int, int]], None]
"""Called with the names of the classes and the shape (C, H, W) of the images."""


def open_images(
    data: Data,
    seed: int,
    progress: Progress,
    strict_counts: bool,
    stored_limit_bytes: int,
    before_decoding: BeforeDecoding | None = None,
) -> Opened:
    """Open the whole data set of a recipe; the arguments are those of `open_source`.

    Raises:
        RecipeError: fields that do not go together.
        DataError: files are missing, incomplete or damaged, or all training images are of one class.
    """
    opened = _open(data, seed, progress, strict_counts, stored_limit_bytes, before_decoding)
    _check_several_classes(data, opened)
    return opened


def _check_several_classes(data: Data, opened: Opened) -> None:
    if opened.pixels is not None:
        return
    present = np.unique(opened.images["train"].labels)
    if opened.survey.root is not None and len(present) < 2:
        names = ", ".join(printable(opened.class_names[label]) for label in present.tolist())
        raise DataError(
            f"all training images of data.root={data.root} are of one class, {names}, and there is nothing to tell it "
            f"from: is this the column or the level that holds the classes? Expected images of two classes or more"
        )


def _open(
    data: Data,
    seed: int,
    progress: Progress,
    strict_counts: bool,
    stored_limit_bytes: int,
    before_decoding: BeforeDecoding | None,
) -> Opened:
    _check_fields(data)
    if data.name == "synthetic":
        return _open_synthetic(data)
    if data.name == "digits":
        return _open_digits(data)
    found, size = find_files(data, strict_counts, progress), data.height_and_width
    if before_decoding is not None and found.num_pictures is not None and size is not None:
        before_decoding(found.load().class_names, (3, *size))
    if _too_large(found, size, stored_limit_bytes):
        return _open_encoded(data, found, seed, progress)
    fittings = _fittings(data)
    sizes = {split: None if fitting is None else fitting.to_json() for split, fitting in fittings.items()}
    parameters = {"name": data.name, "label_column": data.label_column, "strict": strict_counts, "sizes": sizes}
    parameters |= found.reading
    limit = stored_limit_bytes if found.num_pictures is not None else None
    entry = cached(found, parameters, lambda folder: store(found.load(), fittings, folder, limit, progress), progress)
    splits = entry.manifest["splits"]
    if found.label_maps:
        opened = with_label_maps(data, replace(found, survey=_survey(found)), entry, seed)
    else:
        opened = Opened(
            images={split: StoredImages(*open_stored(entry, split)) for split in splits},
            class_names=tuple(entry.manifest["class_names"]),
            image_shape=_common_shape({split: tuple(made["shape"][1:]) for split, made in splits.items()}),
            measured=(tuple(splits["train"]["mean"]), tuple(splits["train"]["std"])),
            content={split: made["sha256"] for split, made in splits.items()},
            survey=_survey(found),
        )
    return with_held_out(data, opened, found, fittings, parameters, progress)


def _survey(found: Found) -> Survey:
    return found.survey if found.survey.root is not None else replace(found.survey, root=found.root)


def _check_fields(data: Data) -> None:
    for field in ("image_column", "label_column"):
        if getattr(data, field) is not None and data.name not in ("parquet", "identities"):
            raise RecipeError(
                f"data.{field} is for data.name=parquet and identities only, found data.name={data.name}: leave it out"
            )
    check_fields_of_label_maps(data)
    if data.download and data.name not in DOWNLOADABLE:
        raise RecipeError(
            f"data.download=true, but only {', '.join(DOWNLOADABLE)} can be downloaded, "
            f"found data.name={data.name}: leave it out"
        )
    if data.stretch and (data.image_size is None or data.resize_size is not None):
        raise RecipeError(
            f"data.stretch=true needs data.image_size, which whole pictures are resized to, and no data.resize_size, "
            f"out of which a crop is cut; found {data.image_size} and {data.resize_size}: give the one and leave the "
            "other out"
        )
    if data.first_size is not None and (not data.stretch or data.augmentation.random_resized_crop):
        why = "without data.stretch=true" if not data.stretch else "beside data.augmentation.random_resized_crop=true"
        raise RecipeError(
            f"data.first_size={list(data.first_size)} {why}: only whole pictures, which are stretched, are resized "
            "twice; leave it out"
        )
    if data.resize_size is None:
        return
    if isinstance(data.image_size, tuple):
        raise RecipeError(
            f"data.resize_size={data.resize_size} is for square images, found data.image_size={list(data.image_size)}, "
            "which pictures are resized to cover: leave it out"
        )
    if data.image_size is None:
        raise RecipeError(f"data.resize_size={data.resize_size} needs data.image_size, the side of the crop: give both")
    if data.resize_size < data.image_size:
        raise RecipeError(
            f"data.resize_size={data.resize_size} is smaller than data.image_size={data.image_size}, expected at least "
            f"that: the image is cropped out of the resized picture"
        )


def _fittings(data: Data) -> dict[str, Fitting | None]:
    size = data.height_and_width
    if size is None:
        return dict.fromkeys(("train", "validation", "test"))
    training = Fitting(*size, stretch=data.stretch, first_size=data.first_size)
    evaluation = replace(training, shorter_side=data.resize_size)
    return {"train": training, "validation": evaluation, "test": evaluation}


def _common_shape(shapes: dict[str, tuple[int, ...]]) -> tuple[int, int, int]:
    for split, shape in shapes.items():
        if shape != shapes["train"]:
            raise DataError(
                f"{split} images are {shape[1]} x {shape[2]} pixels, but the training images are "
                f"{shapes['train'][1]} x {shapes['train'][2]}: set data.image_size"
            )
    channels, height, width = shapes["train"]
    return channels, height, width


def _open_digits(data: Data) -> Opened:
    loaded = load_digits()
    parts = loaded.parts | ({"validation": loaded.parts["train"]} if held_out_differ(data) else {})
    arrays: dict[str, np.ndarray] = {}
    for split, part in parts.items():
        assert isinstance(part, PixelPart)
        whole, fitting = np.concatenate(list(part.blocks())), _fittings(data)[split]
        arrays[split] = whole if fitting is None else fit_block(whole, fitting)
    labels = {split: part.labels for split, part in parts.items()}
    images = {split: StoredImages(arrays[split], labels[split]) for split in arrays}
    return Opened(
        images={split: images[split] for split in loaded.parts},
        held_out=images.get("validation"),
        class_names=loaded.class_names,
        image_shape=_common_shape({split: array.shape[1:] for split, array in arrays.items()}),
        measured=statistics(value_sums(arrays["train"])),
        content={split: content_hash(arrays[split].shape, [arrays[split]], labels[split]) for split in loaded.parts},
        survey=Survey(layout="handwritten digits that come with the engine", names_from="as published"),
    )


def _open_synthetic(data: Data) -> Opened:
    assert data.num_classes is not None
    if data.resize_size is not None or data.stretch:
        given = "stretch" if data.resize_size is None else "resize_size"
        raise RecipeError(f"data.{given} has no meaning for data.name=synthetic: leave it out")
    height, width = data.height_and_width or (DEFAULT_SIDE, DEFAULT_SIDE)
    numbers = {"train": data.synthetic_images, "test": max(1, data.synthetic_images // 4)}
    images = {
        split: SyntheticImages(split, number, data.num_classes, (height, width), data.subset_seed)
        for split, number in numbers.items()
    }
    sampled = max(1, min(numbers["train"], _SYNTHETIC_SAMPLE_BYTES // (3 * height * width)))
    sample = images["train"].evaluation_images(np.arange(sampled))
    described = [
        data.image_size or DEFAULT_SIDE,
        data.num_classes,
        data.subset_seed,
        content_hash(sample.shape, [sample], np.zeros(0)),
    ]
    return Opened(
        images=dict(images),
        class_names=tuple(str(label) for label in range(data.num_classes)),
        image_shape=images["train"].shape,
        measured=statistics(value_sums(sample)),
        content={split: _digest([split, number, *described]) for split, number in numbers.items()},
        survey=Survey(layout="synthetic images, made while they are read", names_from="named by number"),
    )


def _digest(described: list[Any]) -> str:
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _too_large(found: Found, size: tuple[int, int] | None, limit_bytes: int) -> bool:
    """Tell whether a set is decoded ahead. Raises DataError when it must be, but has no image size."""
    if found.num_pictures is None:
        return False
    if size is None:
        # Decoded pictures are larger than encoded ones; this spares reading a huge set before refusing it.
        encoded = sum(os.path.getsize(path) for path in found.files)
        if encoded > limit_bytes:
            raise DataError(
                f"the pictures in {found.root} have {encoded:,} bytes, more than the {limit_bytes:,} that are kept "
                f"decoded: set data.image_size, and they are decoded while the training runs"
            )
        return False
    return found.num_pictures * 3 * size[0] * size[1] > limit_bytes


def _open_encoded(data: Data, found: Found, seed: int, progress: Progress) -> Opened:
    """Open a set whose pictures are decoded whenever they are needed."""
    fittings = _fittings(data)
    training, evaluation = fittings["train"], fittings["test"]
    assert training is not None
    assert evaluation is not None
    if isinstance(data.image_size, int) and not data.stretch:
        evaluation = replace(evaluation, shorter_side=data.resize_size or data.image_size * 8 // 7)
    crop_seed = seed if data.augmentation.random_resized_crop else None
    images: dict[str, Images] = {}
    loaded = found.load()
    if any(isinstance(part, EncodedPart) and part.picture is None for part in loaded.parts.values()):
        parameters = {"name": data.name, "label_column": data.label_column, "packed": True} | found.reading
        entry = cached(found, parameters, lambda folder: packed.pack(found, loaded, folder, progress), progress)
        names = tuple(entry.manifest["class_names"])
        content = {split: _digest([entry.folder.name, split]) for split in entry.manifest["splits"]}
        for split in entry.manifest["splits"]:
            labels, picture = packed.open_packed(entry, split)
            images[split] = EncodedImages(labels, picture, (training, evaluation), crop_seed)
    else:
        names = loaded.class_names
        content = dict.fromkeys(loaded.parts, _listing_digest(found, loaded))
        for split, part in loaded.parts.items():
            assert isinstance(part, EncodedPart)
            assert part.picture is not None
            if part.labels_listed:
                # Elsewhere a picture's place among the folders says all of this.
                content[split] = _digest([content[split], *_rows(found, part.labels, part.picture)])
            images[split] = EncodedImages(part.labels, part.picture, (training, evaluation), crop_seed)
    way = evaluation.to_json()
    sizes = way if isinstance(way, list) else [way]
    return Opened(
        images=images,
        class_names=names,
        image_shape=(3, *training.size),
        measured=IMAGENET,
        content={split: _digest([split, listed, *sizes]) for split, listed in content.items()},
        survey=_survey(found),
        cropped_while_decoding=crop_seed is not None,
    )


def _listing_digest(found: Found, loaded: Loaded) -> str:
    """Return a hash of names and sizes: reading every byte of such a set would take as long as an epoch."""
    listed = [[os.path.relpath(path, found.root), os.path.getsize(path)] for path in found.files]
    return _digest([listed, loaded.class_names])


def _rows(found: Found, labels: np.ndarray, picture: Callable[[int], Picture]) -> list[list[Any]]:
    """Return the name, relative to the root, and the label of each picture of a split."""
    return [[os.path.relpath(picture(at).where, found.root), number] for at, number in enumerate(labels.tolist())]
