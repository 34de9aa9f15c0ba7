"""Are words that no field can hold refused in one line each, whatever they are?"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import engine
from engine.recipes import Plan, Recipe
from engine.recipes.problems import field_names
from engine.recipes.recipe import recipe_to_dict

LONG = "1" * 5000


def start(name: str = "dml_digits") -> Recipe:
    return engine.load_recipe(name)


def refusal(*words: str) -> str:
    with pytest.raises(engine.RecipeError) as refused:
        engine.apply_overrides(start("infopro_digits"), Plan(), words)
    return str(refused.value)


@pytest.mark.parametrize("field", ["epochs", "optimizer.learning_rate", "data.image_size", "plan.window"])
def test_an_integer_of_more_digits_than_python_converts(field: str) -> None:
    said = refusal(f"{field}={LONG}")
    assert field in said
    assert len(said) < 1000


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.root=a\0b", "the character NUL"),
        ('backbone.options={"a": "\\u0000"}', "the character NUL"),
        ("data.root=a\ud800", "half of a character"),
        ('backbone.options={"a": "\\ud800"}', "half of a character"),
        ("backbone.options=" + '{"a":' * 80 + "1" + "}" * 80, "nested more than 64 deep"),
        ("method.cuts=" + "[" * 80 + "]" * 80, "nested more than 64 deep"),
        ("epochs=" + "[" * 100_000, "100,0"),
        (f"{'x' * 100_000}=1", "there is no such field"),
        ("epochs=100000000000000000000", "epochs"),
    ],
)
def test_what_is_no_value(word: str, said: str) -> None:
    assert said in refusal(word)


def test_a_name_that_is_no_utf8_is_a_name() -> None:
    changed, _ = engine.apply_overrides(start("infopro_digits"), Plan(), ["data.root=caf\udce9"])
    assert changed.data.root == "caf\udce9"


NAMES = [
    *field_names(Recipe, recipe_to_dict(start())),
    *field_names(Plan, {}, "plan."),
    *(f"{part}.kind" for part in ("method", "optimizer", "schedule", "method.peer_method", "method.branches")),
]
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["null", "true", "[]", "{}", "[[]]", "NaN", "-Infinity", "1e999", "1,2", "0", "-1", LONG, "~", "a,b"]
    ),
    st.sampled_from(
        ["dml", "dsn", "infopro", "adamw", "cosine", "gkt", '{"kind": "dhm"}', '[{"kind": 3}]', '{"": {}}']
    ),
    st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=6).map(
        repr
    ),
)


@pytest.mark.slow
@seed(20)
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), VALUES).map("=".join), max_size=3))
def test_any_words_give_a_recipe_or_one_error(words: list[str]) -> None:
    # Whatever else is raised fails the test.
    with contextlib.suppress(engine.RecipeError):
        recipe, plan = engine.apply_overrides(start(), Plan(), words)
        assert isinstance(recipe, Recipe)
        assert isinstance(plan, Plan)
