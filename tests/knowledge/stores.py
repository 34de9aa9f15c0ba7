"""What do the tests of the knowledge store share: small stores, predictions to remember, and all that is recalled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.knowledge import KnowledgeStore
from engine.streams import generator

IMAGES, CLASSES, GROUPS, WEIGHT = 12, 6, 3, 0.25
KINDS: dict[str, dict[str, Any]] = {"all": {}, "logits": {"content": "logits"}, "largest": {"top_k": 2}}


def store_of(**settings: Any) -> KnowledgeStore:
    sizes = {"images": IMAGES, "classes": CLASSES, "groups": GROUPS, "averaging_weight": WEIGHT}
    return KnowledgeStore(**sizes | settings)


def probabilities(*key: int | str, rows: int, classes: int = CLASSES) -> Tensor:
    return (2.0 * torch.randn(rows, classes, generator=generator("probabilities", *key))).softmax(dim=1)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def everything(store: KnowledgeStore) -> Tensor:
    return torch.stack([store.recall(group, np.arange(store.images)) for group in range(store.groups)])


def identical(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and np.array_equal(first.numpy(), second.numpy(), equal_nan=True)


def fill(store: KnowledgeStore, *key: int | str, steps: int) -> Iterator[None]:
    """Remember random batches in which images repeat, and stop after each."""
    for step in range(steps):
        random = generator("fill", *key, step)
        indices = torch.randint(store.images, (7,), generator=random).numpy()
        group = int(torch.randint(store.groups, (), generator=random))
        values = torch.randn(7, store.classes, generator=random)
        values = values if store.content == "logits" else values.softmax(dim=1)
        store.remember(group, indices, values, torch.rand(7, generator=random))
        yield
