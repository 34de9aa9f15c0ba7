"""Remote store: group knowledge that other members of the team keep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from engine.data import on_device


class RemoteStore:
    """Stands in for a `KnowledgeStore` during one step: recalls from messages, and collects what to remember.

    Args:
        images: training images.
        groups: of the stores.
        entries: E, the most predictions that a step remembers.
        classes: of the predictions.
    """

    bytes = 0

    def __init__(self, images: int, groups: int, entries: int, classes: int) -> None:
        self._images, self.groups, self._entries, self._classes = images, groups, entries, classes
        self._collected: list[tuple[Tensor, Tensor, Tensor]] = []

    def hear(self, indices: np.ndarray, messages: Mapping[str, Tensor]) -> None:
        """Take up what the servers know, float32 [groups, B, classes] each, of the images of this step, int64 [B]."""
        first, *others = messages.values()
        for other in others:
            # Every image has one server; the others give NaN.
            first = torch.where(first.isnan(), other, first)
        self._found = first
        order = np.argsort(indices, kind="stable")
        self._sorted, self._order = indices[order], order

    def recall(self, group: int, indices: np.ndarray) -> Tensor:
        """Return what is known of images of this step; as `KnowledgeStore.recall`."""
        rows = self._order[np.searchsorted(self._sorted, indices)]
        return self._found[group][on_device(rows, self._found.device)]

    def remember(self, group: int, indices: np.ndarray, values: Tensor, weights: Tensor | None = None) -> None:
        """Collect predictions for the servers; as `KnowledgeStore.remember`."""
        rows = torch.from_numpy(group * self._images + indices)
        weights = torch.ones(len(rows)) if weights is None else weights
        self._collected.append((values.float().cpu(), weights.float().cpu(), rows))

    def collected(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return predictions [E, classes], weights [E] and rows [E] of this step; the rest of E has weight 0."""
        empty = (torch.zeros(0, self._classes), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        values, weights, rows = (torch.cat(parts) for parts in zip(empty, *self._collected, strict=True))
        self._collected = []
        missing = self._entries - len(rows)
        pad = torch.nn.functional.pad
        return pad(values, (0, 0, 0, missing)), pad(weights, (0, missing)), pad(rows, (0, missing))
