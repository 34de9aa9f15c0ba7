"""Labels of training images: kept, dropped, or the image left out.

Semi-supervised training (Zhang et al., Deep Mutual Learning, CVPR 2018, section 4.10 and eq. 10) compares a single
network and a cohort on the labelled images with a cohort that also learns from the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from engine.data.class_names import printable
from engine.data.pictures.picture_limits import UnusablePicturesError
from engine.data.readers.text_lines import text_lines
from engine.data.splits import Chosen, draw_stratified
from engine.errors import DataError, RecipeError
from engine.paths import absolute
from engine.recipes import PairedImages
from engine.recipes.data import Data

NO_LABEL = -1
"""Stands in a batch for the label of an image that is used without one."""

# Longer numbers do not fit int64.
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_LONGEST_SHOWN = 40
# In UTF-16 a line of 20 characters has 40 bytes; a few may be empty or hold a title that is told of.
_BYTES_OF_ONE = 64
_BYTES_BESIDE = 1 << 20


def choose_labelled(data: Data, chosen: Chosen, labels: np.ndarray, num_classes: int) -> tuple[Chosen, np.ndarray]:
    """Choose the training images that keep their label; the choice depends on `subset_seed` or the file only.

    Args:
        data: the recipe's part about data.
        chosen: the images of each split, from `engine.data.splits.choose`.
        labels: of the whole training set, int64 [N].
        num_classes: classes C.

    Returns:
        `chosen`, with the labelled images as the whole training split when the others are dropped; and the positions
        of the labelled images in the whole training set, int64 [n], ascending.

    Raises:
        DataError: `data.labelled_indices` is missing or wrong, or fewer images are left than a batch holds.
    """
    within = chosen["train"]
    if data.labelled_indices is not None:
        labelled = _listed(data.labelled_indices, within, len(labels))
    elif data.labelled_fraction is not None:
        labelled = _share_of_each_class(data.labelled_fraction, labels, within, num_classes, data.subset_seed)
    else:
        labelled = within
    if data.unlabelled == "use":
        return chosen, labelled
    if data.batch_size > len(labelled):
        raise DataError(
            f"data.batch_size={data.batch_size}, but data.unlabelled=drop leaves {len(labelled):,} labelled of "
            f"{len(within):,} training images: give a batch size of at most that, or label more images"
        )
    return chosen | {"train": labelled}, labelled


@contextmanager
def saying_what_removal_moves(data: Data) -> Iterator[None]:
    """Say beside pictures that cannot be used that `data.labelled_indices`, if given, names others once they are gone.

    Raises:
        UnusablePicturesError: that of the block.
    """
    try:
        yield
    except UnusablePicturesError as error:
        if data.labelled_indices is None:
            raise
        raise UnusablePicturesError(
            f"{error}. data.labelled_indices={data.labelled_indices} counts pictures: once one is removed, those "
            "behind it have other indices, so replace it, or write the list anew"
        ) from error


def known_labels(labels: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return labels, int64 [N], that are NO_LABEL everywhere but at the labelled positions."""
    known = np.full(len(labels), NO_LABEL, dtype=np.int64)
    known[labelled] = labels[labelled]
    return known


def refuse_for_label_maps(data: Data, paired_images: PairedImages) -> None:
    """Refuse what needs one class for each image, of a set whose images have label maps.

    Raises:
        RecipeError: images are to be used without their labels, or beside others of their class.
    """
    if paired_images == "same_class":
        raise RecipeError(
            f"the method compares images of one class, but those of data.name={data.name} have a class for each pixel: "
            "choose another method"
        )
    if data.unlabelled == "use" and (data.labelled_fraction is not None or data.labelled_indices is not None):
        field = "labelled_fraction" if data.labelled_fraction is not None else "labelled_indices"
        raise RecipeError(
            f"data.{field}: training on pictures without their label maps is not supported for data.name={data.name}: "
            "set data.unlabelled=drop to leave them out"
        )


def _share_of_each_class(
    fraction: float, labels: np.ndarray, within: np.ndarray, num_classes: int, seed: int
) -> np.ndarray:
    counts = np.bincount(labels[within], minlength=num_classes)
    wanted = np.maximum(np.rint(fraction * counts).astype(np.int64), np.minimum(counts, 1))
    # The order that is drawn from does not depend on the fraction, so a smaller one is part of a larger one.
    return draw_stratified(labels, within, wanted, seed, "labelled")


def _listed(file: str, within: np.ndarray, number: int) -> np.ndarray:
    """Read training indices from a text file, one a line; lines without a character are skipped."""
    field = f"data.labelled_indices={file}"
    try:
        limit = _BYTES_BESIDE + _BYTES_OF_ONE * number
        lines = text_lines(absolute(file, "data.labelled_indices", DataError), limit)
    except DataError as error:
        raise DataError(
            f"data.labelled_indices={error}; expected a text file with one training index a line"
        ) from error
    first_lines: dict[int, int] = {}
    usable = np.zeros(number, dtype=bool)
    usable[within] = True
    for place, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not _WHOLE_NUMBER.fullmatch(text):
            raise DataError(
                f"{field}, line {place}: found {printable(text[:_LONGEST_SHOWN])!r}, expected one training index, "
                f"a whole number from 0 to {number - 1}, and nothing else"
            )
        index = int(text)
        if not 0 <= index < number:
            raise DataError(
                f"{field}, line {place}: found index {index}, expected 0 to {number - 1}: the whole training set has "
                f"{number:,} images; is this the list of another data set?"
            )
        if not usable[index]:
            raise DataError(
                f"{field}, line {place}: image {index} is not among the {len(within):,} training images in use: "
                f"remove the line, or change data.validation_fraction, data.train_limit or data.subset_seed"
            )
        if index in first_lines:
            raise DataError(
                f"{field}, line {place}: image {index} is in line {first_lines[index]} too: remove one of the lines"
            )
        first_lines[index] = place
    if not first_lines:
        raise DataError(f"{field} holds no index: expected one training index a line, at least one")
    return np.sort(np.fromiter(first_lines, dtype=np.int64, count=len(first_lines)))
