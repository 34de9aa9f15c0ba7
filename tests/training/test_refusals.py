"""What is refused before anything is trained or written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import engine
from engine.recipes import Plan, Recipe
from engine.training.preview import preview

PROCESS = Plan(executor="process")


def test_a_set_that_is_read_from_a_folder_needs_one(tmp_path: Path) -> None:
    recipe = engine.load_recipe("infopro_cifar10_resnet32")
    with pytest.raises(engine.RecipeError, match=r"data\.root is missing: cifar10 .*data\.root=DIR"):
        engine.train(recipe, PROCESS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_left_over_batch_of_one_image(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe(data={"batch_size": 43})
    for refused in (lambda: engine.train(recipe, PROCESS, tmp_path / "run"), lambda: preview(recipe, tmp_path / "run")):
        with pytest.raises(engine.RecipeError, match=r"data\.batch_size=43 leaves a batch of 1 of the 44"):
            refused()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_recipe(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = tiny_recipe()
    engine.train(recipe, PROCESS, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    other = dataclasses.replace(recipe, seed=recipe.seed + 1)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(engine.recipes.recipe_to_dict(other)))
    with pytest.raises(engine.RunError, match="belongs to another recipe"):
        engine.train(other, PROCESS, tmp_path / "run")


def test_a_run_is_scored_where_its_device_is_missing(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Whatever is compiled here fails.
    monkeypatch.setattr(torch, "compile", None)
    result = engine.train(tiny_recipe(), PROCESS, tmp_path / "run")
    run = engine.load(result.run_dir)
    elsewhere = dataclasses.replace(run.recipe.numerics, device="cuda", precision="float16", compile=True)
    scores = engine.evaluate(dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, numerics=elsewhere)))
    assert scores["test/accuracy"] == result.test_score


def test_two_runs_are_compared_without_a_look_at_their_tensors(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    engine.train(tiny_recipe(epochs=1), PROCESS, tmp_path / "run")
    run = engine.load(tmp_path / "run")
    assert run in [run]
    assert run not in [engine.load(tmp_path / "run")]
