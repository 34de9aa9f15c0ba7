"""A member of a team that holds a part of the group knowledge, so that several can reach it and no learner has to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from engine.checkpoints import KNOWLEDGE_FOLLOWS, LearnerState
from engine.data import Batch
from engine.knowledge import KnowledgeStore
from engine.learners.member import PhaseFunction, UntrainedMember


class KnowledgeServer(UntrainedMember):
    """Holds what is known of the images whose index is ``part`` modulo ``parts``.

    Args:
        name: unique in its team.
        store: with room for these images, one behind the other.
        images: training images of all parts.
        part: from 0 to ``parts - 1``.
        parts: how many servers share the images.
        device: of its actor; the store itself is always on the CPU.
    """

    def __init__(
        self, name: str, store: KnowledgeStore, images: int, part: int, parts: int, device: torch.device
    ) -> None:
        super().__init__(name, device)
        self._store, self._images, self._part, self._parts = store, images, part, parts
        self._steps = 0
        self._known_at: int | None = None

    @property
    def phases(self) -> Mapping[str, PhaseFunction]:
        """What it can do, by name."""
        return {"recall": self.recall, "remember": self.remember}

    def recall(self, batch: Batch, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Give what every group knows of the batch's images, float32 [groups, B, classes]; NaN elsewhere."""
        (own,) = np.nonzero(batch.indices % self._parts == self._part)
        shape = (self._store.groups, len(batch.indices), self._store.classes)
        found = torch.full(shape, torch.nan)
        for group in range(self._store.groups):
            found[group, torch.from_numpy(own)] = self._store.recall(group, batch.indices[own] // self._parts)
        return (found,)

    def remember(self, batch: Batch | None, messages: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Take up new predictions of its images.

        Args:
            batch: not needed.
            messages: in this order predictions [E, classes], their weights [E], and as int64 [E] for each
                group * images + index.
        """
        values, weights, rows = messages.values()
        groups, indices = rows // self._images, rows % self._images
        for group in range(self._store.groups):
            (own,) = torch.nonzero((groups == group) & (indices % self._parts == self._part), as_tuple=True)
            if len(own):
                places = (indices[own] // self._parts).numpy()
                self._store.remember(group, places, values[own], weights[own])
        self._steps += 1
        return ()

    def ask_memory(self) -> dict[str, int]:
        """Return bytes by purpose; as `Learner.ask_memory`."""
        return {"knowledge": self._store.bytes, "total": self._store.bytes}

    def ask_state(self) -> LearnerState:
        """Return the rows that changed since the last question."""
        extra = {"steps": self._steps, KNOWLEDGE_FOLLOWS: self._known_at}
        self._known_at = self._steps
        return LearnerState({}, extra, self._store.changes())

    def restore(self, state: LearnerState) -> None:
        """Take up the rows of a checkpoint; raises RunError if they are not this store's."""
        if state.knowledge:
            self._store.load(state.knowledge)
        self._steps = self._known_at = state.extra["steps"]
