"""Does any text in the place of a recipe, or of a change of one, end with a recipe or with one clear error?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.recipes import Plan, Recipe, apply_overrides, load_recipe, recipe_to_dict

pytestmark = pytest.mark.slow

START = load_recipe("infopro_digits")
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _paths(values: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [prefix] if prefix else []
    if isinstance(values, dict):
        for name, value in values.items():
            found += _paths(value, (*prefix, name))
    return found


PATHS = _paths(recipe_to_dict(START))


def _outcome(action: Any) -> None:
    """Run what must end with a recipe, or with an error that is shown without a traceback."""
    told = "a recipe"
    try:
        assert isinstance(action(), Recipe)
    except InputError as error:
        told = str(error)
    assert told.encode("utf-8", "backslashreplace").strip()


@seed(20)
@FUZZ
@given(field=st.sampled_from([".".join(path) for path in PATHS]) | st.text(max_size=12), value=st.text(max_size=24))
@example(field="epochs", value="9" * 5000)
@example(field="optimizer.learning_rate", value="1e999")
@example(field="backbone.widths", value="[" * 5000)
@example(field="name", value="\ud800")
@example(field="data.root", value="\0")
def test_any_override(field: str, value: str) -> None:
    _outcome(lambda: apply_overrides(START, Plan(), [f"{field}={value}"])[0])


@seed(20)
@FUZZ
@given(path=st.sampled_from(PATHS), value=JSON)
def test_any_value_in_a_recipe_file(
    path: tuple[str, ...], value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values: Any = json.loads(json.dumps(recipe_to_dict(START)))
    inner = values
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(values))
    _outcome(lambda: load_recipe(file))


@seed(20)
@FUZZ
@given(content=st.binary(max_size=64) | JSON.map(lambda values: json.dumps(values).encode()))
@example(content=b"[" * 200_000)
@example(content=b'{"a": "\\ud800"}')
@example(content=b'{"name": "\\u0000"}')
@example(content=b"\xef\xbb\xbf{}")
@example(content=b"9" * 5000)
def test_any_bytes_in_the_place_of_a_recipe_file(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(content)
    _outcome(lambda: load_recipe(Path(file)))
