"""Versions of files: what the version before wrote is read, and what a newer one wrote is refused.

`written_by_version_0` holds what the engine wrote when its files had no version yet: a run that is finished, one that
was interrupted after step 6 of 8, and a grid search of two trials. `written_by_version_1` holds two runs whose files
use names of before: a finished cohort that a peer has left, and a self-distillation that was interrupted after step
6 of 8.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from ray import tune

import engine
from engine.checkpoints import CHECKPOINT_VERSION, SELF_DISTILLATION
from engine.comparison.folder import (
    COMPARISON_VERSION,
    ComparisonFolder,
    choose_comparison_folder,
    comparison_content,
)
from engine.methods import networks_sha256
from engine.recipes import Recipe, recipe_identity, recipe_to_dict, recipe_to_json
from engine.recipes.files import RECIPE_VERSION
from engine.recipes.plan import PLAN_VERSION
from engine.search.folder import SWEEP_VERSION, SweepFolder
from engine.search.lineage import LINEAGE_VERSION, begin_from, stages_of
from engine.tracking import read_metrics
from engine.training.folder import read_summary
from engine.training.result import SUMMARY_VERSION

TinyRecipe = Callable[..., Recipe]
BEFORE = Path(__file__).parent / "written_by_version_0"
VERSION_1 = Path(__file__).parent / "written_by_version_1"
PLAN = engine.Plan(executor="process", keep_checkpoints=5)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy of what the version before wrote."""
    return Path(shutil.copytree(BEFORE, tmp_path / "before"))


def version_in(path: Path) -> Any:
    return json.loads(path.read_text()).get("version")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def search(recipe: Recipe) -> engine.Sweep:
    space = {"optimizer.learning_rate": tune.grid_search([0.05, 0.1])}
    return engine.Sweep(name="tiny", recipe=recipe, space=space, fields=("epochs=1",), searcher="grid")


def test_nothing_that_was_written_before_has_a_version() -> None:
    found = [path for path in BEFORE.rglob("*.json") if "version" in json.loads(path.read_text())]
    assert found == []
    assert len(list(BEFORE.rglob("recipe.json"))) == 2


def test_a_run_of_the_version_before_is_read_and_scored(before: Path) -> None:
    summary = json.loads((before / "finished" / "summary.json").read_text())
    run = engine.load(before / "finished")
    assert run.checkpoint.step == summary["steps"] == 8
    assert run.checkpoint.values["recipe"] == recipe_identity(run.recipe)
    assert networks_sha256(run.networks, run.facts, run.checkpoint.states) == summary["weights_sha256"]
    scores = engine.evaluate(run)
    assert scores.keys() == summary["metrics"].keys()
    # Another machine rounds in another way, but these are the same weights and images.
    assert scores["test/loss"] == pytest.approx(summary["metrics"]["test/loss"], rel=1e-3)


def test_a_finished_run_of_the_version_before_stays_finished(before: Path) -> None:
    folder = before / "finished"
    kept = contents(folder)
    result = engine.train(engine.load_recipe(folder), PLAN, folder)
    assert (result.status, result.steps) == ("finished", 8)
    assert contents(folder) == kept


def test_a_run_of_the_version_before_goes_on(before: Path) -> None:
    folder = before / "interrupted"
    assert engine.load(folder).checkpoint.step == 6
    earlier = [record for record in read_metrics(folder) if record.step <= 6]
    result = engine.train(engine.load_recipe(folder), PLAN, folder)
    assert (result.status, result.steps) == ("finished", 8)
    assert engine.load(folder).checkpoint.step == 8
    assert earlier
    assert read_metrics(folder)[: len(earlier)] == earlier
    assert version_in(folder / "recipe.json") == RECIPE_VERSION
    assert version_in(folder / "plan.json") == PLAN_VERSION
    checkpoints = folder / "checkpoints"
    assert version_in(checkpoints / "step-000006" / "state.json") is None
    assert version_in(folder / "summary.json") == SUMMARY_VERSION
    assert version_in(checkpoints / "step-000008" / "state.json") == CHECKPOINT_VERSION


def test_who_has_diverged_is_read_from_a_run_of_version_1(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(VERSION_1 / "finished", tmp_path / "finished"))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["version"] == version_in(folder / "checkpoints" / "step-000008" / "state.json") == 1
    assert list(summary["departures"]) == ["peer1"]
    kept = contents(folder)
    result = engine.train(engine.load_recipe(folder), PLAN, folder)
    assert (result.status, result.diverged) == ("finished", summary["departures"])
    # Its checkpoint says the same: a summary that contradicted it would have been made anew.
    assert engine.load(folder).diverged == summary["departures"]
    assert contents(folder) == kept


def test_a_self_distillation_of_version_1_goes_on(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(VERSION_1 / "interrupted", tmp_path / "interrupted"))
    file = folder / "checkpoints" / "step-000006" / "network.safetensors"
    written = safetensors.torch.load_file(file)
    remembered = {name.removeprefix("teaching."): value for name, value in written.items() if "teaching." in name}
    assert remembered
    tensors = engine.load(folder).checkpoint.states["network"].tensors
    assert not any("teaching" in name for name in tensors)
    for name, value in remembered.items():
        assert torch.equal(tensors[f"{SELF_DISTILLATION}{name}"], value)
    result = engine.train(engine.load_recipe(folder), PLAN, folder)
    assert (result.status, result.steps) == ("finished", 8)
    assert version_in(folder / "summary.json") == SUMMARY_VERSION
    assert SELF_DISTILLATION + "labels" in engine.load(folder).checkpoint.states["network"].tensors


