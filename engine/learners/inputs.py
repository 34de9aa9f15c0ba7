"""Inputs of a body: the pixels of a batch, augmented and normalised, or the features of the segment before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import Augmenter, Batch, Facts, on_device
from engine.learners.labels import Labels
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

    def labels(self, batch: Batch) -> Labels:
        """Return the labels on the device; with replicas, this one's rows of them."""
        found = self._task.training_labels(batch, self.augmenter)
        whole = on_device(found, self._device)
        labelled = self._task.labelled(whole)
        if self.replicas is None:
            return Labels(whole, labelled)
        share = len(self._own_rows(found)) / len(found)
        # Counted where they lie: classes on the CPU, so that nothing waits for the device; only label maps do.
        of_own, of_all = (int(self._task.labelled(each)) for each in (self._own_rows(found), found))
        # A mean over none is 0, whatever it is multiplied by.
        factor = of_own / max(1, of_all) / share or 1.0
        return Labels(self._own_rows(whole), labelled, share, factor, self.replicas.count)

    def prepared(self, pixels: Tensor | None, features: Tensor | None = None) -> Tensor:
        """Return what the body takes: the features, or where there are none the pixels normalised."""
        if features is None:
            assert pixels is not None
            inputs = self.augmenter.normalise(pixels)
        else:
            inputs = features
        return inputs.contiguous(memory_format=self._format) if inputs.dim() == 4 else inputs

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all replicas, if there are several."""
        if self.replicas is not None:
            self.replicas.add_up(parameters)

    def part(self) -> None:
        """Tell the replicas, if there are several, that this one has ended."""
        if self.replicas is not None:
            self.replicas.part()

    def _own_rows(self, whole: Tensor) -> Tensor:
        return whole if self.replicas is None else self.replicas.rows(whole)
