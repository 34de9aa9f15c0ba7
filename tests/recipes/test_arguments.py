"""Is what a first call gives by mistake refused in words, with what to give instead?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.analysis import Settings, analyse
from engine.benchmarking import measure
from engine.planning import estimate_team
from engine.training.export import export_network
from engine.training.preview import preview

# As untyped code calls it.
E: Any = engine
RECIPE = engine.load_recipe("infopro_digits")
PLAN = engine.Plan(executor="process")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start in an empty folder, where nothing may be left."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("call", "refusal", "told"),
    [
        (lambda: E.train("infopro_digits"), engine.RecipeError, r"recipe: .*engine\.load_recipe\('infopro_digits'\)"),
        (lambda: E.train({"name": "x"}), engine.RecipeError, "recipe: found a dict, expected a Recipe: "),
        (lambda: E.train(engine.Recipe), engine.RecipeError, "recipe: found the class Recipe, expected a Recipe: "),
        (lambda: E.train(RECIPE, "process"), engine.PlanError, r"plan: .*engine\.Plan\(executor='process'\)"),
        (lambda: E.train(RECIPE, {}), engine.PlanError, "plan: found a dict, expected a Plan: "),
        (lambda: E.train(RECIPE, PLAN, 3), engine.RunError, "run_dir: found an int, expected the path of a folder"),
        (lambda: preview(E), engine.RecipeError, "recipe: found a module, expected a Recipe"),
        (lambda: E.evaluate("runs/x"), engine.RunError, r"run: found the text 'runs/x', .*engine\.load\('runs/x'\)"),
        (lambda: export_network(Path("runs/x"), "a.onnx"), engine.RunError, r"run: .*engine\.load\('runs/x'\)"),  # type: ignore[arg-type]
        (lambda: E.load(None), engine.RunError, "run_dir: found None, expected the path of a folder"),
        (lambda: E.sweep("digits"), engine.RecipeError, r"definition: .*engine\.load_sweep\('digits'\)"),
        (lambda: E.sweep(engine.load_sweep("k_digits"), plan="ray"), engine.PlanError, "plan: .*executor='ray'"),
        (lambda: measure("infopro_digits"), engine.RecipeError, r"recipe: .*engine\.load_recipe"),  # type: ignore[arg-type]
        (lambda: measure(RECIPE, "process"), engine.PlanError, "plan: found the text 'process'"),  # type: ignore[arg-type]
        (lambda: estimate_team("x", None, PLAN), engine.RecipeError, "recipe: found the text 'x'"),  # type: ignore[arg-type]
        (lambda: analyse("runs/x", ["cam"], Settings()), engine.RunError, r"places: .*give \['runs/x'\]"),
        (lambda: analyse(["runs/x"], "cam", Settings()), engine.InputError, r"names: .*give \['cam'\]"),
        (lambda: E.apply_overrides("x", PLAN, []), engine.RecipeError, "recipe: found the text 'x'"),
        (lambda: E.apply_overrides(RECIPE, None, []), engine.PlanError, "plan: found None, expected a Plan"),
        (lambda: E.apply_overrides(RECIPE, PLAN, "epochs=2"), engine.RecipeError, r"words: .*give \['epochs=2'\]"),
        (lambda: E.apply_overrides(RECIPE, PLAN, {"epochs": 2}), engine.RecipeError, "words: found a dict"),
        (lambda: E.apply_overrides(RECIPE, PLAN, [2]), engine.RecipeError, "words: found an int in the list"),
    ],
)
def test_another_kind_of_value(call: Callable[[], object], refusal: type[Exception], told: str, tmp_path: Path) -> None:
    with pytest.raises(refusal, match=f"^{told}"):
        call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [False, None, "Never", 0])
def test_resume_is_one_of_two_words(resume: Any, tmp_path: Path) -> None:
    """Whatever is not `never` would else go on with the run that it was to leave alone."""
    for call in (
        lambda: engine.train(RECIPE, PLAN, resume=resume),
        lambda: preview(RECIPE, resume=resume),
        lambda: engine.sweep(engine.load_sweep("k_digits"), resume=resume),
    ):
        with pytest.raises(engine.RunError, match=f"resume={resume!r}: expected 'auto', .* or 'never'"):
            call()
    assert list(tmp_path.iterdir()) == []
