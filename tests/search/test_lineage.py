"""Is a run that began with the weights of another one trained again, bit for bit, from its lineage?"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import RunError
from engine.recipes import LWR, InfoPro, Plan, Ramp, Recipe, recipe_from_dict, recipe_identity
from engine.search import begin_from, replay
from engine.search.lineage import stages_of
from engine.training.folder import read_summary

PLAN = Plan(executor="process", evaluate_test=False)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture(params=["infopro", pytest.param("lwr", marks=pytest.mark.slow)])
def recipes(request: Any, tiny_recipe: Callable[..., Recipe]) -> list[Recipe]:
    """Three recipes of a network; the second method keeps knowledge beside its weights."""
    found = []
    for number in range(3):
        method = InfoPro(num_segments=2, reconstruction_weight=Ramp(first=1 + number, last=1.0))
        recipe = tiny_recipe(epochs=3, method=method if request.param == "infopro" else LWR())
        rate = 0.05 / (number + 1)
        found.append(dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, learning_rate=rate)))
    return found


def _chain(recipes: list[Recipe], folder: Path) -> list[engine.Result]:
    """Train four steps, copy, train until eight, copy, and train to the end."""
    first = engine.train(recipes[0], PLAN, folder / "a", until_step=4)
    begin_from(folder / "a", recipes[1], folder / "b")
    second = engine.train(recipes[1], PLAN, folder / "b", until_step=8)
    begin_from(folder / "b", recipes[2], folder / "c")
    return [first, second, engine.train(recipes[2], PLAN, folder / "c")]


def test_what_is_replayed_has_the_same_weights(recipes: list[Recipe], tmp_path: Path) -> None:
    first, second, last = _chain(recipes, tmp_path)
    assert [result.steps for result in (first, second, last)] == [4, 8, 12]
    assert [result.status for result in (first, second, last)] == ["interrupted", "interrupted", "finished"]
    stages = stages_of(tmp_path / "c")
    assert [(stage["run"], stage["step"]) for stage in stages] == [("a", 4), ("b", 8)]
    assert [stage["weights_sha256"] for stage in stages] == [first.weights_sha256, second.weights_sha256]
    assert [recipe_identity(recipe_from_dict(stage["recipe"])) for stage in stages] == [
        recipe_identity(recipe) for recipe in recipes[:2]
    ]
    again = replay(tmp_path / "c", tmp_path / "again", PLAN)
    assert again.weights_sha256 == last.weights_sha256
    assert again.metrics == last.metrics
    # The settings of all stages count: with those of the last alone something else comes out.
    alone = engine.train(recipes[2], PLAN, tmp_path / "alone")
    assert alone.weights_sha256 != last.weights_sha256


@pytest.mark.slow
def test_with_the_same_recipe_a_copy_is_the_run_going_on(recipes: list[Recipe], tmp_path: Path) -> None:
    """Optimizer, counters and knowledge come along, not the weights alone."""
    engine.train(recipes[0], PLAN, tmp_path / "a", until_step=6)
    begin_from(tmp_path / "a", recipes[0], tmp_path / "b")
    copied = engine.train(recipes[0], PLAN, tmp_path / "b")
    assert copied.weights_sha256 == engine.train(recipes[0], PLAN, tmp_path / "a").weights_sha256
    assert copied.weights_sha256 == engine.train(recipes[0], PLAN, tmp_path / "whole").weights_sha256


@pytest.mark.parametrize("recipes", ["infopro"], indirect=True)
def test_a_copied_run_is_an_ordinary_run(recipes: list[Recipe], tmp_path: Path) -> None:
    engine.train(recipes[0], PLAN, tmp_path / "a", until_step=4)
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    begin_from(tmp_path / "a", recipes[1], tmp_path / "b")
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before
    run = engine.load(tmp_path / "b")
    assert (run.recipe, run.checkpoint.step) == (recipes[1], 4)
    assert engine.evaluate(run) == engine.evaluate(engine.load(tmp_path / "a"))
    copied = json.loads((tmp_path / "b" / "lineage.json").read_text())["checkpoint"]
    manifest = (Path(copied["folder"]) / "MANIFEST.json").read_bytes()
    assert copied["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    # Again before it was trained: nothing changes. Afterwards it is a run, which is not overwritten.
    begin_from(tmp_path / "a", recipes[1], tmp_path / "b")
    assert engine.train(recipes[1], PLAN, tmp_path / "b").status == "finished"
    summary = read_summary(tmp_path / "b")
    assert summary is not None and summary["epochs"] == 3
    with pytest.raises(RunError, match="is a run of 12 steps already"):
        begin_from(tmp_path / "a", recipes[1], tmp_path / "b")
    with pytest.raises(RunError, match="holds a run of another recipe"):
        begin_from(tmp_path / "a", recipes[2], tmp_path / "b")
    with pytest.raises(RunError, match="is no run folder"):
        begin_from(tmp_path / "nowhere", recipes[1], tmp_path / "x")


@pytest.mark.parametrize("recipes", ["infopro"], indirect=True)
def test_a_damaged_lineage_is_named(recipes: list[Recipe], tmp_path: Path) -> None:
    engine.train(recipes[0], PLAN, tmp_path / "a", until_step=4)
    begin_from(tmp_path / "a", recipes[1], tmp_path / "b")
    (tmp_path / "b" / "lineage.json").write_text("[]")
    with pytest.raises(RunError, match=r"lineage\.json: is not what was expected"):
        replay(tmp_path / "b", tmp_path / "again", PLAN)


@pytest.mark.parametrize("recipes", ["infopro"], indirect=True)
@pytest.mark.parametrize("step", [5, 99])
def test_a_run_stops_at_the_step_that_is_asked_for(recipes: list[Recipe], tmp_path: Path, step: int) -> None:
    result = engine.train(recipes[0], PLAN, tmp_path / "a", until_step=step)
    assert result.steps == engine.load(tmp_path / "a").checkpoint.step == min(step, 12)
    assert result.status == ("finished" if step >= 12 else "interrupted")
