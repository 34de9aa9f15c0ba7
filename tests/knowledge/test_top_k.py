"""Are the largest probabilities kept, do the others share the rest, and is what is lost told?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.errors import RecipeError
from tests.knowledge.stores import CLASSES, WEIGHT, ids, probabilities, store_of


def test_the_largest_are_kept_and_the_others_share_the_rest() -> None:
    store = store_of(classes=4, top_k=2, averaging_weight=0.5)
    store.remember(0, ids(0), torch.tensor([[0.5, 0.0625, 0.25, 0.1875]]))
    assert store.recall(0, ids(0)).tolist() == [[0.5, 0.125, 0.25, 0.125]]
    assert store.take_lost_mass() == pytest.approx(0.0625)
    assert store.take_lost_mass() is None
    store.remember(0, ids(0), torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    # The mean is (0.25, 0.0625, 0.125, 0.5625): classes 0 and 3 stay, 1 and 2 share 0.1875.
    assert store.recall(0, ids(0)).tolist() == [[0.25, 0.09375, 0.09375, 0.5625]]
    assert store.take_lost_mass() == pytest.approx(0.03125)


@pytest.mark.parametrize("top_k", [1, 7, 39])
def test_the_largest_follow_a_plain_reference(top_k: int) -> None:
    store = store_of(images=5, classes=40, top_k=top_k)
    dense: np.ndarray | None = None
    for step in range(4):
        values = probabilities(step, rows=5, classes=40)
        store.remember(1, np.arange(5), values)
        fresh = values.numpy().astype(np.float64)
        mean = fresh if dense is None else WEIGHT * fresh + (1 - WEIGHT) * dense
        order = np.argsort(-mean, axis=1)
        dense = mean.copy()
        np.put_along_axis(dense, order[:, top_k:], 0, axis=1)
        rest = (1 - dense.sum(axis=1, keepdims=True)) / (40 - top_k)
        np.put_along_axis(dense, order[:, top_k:], np.repeat(rest, 40 - top_k, axis=1), axis=1)
        torch.testing.assert_close(store.recall(1, np.arange(5)).double(), torch.from_numpy(dense), atol=1e-3, rtol=0)
        assert store.take_lost_mass() == pytest.approx(0.5 * np.abs(mean - dense).sum(axis=1).mean(), abs=1e-3)


def test_nothing_is_lost_where_all_is_stored() -> None:
    store = store_of()
    store.remember(0, ids(0), probabilities(rows=1))
    assert store.take_lost_mass() is None


@pytest.mark.parametrize("top_k", [0, CLASSES])
def test_top_k_has_to_leave_something_out(top_k: int) -> None:
    with pytest.raises(RecipeError, match=f"method.top_k={top_k}.*1 to {CLASSES - 1}"):
        store_of(top_k=top_k)


def test_top_k_of_logits_is_refused() -> None:
    with pytest.raises(RecipeError, match="method.top_k=2"):
        store_of(top_k=2, content="logits")
