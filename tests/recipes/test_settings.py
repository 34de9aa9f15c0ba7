"""Are values given in Python refused in the words of the engine, and paths taken as they come?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.recipes import DML, GKT, Backbone, Data, Distillation, Peer, Plan, Recipe, Recovery

START = engine.load_recipe("infopro_digits")


@pytest.mark.parametrize(
    ("cls", "fields", "line"),
    [
        (Plan, {"executor": "proces"}, "Plan: executor: found 'proces', .*; did you mean 'process'"),
        (Plan, {"windw": 2}, "Plan: windw: there is no such field; did you mean 'window'"),
        (Plan, {"recovery": {"max_failures": -2}}, "Plan: recovery.max_failures: found -2"),
        (Recovery, {"wait_seconds": 0}, "Recovery: wait_seconds: found 0"),
    ],
)
def test_a_wrong_plan(cls: Any, fields: dict[str, Any], line: str) -> None:
    with pytest.raises(engine.PlanError, match=f"^{line}"):
        cls(**fields)


@pytest.mark.parametrize(
    ("cls", "fields", "line"),
    [
        (Data, {"name": "digits", "root": 3}, "Data: root: found 3"),
        (DML, {"peers": ({"seed": -1}, {})}, "DML: peers.0.seed: found -1"),
        (Backbone, {"name": "resnet32", "weights_without": "classifier"}, "Backbone: weights_without says what"),
        (Recipe, {}, "Recipe: name: is missing, and has no default"),
    ],
)
def test_a_wrong_part_of_a_recipe(cls: Any, fields: dict[str, Any], line: str) -> None:
    with pytest.raises(engine.RecipeError, match=f"^{line}"):
        cls(**fields)


@pytest.mark.parametrize(
    ("changes", "line"),
    [({"epochs": 0}, "Recipe: epochs: found 0"), ({"epoch": 3}, "Recipe: epoch: there is no such field; did you")],
)
def test_a_recipe_is_checked_anew_where_it_is_changed(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(engine.RecipeError, match=f"^{line}"):
        dataclasses.replace(START, **changes)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(engine.RecipeError) as caught:
        Data(name="digits", batch_size=0, rot="x")  # type: ignore[call-arg]
    first, second = str(caught.value).splitlines()
    assert first.startswith("Data: batch_size: found 0")
    assert second.startswith("Data: rot: there is no such field")


def test_wrong_values_that_a_file_gives_at_its_top_are_named_with_it(tmp_path: Path) -> None:
    """The recipe is being checked while the file is run: neither is taken for the other."""
    (tmp_path / "own.py").write_text("from engine.recipes import Data\n\nDATA = Data(name='digits', batch_size=0)\n")
    with pytest.raises(engine.RecipeError) as caught:
        engine.apply_overrides(START, Plan(), [f"method.kind={tmp_path}/own.py:Own"])
    assert f"{tmp_path}/own.py cannot be imported: RecipeError: Data: batch_size: found 0" in str(caught.value)


def test_several_wrong_values_in_a_file_have_their_line_each(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from engine.recipes import Data\n\nDATA = Data(name='digits', batch_size=0, rot='x')\n")
    with pytest.raises(engine.RecipeError) as caught:
        engine.load_recipe(path)
    assert [line.split(": ")[:3] for line in str(caught.value).splitlines()] == [
        [f"{path}:3", "Data", "batch_size"],
        [f"{path}:3", "Data", "rot"],
    ]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda path: Data(name="digits", root=path), "root"),
        (lambda path: Data(name="digits", labelled_indices=path), "labelled_indices"),
        (lambda path: Backbone(name="resnet32", weights=path), "weights"),
        (lambda path: Peer(backbone=Backbone(name="resnet32", weights=path)).backbone, "weights"),
        (lambda path: Distillation(teacher=path), "teacher"),
        (lambda path: GKT(knowledge_folder=path), "knowledge_folder"),
        (lambda path: Plan(mirror=path), "mirror"),
    ],
)
def test_a_path_is_kept_as_text(make: Callable[[Path], Any], field: str) -> None:
    assert getattr(make(Path("/some/1.10")), field) == "/some/1.10"
    assert type(getattr(make(Path("/some/1.10")), field)) is str


def test_a_word_for_a_path_stays_text() -> None:
    recipe, plan = engine.apply_overrides(START, Plan(), ["data.root=1.10", "plan.mirror=20"])
    assert (recipe.data.root, plan.mirror) == ("1.10", "20")


def test_a_settings_class_is_called_as_before() -> None:
    assert dataclasses.replace(START, epochs=3).epochs == 3
    assert dataclasses.replace(START) == START
