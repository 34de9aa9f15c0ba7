"""Do options of one's own stay what they were given as, and does a recipe take numbers from NumPy?"""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.recipes import Backbone, Numerics, OwnTask, Plan, recipe_from_dict, recipe_to_dict

SETTINGS: dict[str, Any] = {
    "backbone": lambda options: Backbone(name="net.py:net", options=options),
    "task": lambda options: OwnTask(kind="task.py:Own", options=options),
}


class Sort(IntEnum):
    """A number that is not only a number."""

    ONE = 1


@pytest.mark.parametrize("which", SETTINGS)
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (8, 8),
        (8.0, 8.0),
        (True, True),
        ("8", "8"),
        (np.int64(8), 8),
        (np.uint8(8), 8),
        (np.bool_(True), True),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.str_("a"), "a"),
        (np.array([1, 2]), (1, 2)),
        (np.array([0.5, 2.0]), (0.5, 2.0)),
        (np.array([True, False]), (True, False)),
        (np.array(3), 3),
        ([1.0, True, "a", 2], (1.0, True, "a", 2)),
        ([np.int64(1), np.float64(2.0)], (1, 2.0)),
        ((), ()),
    ],
    ids=repr,
)
def test_an_option_keeps_its_type(which: str, given: Any, kept: Any) -> None:
    found = SETTINGS[which]({"x": given}).options["x"]
    assert found == kept
    assert type(found) is type(kept)
    if isinstance(kept, tuple):
        assert [type(part) for part in found] == [type(part) for part in kept]


@pytest.mark.parametrize("which", SETTINGS)
@pytest.mark.parametrize(
    "given",
    [None, b"a", Decimal(1), Path("a"), {"a": 1}, {1}, Sort.ONE, [[1]], np.array([[1, 2]]), np.longdouble(1), 1j],
    ids=repr,
)
def test_what_would_have_to_be_changed_is_refused(which: str, given: Any) -> None:
    with pytest.raises(engine.RecipeError, match=r"options\.x: found .* expected true, false, a number, a text, or a"):
        SETTINGS[which]({"x": given})


def test_options_come_back_from_a_file_as_they_were() -> None:
    words = ["backbone.name=net.py:net", "backbone.widths=null", 'backbone.options={"a": [1.0, true], "b": false}']
    recipe, _ = engine.apply_overrides(engine.load_recipe("end_to_end_digits"), Plan(), words)
    again = recipe_from_dict(recipe_to_dict(recipe))
    assert [type(part) for part in again.backbone.options["a"]] == [float, bool]  # type: ignore[union-attr]
    assert again.backbone.options["b"] is False


def test_blocks_of_a_group_may_be_counted_by_numpy() -> None:
    recompute: Any = np.int64(4)
    assert Numerics(recompute=recompute) == Numerics(recompute=4)
    assert type(Numerics(recompute=recompute).recompute) is int
