"""Splits: the images that are trained on, those held out, and the order of an epoch."""

from __future__ import annotations

import math

import numpy as np
import torch

from engine.data.appearances import is_packed
from engine.errors import DataError
from engine.recipes.data import Data
from engine.streams import generator

Chosen = dict[str, np.ndarray]
"""By split, the positions of its images in the whole training or test set: int64, ascending."""


def choose(data: Data, labels: dict[str, np.ndarray], num_classes: int) -> Chosen:
    """Choose the images of each split; every choice is stratified and depends on `subset_seed` only.

    Args:
        data: the recipe's part about data.
        labels: by split (train, test, and validation if the set brings its own), int64 [N].
        num_classes: classes C.

    Raises:
        DataError: a split has too few images for what is asked.
    """
    number = len(labels["train"])
    chosen: Chosen = {"train": np.arange(number)}
    if "validation" in labels:
        if data.validation_fraction:
            raise DataError(
                f"data.validation_fraction={data.validation_fraction}, but the set brings "
                f"{len(labels['validation']):,} validation images of its own: set it to 0"
            )
        chosen["validation"] = np.arange(len(labels["validation"]))
    elif data.validation_fraction:
        held_out = _hold_out(labels["train"], data.validation_fraction, data.subset_seed)
        chosen["validation"] = held_out
        chosen["train"] = np.setdiff1d(chosen["train"], held_out, assume_unique=True)
    if data.test_limit is not None and is_packed(labels["test"]):
        raise DataError(
            f"data.test_limit={data.test_limit}, but in a part of the gallery everything is easier to find, so its "
            "scores would mean nothing: leave it out"
        )
    for split, limit in (("train", data.train_limit), ("test", data.test_limit)):
        within = chosen.get(split, np.arange(len(labels[split])))
        chosen[split] = within if limit is None else _limited(split, within, labels[split], limit, num_classes, data)
    if len(chosen["train"]) < num_classes:
        raise DataError(
            f"{len(chosen['train']):,} training images are fewer than the {num_classes:,} classes; "
            f"give more images, or set data.num_classes smaller where the set is synthetic"
        )
    if data.batch_size > len(chosen["train"]):
        raise DataError(
            f"data.batch_size={data.batch_size}, but there are {len(chosen['train']):,} training images: "
            f"give a batch size of at most that"
        )
    return chosen


def epoch_order(number: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch walks the training images: a permutation of 0 to number - 1."""
    return torch.randperm(number, generator=generator(seed, "order", epoch)).numpy()


def _hold_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    counts = np.bincount(labels)
    wanted = round(fraction * len(labels))
    # One image of each class stays for the training.
    spare = np.maximum(counts - 1, 0)
    if not 0 < wanted <= spare.sum():
        raise DataError(
            f"data.validation_fraction={fraction} of {len(labels):,} training images is {wanted:,}, expected 1 to "
            f"{spare.sum():,}, so that each class keeps an image for the training"
        )
    return draw_stratified(labels, np.arange(len(labels)), _share_out(spare, wanted), seed, "validation")


def _limited(
    split: str, within: np.ndarray, labels: np.ndarray, limit: int, num_classes: int, data: Data
) -> np.ndarray:
    if limit > len(within):
        held_out = " after holding out the validation images" if split == "train" and data.validation_fraction else ""
        raise DataError(
            f"data.{split}_limit={limit}, but {data.name} has {len(within):,} {split} images{held_out}: "
            f"give at most that, or leave it out"
        )
    counts = np.bincount(labels[within], minlength=num_classes)
    present = counts > 0
    if limit < present.sum():
        raise DataError(
            f"data.{split}_limit={limit} is fewer than the {present.sum():,} classes: give at least that many"
        )
    # Each class gets one image first, so that a small subset of an unbalanced set misses none.
    wanted = present + _share_out(counts - present, limit - int(present.sum()))
    return draw_stratified(labels, within, wanted, data.subset_seed, f"{split}_limit")


def _share_out(capacities: np.ndarray, total: int) -> np.ndarray:
    """Share out `total` in proportion to the capacities, by largest remainder; none gets more than its capacity."""
    whole = int(capacities.sum())
    if whole == 0:
        return np.zeros_like(capacities)
    shares = capacities * total // whole
    remainders = capacities * total % whole
    largest_first = np.argsort(-remainders, kind="stable")
    shares[largest_first[: total - int(shares.sum())]] += 1
    return shares


def draw_stratified(labels: np.ndarray, within: np.ndarray, wanted: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Draw images of each class, stratified.

    Which images are preferred depends on `within`, the seed and the purpose only: of two draws that differ in the
    number of images wanted, the smaller one is part of the larger one.

    Args:
        labels: of the whole set, int64 [N].
        within: positions to draw from, int64.
        wanted: how many images of each class, int64 [C], none more than there are.
        seed: the recipe's `subset_seed`.
        purpose: keeps apart draws that are made for different ends.

    Returns:
        positions in the whole set, int64 [sum of wanted], ascending.
    """
    shuffled = within[torch.randperm(len(within), generator=generator(seed, "subset", purpose)).numpy()]
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels[within], minlength=len(wanted))
    starts = np.cumsum(counts) - counts
    return np.sort(np.concatenate([by_class[start : start + n] for start, n in zip(starts, wanted, strict=True)]))


def num_steps(number: int, batch_size: int) -> int:
    """Return the batches in an epoch; the last one holds what is left."""
    return math.ceil(number / batch_size)
