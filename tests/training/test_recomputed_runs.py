"""Does a run go on, bit for bit, with another choice of what is kept for the backward pass?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import engine
from engine.recipes import InfoPro, Numerics, Recipe, recipe_identity


def test_a_run_goes_on_with_blocks_that_are_run_again(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, interrupt_at: Callable[[int], None]
) -> None:
    recipe = tiny_recipe(method=InfoPro(num_segments=2, cuts="balanced_layers"))
    again = dataclasses.replace(recipe, numerics=Numerics(recompute="blocks"))
    assert recipe_identity(again) == recipe_identity(recipe)
    plan = engine.Plan(executor="process", report_every_steps=3)
    interrupt_at(3)
    assert engine.train(recipe, plan, tmp_path / "stopped").status == "interrupted"
    interrupt_at(0)
    resumed = engine.train(again, plan, tmp_path / "stopped")
    straight = engine.train(recipe, plan, tmp_path / "straight")
    assert resumed.weights_sha256 == straight.weights_sha256
    assert resumed.test_score == straight.test_score
    runs = [engine.load(tmp_path / name) for name in ("stopped", "straight")]
    kept = [run.checkpoint.states["segment0"].extra["memory"]["bytes"]["saved_activations"] for run in runs]
    assert kept[0] < 0.8 * kept[1]
    # What is on the disk says how the run went on.
    assert engine.load(tmp_path / "stopped").recipe.numerics.recompute == "blocks"
