"""Paired images: a second image beside each image of a training batch, for methods that compare two.

Class-wise self-knowledge distillation (Yun et al., Regularizing Class-wise Predictions via Self-knowledge Distillation,
CVPR 2020) compares two images of a class, self-distillation from the last mini-batch (Shen et al., CVPR 2022) two
augmentations of an image, and mixed knowledge fraction mixes two batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from engine.data.labels import NO_LABEL
from engine.errors import RecipeError
from engine.recipes import PairedImages
from engine.recipes.data import Data
from engine.streams import generator

# What paired images were called once: with another word others would be drawn.
_STREAM = "companions"

Pairing = Callable[[np.ndarray, int, int], np.ndarray]
"""Takes the positions of a training batch (int64 [B]), epoch and step; gives those of the paired images (int64 [B])."""


def choose_paired_images(
    paired_images: PairedImages, training: np.ndarray, labels: np.ndarray, batch_size: int, seed: int
) -> Pairing | None:
    """Return what finds the paired images of a batch; they are a pure function of (seed, epoch, step) and the batch.

    Args:
        paired_images: which kind; None is returned for ``none``.
        training: positions of the training images in use in the whole training set, int64 [n]; all paired images are
            among them.
        labels: of the whole training set, int64 [N], NO_LABEL for an image that is used without its label.
        batch_size: images in a batch B; the last batch of an epoch may be shorter.
        seed: the run's seed.
    """
    if paired_images == "same_class":
        return _SameClass(training, labels, seed)
    if paired_images == "same_image":
        return lambda positions, epoch, step: positions
    if paired_images == "second_batch":
        return _SecondBatch(training, batch_size, seed)
    return None


def refuse_with_class_batches(data: Data, paired_images: PairedImages) -> None:
    """Refuse a second batch beside batches that draw their classes.

    Raises:
        RecipeError: a second batch walks the epoch, whose last batch may be shorter than one of classes.
    """
    if data.classes_per_batch is not None and paired_images == "second_batch":
        raise RecipeError(
            f"data.classes_per_batch={data.classes_per_batch} draws each batch by its classes, but the method mixes it "
            "with a second batch, which holds each image once in an epoch, whatever its class: leave "
            "data.classes_per_batch out, or mix images of one batch (of mkf, method.mixing_partners=same_batch)"
        )


class _SameClass:
    """Draws uniformly among the labelled images of each image's class; an image without a label keeps to itself."""

    def __init__(self, training: np.ndarray, labels: np.ndarray, seed: int) -> None:
        known = training[labels[training] != NO_LABEL]
        self._by_class = known[np.argsort(labels[known], kind="stable")]
        self._counts = np.bincount(labels[known])
        self._starts = np.cumsum(self._counts) - self._counts
        self._labels = labels
        self._seed = seed

    def __call__(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        stream = generator(self._seed, _STREAM, epoch, step)
        # Double precision: number * count must never round up to count.
        uniform = torch.rand(len(positions), generator=stream, dtype=torch.float64).numpy()
        labels = self._labels[positions]
        known = labels != NO_LABEL
        classes = labels[known]
        paired_images = positions.copy()
        places = np.floor(uniform[known] * self._counts[classes]).astype(np.int64)
        paired_images[known] = self._by_class[self._starts[classes] + places]
        return paired_images


class _SecondBatch:
    """Walks the training images in another order than the epoch's, every image once in an epoch, too."""

    def __init__(self, training: np.ndarray, batch_size: int, seed: int) -> None:
        self._training = training
        self._batch_size = batch_size
        self._seed = seed
        # As for the epoch's own order: looking ahead needs two epochs.
        self._order = functools.lru_cache(maxsize=2)(self._new_order)

    def __call__(self, positions: np.ndarray, epoch: int, step: int) -> np.ndarray:
        start = step * self._batch_size
        return self._order(epoch)[start : start + len(positions)]

    def _new_order(self, epoch: int) -> np.ndarray:
        stream = generator(self._seed, _STREAM, epoch)
        return self._training[torch.randperm(len(self._training), generator=stream).numpy()]
