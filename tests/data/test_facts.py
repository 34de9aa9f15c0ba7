"""Are facts that were stored the same when they are read, also those of earlier versions, and checked?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.data import Facts, open_source
from engine.errors import DataError
from engine.recipes.data import Data


@pytest.fixture(scope="module")
def facts() -> Facts:
    return open_source(Data(name="digits", batch_size=50, train_limit=100), seed=0).facts


def stored(facts: Facts) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(facts.to_json()))
    return values


def test_what_was_stored_is_read(facts: Facts) -> None:
    assert Facts.from_json(stored(facts)) == facts


def test_facts_of_earlier_versions(facts: Facts) -> None:
    values = stored(facts)
    del values["labelled_images"], values["training_positions"]
    assert Facts.from_json(values).labelled_images == 100
    assert Facts.from_json(values).training_positions == 100


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"num_classes": "ten"},
        {"num_classes": 11},
        {"class_names": ["0"]},
        {"class_names": 3},
        {"image_shape": [1, 8]},
        {"image_shape": [1, 0, 8]},
        {"mean": [0.5, 0.5]},
        {"std": ["\ud800"]},
        {"sizes": {}},
        {"sizes": {"train": None}},
        {"fingerprint": []},
    ],
)
def test_facts_that_are_none(facts: Facts, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="what is kept of the images' facts"):
        Facts.from_json(stored(facts) | change)


@pytest.mark.parametrize("values", [None, [], {}, 3, "text"])
def test_values_that_are_no_facts(values: Any) -> None:
    with pytest.raises(DataError, match="what is kept of the images' facts: is not what was expected"):
        Facts.from_json(values)