def test_a_search_of_the_version_before_is_read(before: Path) -> None:
    recipe = engine.load_recipe(before / "finished")
    base = dataclasses.replace(recipe, epochs=1)
    folder = SweepFolder(search(recipe), base, before / "sweep", "auto")
    folder.close()
    assert [(trial.status, trial.epochs) for trial in folder.trials.values()] == [("finished", 1)] * 2
    assert version_in(before / "sweep" / "sweep.json") == SWEEP_VERSION
    SweepFolder(search(recipe), base, before / "sweep", "auto").close()


def test_a_comparison_of_the_version_before_is_read(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    content = comparison_content({"a": tiny_recipe(), "b": tiny_recipe(epochs=1)}, [0])
    ComparisonFolder(tmp_path, content).close()
    assert version_in(tmp_path / "comparison.json") == COMPARISON_VERSION
    assert choose_comparison_folder(content, tmp_path, "auto") == tmp_path
    (tmp_path / "comparison.json").write_text(json.dumps(content))
    assert choose_comparison_folder(content, tmp_path, "auto") == tmp_path


def test_a_lineage_of_the_version_before_is_read(before: Path, tmp_path: Path) -> None:
    recipe = engine.load_recipe(before / "finished")
    begin_from(before / "finished", recipe, tmp_path / "member")
    path = tmp_path / "member" / "lineage.json"
    stages = stages_of(tmp_path / "member")
    values = json.loads(path.read_text())
    assert values.pop("version") == LINEAGE_VERSION
    path.write_text(json.dumps(values))
    assert stages_of(tmp_path / "member") == stages


def test_the_version_is_no_field_of_a_recipe(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe()
    for text in (recipe_to_json(recipe), json.dumps(recipe_to_dict(recipe))):
        (tmp_path / "recipe.json").write_text(text)
        assert engine.load_recipe(tmp_path) == recipe
    with pytest.raises(engine.RecipeError, match="version: there is no such field"):
        engine.apply_overrides(recipe, engine.Plan(), ["version=1"])


def newer(path: Path) -> None:
    """Let a file be of a version that is not known yet; of a checkpoint the manifest fits."""
    content = json.dumps({**json.loads(path.read_text()), "version": 1000, "unheard_of": True}).encode()
    path.write_bytes(content)
    manifest = path.with_name("MANIFEST.json")
    if manifest.exists():
        entries = json.loads(manifest.read_text())
        entries[path.name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest.write_text(json.dumps(entries))


@pytest.mark.parametrize("name", ["recipe.json", "checkpoints/step-000006/state.json"])
def test_a_run_of_a_newer_version_is_refused_and_left_alone(name: str, before: Path) -> None:
    folder = before / "interrupted"
    recipe = engine.load_recipe(folder)
    newer(folder / name)
    kept = contents(folder)
    words = rf"{folder / name}: was written by a newer engine: its version is 1000, .* versions 0 to \d; install"
    with pytest.raises(engine.VersionError, match=words):
        engine.train(recipe, PLAN, folder)
    with pytest.raises(engine.VersionError, match=words):
        engine.load(folder)
    assert contents(folder) == kept
    assert version_in(folder / name) == 1000


def test_a_summary_of_a_newer_version_is_refused_and_left_alone(before: Path) -> None:
    folder = before / "finished"
    recipe = engine.load_recipe(folder)
    newer(folder / "summary.json")
    kept = contents(folder)
    words = rf"{folder}/summary.json: was written by a newer engine: its version is 1000, .* versions 0 to \d; install"
    with pytest.raises(engine.VersionError, match=words):
        engine.train(recipe, PLAN, folder)
    with pytest.raises(engine.VersionError, match=words):
        read_summary(folder)
    assert contents(folder) == kept
    (folder / "summary.json").unlink()
    assert read_summary(folder) is None


def test_a_newer_checkpoint_is_not_passed_over_for_an_older_one(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    engine.train(tiny_recipe(), PLAN, tmp_path, until_step=5)
    checkpoints = tmp_path / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-000004", "step-000005"]
    newer(checkpoints / "step-000005" / "state.json")
    kept = contents(tmp_path)
    with pytest.raises(engine.VersionError, match="step-000005"):
        engine.train(tiny_recipe(), PLAN, tmp_path)
    assert contents(tmp_path) == kept


def test_searches_comparisons_and_lineages_of_a_newer_version_are_refused(
    before: Path, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    recipe = engine.load_recipe(before / "finished")
    content = comparison_content({"a": recipe, "b": tiny_recipe(epochs=1)}, [0])
    ComparisonFolder(tmp_path / "compared", content).close()
    begin_from(before / "finished", recipe, tmp_path / "member")
    uses: dict[Path, Callable[[], Any]] = {
        before / "sweep" / "sweep.json": lambda: SweepFolder(search(recipe), recipe, before / "sweep", "auto"),
        tmp_path / "compared" / "comparison.json": lambda: choose_comparison_folder(
            content, tmp_path / "compared", "auto"
        ),
        tmp_path / "member" / "lineage.json": lambda: stages_of(tmp_path / "member"),
    }
    for path, use in uses.items():
        newer(path)
        kept = contents(path.parent)
        with pytest.raises(engine.VersionError, match=rf"{path}: .*its version is 1000, .*0 to \d; install"):
            use()
        assert contents(path.parent) == kept


@pytest.mark.parametrize("version", ["1", True, -1, 1.5, None, [1]])
def test_a_version_that_is_no_number_is_named(version: Any, tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**recipe_to_dict(tiny_recipe()), "version": version}))
    with pytest.raises(engine.RecipeError, match=rf"{path}: is damaged: version is .*, expected a whole number"):
        engine.load_recipe(path)
