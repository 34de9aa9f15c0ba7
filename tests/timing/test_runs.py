"""Is a recipe with measured cuts chosen once, stored with the names of blocks, and then as repeatable as any other?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

import engine
from engine.benchmarking.batches import read_images
from engine.benchmarking.cases import EngineCases, Machine
from engine.comparison import compare
from engine.recipes import DML, Backbone, EndToEnd, Greedy, Peer, Recipe, load_recipe, recipe_to_json, with_cuts
from engine.search import Sweep
from engine.search.measured_cuts import CUTS, keep_base_cuts, with_base_cuts
from engine.tracking import open_console
from engine.training.preview import preview

TinyRecipe = Callable[..., Recipe]
PLAN = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=2)
LINE = "method.cuts=measured: chose stem (segments take 306 and 379 ms for 6 images on this machine, cpu, 1 thread; "


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture
def recipe(tiny_recipe: TinyRecipe) -> Recipe:
    return tiny_recipe(method=Greedy(num_segments=2, cuts="measured"))


def test_a_run_stores_names_says_so_and_is_not_timed_again(
    recipe: Recipe, choices: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    screen = io.StringIO()
    with open_console(screen, quiet=False) as console:
        result = engine.train(recipe, PLAN, console=console)
    assert LINE in screen.getvalue()
    assert LINE in (result.run_dir / "log.txt").read_text()
    assert engine.load(result.run_dir).recipe == with_cuts(recipe, ("stem",))
    again = engine.train(recipe, PLAN)
    assert (again.run_dir, again.weights_sha256) == (result.run_dir, result.weights_sha256)
    assert choices == [2]
    # As named, it is the same training, bit for bit.
    named = engine.train(load_recipe(result.run_dir), PLAN, tmp_path / "named")
    assert named.weights_sha256 == result.weights_sha256
    assert choices == [2]
    # A new run beside it is measured anew.
    beside = engine.train(recipe, PLAN, resume="never")
    assert beside.run_dir != result.run_dir
    assert engine.load(beside.run_dir).recipe == with_cuts(recipe, ("layer1_0",))


def test_an_interrupted_run_goes_on_with_its_cuts(recipe: Recipe, choices: list[int], tmp_path: Path) -> None:
    interrupted = engine.train(recipe, PLAN, tmp_path / "run", until_step=3)
    assert interrupted.status == "interrupted"
    finished = engine.train(recipe, PLAN, tmp_path / "run")
    whole = engine.train(with_cuts(recipe, ("stem",)), PLAN, tmp_path / "whole")
    assert (finished.status, finished.weights_sha256) == ("finished", whole.weights_sha256)
    assert choices == [2]


def test_a_run_goes_on_from_its_mirror_with_its_cuts(recipe: Recipe, choices: list[int], tmp_path: Path) -> None:
    plan = engine.Plan(executor="process", checkpoint_every_steps=2, mirror=str(tmp_path / "mirror"))
    engine.train(recipe, plan, tmp_path / "run", until_step=4)
    finished = engine.train(recipe, plan, tmp_path / "elsewhere")
    assert engine.load(finished.run_dir).recipe == with_cuts(recipe, ("stem",))
    assert choices == [2]


def test_the_folder_of_another_recipe_is_refused_before_anything_is_timed(
    recipe: Recipe, choices: list[int], tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    folder = tmp_path / "run"
    engine.train(recipe, PLAN, folder, until_step=1)
    longer = tiny_recipe(method=recipe.method, epochs=3)
    with pytest.raises(engine.RunError, match=r"another recipe \(epochs was 2 and is now 3\)"):
        engine.train(longer, PLAN, folder)
    (folder / "recipe.json").write_text(recipe_to_json(with_cuts(recipe, "balanced_time")))
    with pytest.raises(engine.RunError, match=r"\(method.cuts was 'balanced_time' and is now 'measured'\)"):
        engine.train(recipe, PLAN, folder)
    (folder / "recipe.json").write_text("{")
    with pytest.raises(engine.RunError, match=r"give another --run-dir, or the blocks that .*log.txt says were chosen"):
        engine.train(recipe, PLAN, folder)
    # The remedy: with the names the run goes on, whatever became of the file.
    assert engine.train(with_cuts(recipe, ("stem",)), PLAN, folder).status == "finished"
    assert choices == [2]


def test_different_networks_are_refused_before_images_are_read(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    peers = (Peer(), Peer(backbone=Backbone(name="resnet8", widths=(4, 4, 4))))
    grid = tiny_recipe(method=DML(peers=peers, peer_method=Greedy(num_segments=2, cuts="measured")))
    with pytest.raises(engine.RecipeError, match="the peers have different networks"):
        engine.train(grid, PLAN, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_preview_shows_what_is_stored_or_else_what_is_modelled(
    recipe: Recipe, choices: list[int], tmp_path: Path
) -> None:
    before = preview(recipe, tmp_path / "run")
    assert before.recipe == recipe
    assert before.team == preview(with_cuts(recipe, "balanced_time"), tmp_path / "run").team
    assert choices == []
    engine.train(recipe, PLAN, tmp_path / "run")
    after = preview(recipe, tmp_path / "run")
    assert after.recipe == with_cuts(recipe, ("stem",))
    assert after.team.learners[0].blocks == ("stem",)


def test_a_comparison_measures_once_for_all_seeds(
    recipe: Recipe, choices: list[int], tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Recipe] = []

    def run_jobs(jobs: Any, plan: Any, slots: Any, started: Any, ended: Any) -> bool:
        for job in jobs:
            trained.append(job.recipe)
            engine.train(job.recipe, PLAN, job.run_dir)
            ended(job, None)
        return True

    monkeypatch.setattr("engine.comparison.driver.run_jobs", run_jobs)
    monkeypatch.setattr("engine.comparison.driver.plot_compared", lambda *arguments: None)
    monkeypatch.setattr("engine.comparison.driver.training_flops_per_image", lambda recipe: 1.0)
    monkeypatch.chdir(tmp_path)
    recipes = {"whole": tiny_recipe(method=EndToEnd()), "cut": recipe}
    screen = io.StringIO()
    with open_console(screen, quiet=False) as console:
        first = compare(recipes, PLAN, (4, 5), console=console)
    assert f"cut: {LINE}" in screen.getvalue()
    cuts = [each.method.cuts for each in trained if isinstance(each.method, Greedy)]
    assert cuts == [("stem",), ("stem",)]
    again = compare(recipes, PLAN, (4, 5))
    assert (again.run_dir, again.rows) == (first.run_dir, first.rows)
    assert choices == [2]
    assert len(trained) == 4
    path = first.run_dir / "comparison.json"
    values = json.loads(path.read_text())
    del values["recipes"]["cut"]["recipe"]["backbone"]
    path.write_text(json.dumps(values))
    with pytest.raises(engine.RunError, match=r"comparison.json: is damaged: a recipe in it is none"):
        compare(recipes, PLAN, (4, 5))


@pytest.fixture
def make_sweep(recipe: Recipe) -> Callable[..., Sweep]:
    """A function: the searched fields, and changes of a search."""
    return lambda space, **changes: Sweep(**{"name": "tiny", "recipe": recipe, "space": space, **changes})


def test_trials_that_are_cut_alike_share_one_cut(
    recipe: Recipe, choices: list[int], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    space = {"optimizer.learning_rate": tune.loguniform(0.01, 1.0)}
    definition = make_sweep(space, fields=("method.cuts=measured", "epochs=1"))
    base = engine.apply_overrides(recipe, engine.Plan(), definition.fields)[0]
    told: list[str] = []
    found, chosen = with_base_cuts(definition, base, tmp_path, PLAN, told.append)
    assert found.fields == ("epochs=1", "method.cuts=stem")
    assert chosen == with_cuts(base, ("stem",))
    assert told[-1].startswith("method.cuts=measured: chose stem")
    keep_base_cuts(base, chosen, tmp_path)
    assert with_base_cuts(definition, base, tmp_path, PLAN, told.append)[1] == chosen
    assert choices == [2]
    (tmp_path / CUTS).write_text('{"version": 1, "recipe": "x"}')
    with pytest.raises(engine.RunError, match=r"cuts.json: .*cuts"):
        with_base_cuts(definition, base, tmp_path, PLAN, told.append)


@pytest.mark.parametrize(
    ("name", "shared"),
    [("method.num_segments", False), ("method.cuts", False), ("data.batch_size", False), ("schedule.interval", True)],
)
def test_trials_that_may_be_cut_differently_measure_for_themselves(
    name: str, shared: bool, recipe: Recipe, choices: list[int], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    definition = make_sweep({name: tune.choice([2, 3])})
    told: list[str] = []
    found, base = with_base_cuts(definition, recipe, tmp_path, PLAN, told.append)
    assert (base == recipe, bool(choices)) == (not shared, shared)
    if not shared:
        assert found is definition
        assert told == [f"method.cuts=measured: each trial times its blocks when it starts, because {name} is searched"]
        keep_base_cuts(recipe, base, tmp_path)
        assert not (tmp_path / CUTS).exists()


def test_members_of_a_population_are_cut_alike(
    recipe: Recipe, choices: list[int], make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    definition = make_sweep({"method.margin": tune.uniform(0, 1)}, scheduler="pbt")
    with pytest.raises(engine.RecipeError, match="margin"):
        engine.sweep(definition, plan=PLAN, run_dir=tmp_path / "sweep")
    _, base = with_base_cuts(definition, recipe, tmp_path, PLAN, lambda line: None)
    assert base == with_cuts(recipe, ("stem",))


def test_measuring_chooses_a_cut_for_each_number_of_segments(recipe: Recipe, choices: list[int]) -> None:
    told: list[str] = []
    images = read_images(recipe)
    cases = EngineCases(images, PLAN, (1, 2, 3), Machine(2, 0), told.append)
    assert choices == [2, 3, 4]  # 4 for the simulation; the network has no 8 blocks.
    assert {k: each.method.cuts for k, (each, _) in cases.teams.items() if isinstance(each.method, Greedy)} == {
        1: (),
        2: ("stem",),
        3: ("layer1_0", "layer1_1"),
    }
    assert cases.recipe.method.cuts == ("stem",)
    assert told[1].startswith("K = 2: method.cuts=measured: chose stem")
    assert "greedy, K = 8, in process, for the simulation" in cases.left_out
