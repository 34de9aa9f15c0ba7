"""Is a batch a pure function of (seed, epoch, step), and does an epoch hold every image once?"""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest

from engine.data import Facts, Source, open_source
from engine.data.ahead import DEPTH, LookAhead
from engine.errors import DataError
from engine.recipes.data import Data


def digits(seed: int = 0, **fields: Any) -> Source:
    return open_source(Data(name="digits", **({"batch_size": 64} | fields)), seed=seed)


def test_an_epoch_holds_every_image_once_and_keeps_the_rest() -> None:
    source = digits(batch_size=499)
    assert source.steps_per_epoch() == 2
    batches = [source.batch(4, step) for step in range(2)]
    assert [len(batch.labels) for batch in batches] == [499, 1]
    np.testing.assert_array_equal(np.sort(np.concatenate([b.indices for b in batches])), np.arange(500))
    assert [(b.split, b.epoch, b.step) for b in batches] == [("train", 4, 0), ("train", 4, 1)]


def test_types_and_identity() -> None:
    source = digits()
    batch = source.batch(0, 3)
    assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (np.uint8, np.int64, np.int64)
    assert batch.images.shape == (64, 1, 8, 8)
    whole = np.concatenate([b.images for b in source.evaluation_batches("train")])
    labels = np.concatenate([b.labels for b in source.evaluation_batches("train")])
    np.testing.assert_array_equal(batch.images, whole[batch.indices])
    np.testing.assert_array_equal(batch.labels, labels[batch.indices])


def test_a_resumed_run_sees_the_same_batches() -> None:
    first = digits()
    walked = {(epoch, step): first.batch(epoch, step) for epoch in range(3) for step in range(first.steps_per_epoch())}
    resumed = digits()
    for place in ((2, 5), (1, 0), (2, 6), (0, 7)):
        np.testing.assert_array_equal(resumed.batch(*place).images, walked[place].images)
        np.testing.assert_array_equal(resumed.batch(*place).indices, walked[place].indices)
    assert (digits(seed=1).batch(0, 0).indices != walked[0, 0].indices).any()
    assert (walked[0, 0].indices != walked[1, 0].indices).any()


def test_subsets_keep_the_identity_of_their_images() -> None:
    whole, small = digits(), digits(train_limit=100, test_limit=50, validation_fraction=0.2)
    assert small.facts.sizes == {"train": 100, "validation": 100, "test": 50}
    images = np.concatenate([b.images for b in whole.evaluation_batches("train")])
    batch = small.batch(0, 0)
    np.testing.assert_array_equal(batch.images, images[batch.indices])
    assert batch.indices.max() >= 100
    held_out = np.concatenate([b.indices for b in small.evaluation_batches("validation")])
    for validation in small.evaluation_batches("validation"):
        np.testing.assert_array_equal(validation.images, images[validation.indices])
    trained = np.concatenate([small.batch(0, step).indices for step in range(small.steps_per_epoch())])
    assert not set(held_out) & set(trained)


def test_evaluation_is_in_order_and_its_batch_size_changes_nothing() -> None:
    small, large = digits(evaluation_batch_size=100), digits(evaluation_batch_size=2000)
    batches = list(small.evaluation_batches("test"))
    assert [b.step for b in batches] == list(range(13))
    assert {b.epoch for b in batches} == {0}
    np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), np.arange(1297))
    (whole,) = large.evaluation_batches("test")
    np.testing.assert_array_equal(np.concatenate([b.images for b in batches]), whole.images)


def test_fingerprint_names_images_and_split_but_not_the_seed() -> None:
    assert digits(seed=0).facts.fingerprint == digits(seed=1, batch_size=32).facts.fingerprint
    different = [digits(), digits(train_limit=100), digits(train_limit=100, subset_seed=1), digits(test_limit=100)]
    assert len({source.facts.fingerprint for source in different}) == 4


def test_facts_survive_json() -> None:
    facts = digits(validation_fraction=0.1).facts
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_given_normalisation() -> None:
    assert digits(mean=(0.25,), std=(0.5,)).facts.mean == (0.25,)
    with pytest.raises(DataError, match=r"data.mean has 3 values, but the images of digits have 1 channels"):
        digits(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))


def test_wrong_requests() -> None:
    source = digits()
    with pytest.raises(IndexError, match="epoch 0, step 8: an epoch has the steps 0 to 7"):
        source.batch(0, 8)
    with pytest.raises(DataError, match=r"no validation split, found train, test.*data.validation_fraction"):
        next(source.evaluation_batches("validation"))
    with pytest.raises(DataError, match=r"data.num_classes=7, but digits has 10 classes"):
        digits(num_classes=7)


def test_look_ahead_is_bounded_and_correct_in_any_order() -> None:
    made: list[tuple[int, int]] = []
    lock = threading.Lock()

    def make(place: tuple[int, int]) -> str:
        with lock:
            made.append(place)
        return f"{place[0]}:{place[1]}"

    ahead = LookAhead(make, lambda place: (place[0], place[1] + 1) if place[1] < 2 else (place[0] + 1, 0))
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (0, 1), (5, 2), (6, 0), (6, 0)]
    assert [ahead.take(place) for place in places] == [f"{epoch}:{step}" for epoch, step in places]
    ahead.close()
    jumps = 4  # the beginning, two jumps, and one place twice
    assert len(made) <= len(places) + jumps * DEPTH
