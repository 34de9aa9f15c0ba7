"""Batches of P classes with K images each, for losses that compare the images of a batch."""

from __future__ import annotations

import numpy as np
import torch

from engine.data.labels import NO_LABEL
from engine.errors import DataError
from engine.recipes.data import Data
from engine.streams import generator


class ClassBatches:
    """Draws the images of a batch, a function of (seed, epoch, step), so that all who read it see the same.

    Each batch draws P classes without repetition, then K images of each: without repetition where the class has as
    many, else each of its images as often as any other, give or take one. Unlike an order of the epoch, this does not
    see every image once.

    Args:
        data: the recipe's part about data, with ``classes_per_batch`` P; K = ``batch_size`` / P.
        chosen: positions of the training images, int64 [N].
        labels: of the whole training set, int64; those of the chosen images are all known.
        seed: the run's.

    Raises:
        DataError: there are fewer classes than P.
    """

    def __init__(self, data: Data, chosen: np.ndarray, labels: np.ndarray, seed: int) -> None:
        assert data.classes_per_batch is not None
        self._classes, self._seed = data.classes_per_batch, seed
        self._images = data.batch_size // data.classes_per_batch
        present = np.unique(labels[chosen])
        assert NO_LABEL not in present, "a recipe that draws classes drops the images without a label"
        self._of_class = [chosen[labels[chosen] == label] for label in present.tolist()]
        if len(self._of_class) < self._classes:
            raise DataError(
                f"data.classes_per_batch={self._classes}, but the training images are of {len(self._of_class)} "
                "classes: give at most that"
            )

    def draw(self, epoch: int, step: int) -> np.ndarray:
        """Return the positions of one batch, int64 [P * K], class by class."""
        stream = generator(self._seed, "class batches", epoch, step)
        classes = torch.randperm(len(self._of_class), generator=stream)[: self._classes]
        found = []
        for place in classes.tolist():
            images = self._of_class[place]
            rounds = -(-self._images // len(images))
            order = torch.cat([torch.randperm(len(images), generator=stream) for _ in range(rounds)])
            found.append(images[order[: self._images].numpy()])
        return np.concatenate(found)
