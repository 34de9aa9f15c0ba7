"""Can a recipe name a task, of the engine's or of one's own, and does one that names none stay what it was?"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import RecipeError
from engine.recipes import (
    Backbone,
    Classification,
    Data,
    EndToEnd,
    OwnTask,
    Plan,
    Recipe,
    Retrieval,
    apply_overrides,
    recipe_from_dict,
    recipe_identity,
    recipe_to_dict,
    weights_identity,
    with_absolute_paths,
)

START = Recipe(name="start", method=EndToEnd(), backbone=Backbone(name="resnet8"), data=Data(name="digits"))
# Of the version before there was a choice of tasks.
IDENTITY = "57e9ea88bcbb46e63371fe2a77d71a0067acd5d8d4488b14996c4dec7066b410"


def test_classification_is_meant_unless_another_is_named_and_changes_no_identity() -> None:
    assert START.task == Classification()
    assert recipe_to_dict(START)["task"] == {"kind": "classification"}
    assert recipe_identity(START) == IDENTITY
    values = recipe_to_dict(START)
    for task in ({"kind": "classification"}, {}):
        assert recipe_from_dict({**values, "task": task}) == START
    del values["task"]
    assert recipe_from_dict(values) == START


def test_labels_are_smoothed_only_where_a_recipe_says_so() -> None:
    for word in ("task.label_smoothing=0", "task.label_smoothing=0.0", "task.label_smoothing=null"):
        recipe, _ = apply_overrides(START, Plan(), [word])
        assert recipe == START
        assert recipe_identity(recipe) == IDENTITY
    smoothed, _ = apply_overrides(START, Plan(), ["task.label_smoothing=0.1"])
    assert smoothed.task == Classification(label_smoothing=0.1)
    assert recipe_to_dict(smoothed)["task"] == {"kind": "classification", "label_smoothing": 0.1}
    assert recipe_from_dict(recipe_to_dict(smoothed)) == smoothed
    assert recipe_identity(smoothed) != IDENTITY != weights_identity(smoothed)
    found, _ = apply_overrides(smoothed, Plan(), ["task.kind=retrieval"])
    assert found.task == Retrieval(label_smoothing=0.1)
    assert apply_overrides(found, Plan(), ["task.kind=classification"])[0] == smoothed
    plain, _ = apply_overrides(START, Plan(), ["task.kind=retrieval"])
    assert apply_overrides(plain, Plan(), ["task.kind=classification"])[0] == START


def test_a_task_of_ones_own_is_named_by_file_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["task.kind=mine.py:Regression", 'task.options={"scale": 2.5}']
    recipe, _ = apply_overrides(START, Plan(), words)
    assert recipe.task == OwnTask(kind="mine.py:Regression", options={"scale": 2.5})
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe
    assert recipe_identity(recipe) != recipe_identity(START)
    monkeypatch.chdir(tmp_path)
    absolute = with_absolute_paths(recipe)
    assert absolute.task == OwnTask(kind=f"{tmp_path}/mine.py:Regression", options={"scale": 2.5})
    back, _ = apply_overrides(absolute, Plan(), ["task.kind=classification"])
    assert back == START


def test_options_of_a_task_of_ones_own_are_given_one_by_one_and_kept() -> None:
    recipe, _ = apply_overrides(START, Plan(), ["task.kind=mine.py:Regression", "task.options.scale=2"])
    assert recipe.task == OwnTask(kind="mine.py:Regression", options={"scale": 2})
    moved, _ = apply_overrides(recipe, Plan(), ["task.kind=moved/mine.py:Regression", "task.options.shift=1"])
    assert moved.task == OwnTask(kind="moved/mine.py:Regression", options={"scale": 2, "shift": 1})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("task.kind=clasification", "task.kind: found 'clasification'; did you mean 'classification'?"),
        ("task.kind=matching", "task.kind: found 'matching'; there is classification, path/to/file.py:Name, retrieval"),
        ("task.kind=mine.py", "task.kind: found 'mine.py'"),
        ("task.kind=mine.py:", "task.kind: found 'mine.py:'"),
        ("task=classification", "task=classification: expected task.kind=classification"),
        ("task.options.a=1", "task.options.a: there is no such field"),
        ("task.label_smoothing=1", "task.label_smoothing: found 1; input should be less than 1"),
        ("task.label_smoothing=-0.1", "task.label_smoothing: found -0.1; input should be greater than or equal to 0"),
    ],
)
def test_what_is_no_task_is_refused_by_name(word: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_overrides(START, Plan(), [word])
    assert str(caught.value).startswith(message)


def test_every_task_of_ones_own_has_a_file_and_a_name() -> None:
    with pytest.raises(RecipeError):
        OwnTask(kind="classification")
