"""Do nested settings get the names that a command line gives them?"""

from __future__ import annotations

from engine.recipes.overrides import dotted_fields


def test_nested_values_get_dotted_names_and_others_stay() -> None:
    values = {"name": "a", "data": {"batch_size": 2, "augmentation": {"flip": None}}, "peers": [{"seed": 1}]}
    assert dotted_fields(values) == {
        "name": "a",
        "data.batch_size": 2,
        "data.augmentation.flip": None,
        "peers": [{"seed": 1}],
    }
