"""A keeper of a knowledge store, whose changes are saved in checkpoints, and what those hold of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.checkpoints import LearnerState, newest_checkpoint, save_checkpoint
from engine.knowledge import KnowledgeStore
from engine.streams import generator
from tests.checkpoints.small_checkpoints import COUNTERS, VALUES

IMAGES, CLASSES = 60, 4


class Keeper:
    """A store whose changes are saved as those of a learner."""

    def __init__(self, folder: Path, name: str = "network", keep: int = 9) -> None:
        self.folder, self.name, self.keep = folder, name, keep
        self.store = KnowledgeStore(IMAGES, CLASSES, groups=1, averaging_weight=0.5)
        self.follows: int | None = None

    def remember(self, step: int, *images: int) -> None:
        values = torch.rand(len(images), CLASSES, generator=generator("values", self.name, step))
        self.store.remember(0, np.array(images, dtype=np.int64), values)

    def state(self, step: int) -> LearnerState:
        state = LearnerState(
            {"body.a": torch.full((2,), float(step))}, {"steps": step, **COUNTERS}, self.store.changes()
        )
        state.extra["knowledge_follows"], self.follows = self.follows, step
        return state

    def save(self, step: int, *images: int) -> Path:
        self.remember(step, *images)
        return save_checkpoint(self.folder, step, {self.name: self.state(step)}, VALUES, self.keep)


def newest(folder: Path) -> tuple[int, Mapping[str, Tensor]]:
    found, _ = newest_checkpoint(folder)
    assert found is not None
    (state,) = found.states.values()
    return found.step, state.knowledge


def assert_restored(keeper: Keeper, rows: Mapping[str, Tensor]) -> None:
    fresh = KnowledgeStore(IMAGES, CLASSES, groups=1, averaging_weight=0.5)
    fresh.load(rows)
    one, other = (store.recall(0, np.arange(IMAGES)).numpy() for store in (fresh, keeper.store))
    assert np.array_equal(one, other, equal_nan=True)
    assert len(rows["rows"]) == keeper.store.known


def pieces(checkpoint: Path) -> dict[str, os.stat_result]:
    found = sorted(checkpoint.glob("*.knowledge-*.safetensors"))
    return {path.name.split("-")[1].removesuffix(".safetensors"): path.stat() for path in found}
