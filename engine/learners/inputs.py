"""What a body takes: the pixels of a batch, augmented and normalised, or the features of the segment before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.data import Augmenter, Batch, Facts, on_device
from engine.learners.replicas import Replicas
from engine.recipes import Recipe
from engine.tasks import Task


class Inputs:
    """Prepares inputs on the learner's device, in the recipe's memory format.

    Args:
        recipe: what is trained.
        facts: what is known of the data.
        task: whose labels are prepared.
        device: where to compute.

    Attributes:
        augmenter: of the recipe.
        replicas: with which this learner shares each batch; None where it trains on all of it.
    """

    def __init__(self, recipe: Recipe, facts: Facts, task: Task, device: torch.device) -> None:
        self._task, self._device = task, device
        self._format = torch.channels_last if recipe.numerics.channels_last else torch.contiguous_format
        self.augmenter = Augmenter(recipe.data.augmentation, facts, recipe.seed, device)
        self.replicas: Replicas | None = None

    def placed(self, module: Any) -> Any:
        """Return a module on the device and in the memory format."""
        return module.to(self._device, memory_format=self._format)

    def training_pixels(self, batch: Batch) -> Tensor:
        """Return the augmented images, float32 [B, C, H, W] in [0, 1]; with replicas, this one's rows of them."""
        return self._own_rows(self.augmenter.training_pixels(batch))

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels on the device; with replicas, this one's rows of them."""
        labels = self._task.training_labels(batch, self.augmenter)
        return self._own_rows(on_device(labels, self._device))

    def prepared(self, pixels: Tensor | None, features: Tensor | None = None) -> Tensor:
        """Return what the body takes: the features, or where there are none the pixels normalised."""
        if features is None:
            assert pixels is not None
            inputs = self.augmenter.normalise(pixels)
        else:
            inputs = features
        return inputs.contiguous(memory_format=self._format) if inputs.dim() == 4 else inputs

    def _own_rows(self, whole: Tensor) -> Tensor:
        return whole if self.replicas is None else self.replicas.rows(whole)
