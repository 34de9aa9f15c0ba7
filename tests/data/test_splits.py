"""Are subsets stratified, disjoint, seeded by subset_seed alone, and refused when they cannot be drawn?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.splits import choose, epoch_order
from engine.errors import DataError
from engine.recipes.data import Data


def recipe(**fields: Any) -> Data:
    return Data(name="synthetic", **({"num_classes": 10, "batch_size": 1} | fields))


def balanced(train: int = 200, test: int = 50) -> dict[str, np.ndarray]:
    return {"train": np.arange(train) % 10, "test": np.arange(test) % 10}


def test_everything_by_default() -> None:
    chosen = choose(recipe(), balanced(), 10)
    np.testing.assert_array_equal(chosen["train"], np.arange(200))
    np.testing.assert_array_equal(chosen["test"], np.arange(50))
    assert set(chosen) == {"train", "test"}


def test_subsets_are_stratified_disjoint_and_ascending() -> None:
    labels = balanced()
    chosen = choose(recipe(train_limit=60, test_limit=20, validation_fraction=0.25), labels, 10)
    assert np.bincount(labels["train"][chosen["train"]]).tolist() == [6] * 10
    assert np.bincount(labels["train"][chosen["validation"]]).tolist() == [5] * 10
    assert np.bincount(labels["test"][chosen["test"]]).tolist() == [2] * 10
    assert not set(chosen["train"]) & set(chosen["validation"])
    for positions in chosen.values():
        assert (np.diff(positions) > 0).all()
        assert positions.dtype == np.int64


def test_validation_does_not_depend_on_the_limit() -> None:
    whole = choose(recipe(validation_fraction=0.2), balanced(), 10)
    small = choose(recipe(validation_fraction=0.2, train_limit=30), balanced(), 10)
    np.testing.assert_array_equal(whole["validation"], small["validation"])
    assert set(small["train"]) < set(whole["train"])
    np.testing.assert_array_equal(np.sort(np.concatenate([whole["train"], whole["validation"]])), np.arange(200))


def test_subset_seed_decides() -> None:
    first, again, other = (choose(recipe(train_limit=60, subset_seed=s), balanced(), 10) for s in (3, 3, 4))
    np.testing.assert_array_equal(first["train"], again["train"])
    assert (first["train"] != other["train"]).any()


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(1, 40), min_size=2, max_size=8), part=st.floats(0, 1), seed=st.integers(0, 5))
def test_shares_are_within_one_of_proportion(counts: list[int], part: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    limit = len(counts) + round(part * (len(labels) - len(counts)))
    data = recipe(num_classes=len(counts), train_limit=limit, subset_seed=seed)
    chosen = choose(data, {"train": labels, "test": labels}, len(counts))["train"]
    found = np.bincount(labels[chosen], minlength=len(counts))
    assert found.sum() == limit
    assert (found >= 1).all()
    assert (found <= counts).all()
    spare = np.array(counts) - 1
    expected = 1 + (limit - len(counts)) * spare / max(1, spare.sum())
    assert (np.abs(found - expected) < 1).all()


def test_a_rare_class_is_in_every_subset() -> None:
    labels = np.array([0] * 97 + [1] * 3)
    split = {"train": labels, "test": labels}
    chosen = choose(recipe(num_classes=2, train_limit=4, validation_fraction=0.5), split, 2)
    assert set(labels[chosen["train"]]) == {0, 1}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"train_limit": 201}, "data.train_limit=201, but synthetic has 200 train images: give at most"),
        ({"test_limit": 51}, "data.test_limit=51, but synthetic has 50 test images"),
        ({"train_limit": 170, "validation_fraction": 0.2}, "has 160 train images after holding out"),
        ({"train_limit": 9}, "data.train_limit=9 is fewer than the 10 classes"),
        ({"batch_size": 201}, "data.batch_size=201, but there are 200 training images"),
        ({"batch_size": 64, "train_limit": 60}, "data.batch_size=64, but there are 60 training images"),
        ({"validation_fraction": 0.001}, "of 200 training images is 0, expected 1 to 190"),
        ({"validation_fraction": 0.99}, "of 200 training images is 198, expected 1 to 190"),
    ],
)
def test_impossible_subsets(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        choose(recipe(**fields), balanced(), 10)


def test_fewer_images_than_classes() -> None:
    with pytest.raises(DataError, match="8 training images are fewer than the 10 classes"):
        choose(recipe(), balanced(train=8), 10)


def test_the_order_of_an_epoch() -> None:
    orders = [epoch_order(100, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(100))
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != orders[2]).any()
    np.testing.assert_array_equal(orders[0], epoch_order(100, 0, 0))
