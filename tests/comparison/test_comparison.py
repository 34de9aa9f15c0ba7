"""Does a comparison train each recipe with each seed once, on one budget, and choose without the test set?"""

from __future__ import annotations

import dataclasses
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.comparison.budget import budget_warnings
from engine.comparison.child import train_when_free
from engine.comparison.result import compared_recipe
from engine.comparison.runs import free_slots
from engine.data import open_source
from engine.errors import FolderHeld
from engine.methods import method_of
from engine.recipes import DML, SGD, EndToEnd, Greedy
from engine.tasks import ACCURACY
from engine.tracking import open_console
from engine.training.folder import read_summary
from engine.training.held_out import with_validation
from engine.training.holding import hold, release
from engine.training.result import Absence
from tests.comparison.conftest import PLAN, Runner

NETWORK = """
from torch import nn

def network(num_classes, image_shape):
    width = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU()), nn.Linear(8, num_classes))
"""


def test_each_recipe_is_trained_with_each_seed_once(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    found = engine.compare(recipes, PLAN, (4, 7), tmp_path / "c")
    assert runner.trained == [("whole", 4), ("cut", 4), ("whole", 7), ("cut", 7)]
    assert found.status == "finished"
    assert [row.label for row in found.rows] == ["whole", "cut"]
    for row in found.rows:
        for seed in (4, 7):
            run = engine.load(tmp_path / "c" / "runs" / f"{row.label}-seed{seed}")
            assert (run.recipe.seed, run.recipe.data.validation_fraction) == (seed, 0.1)
            scores = engine.evaluate(run)
            assert row.test_scores[seed] == scores["test/accuracy"]
            assert row.validation_scores[seed] == scores["validation/accuracy"]
    for name in ("comparison.md", "comparison.csv", "comparison.png"):
        assert (tmp_path / "c" / name).is_file()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "runs").rglob("*")}
    again = engine.compare(recipes, PLAN, (4, 7), tmp_path / "c")
    assert again == found
    assert len(runner.trained) == 4
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "runs").rglob("*")} == before
    beside = engine.compare(dict(list(recipes.items())), PLAN, (4,), tmp_path / "c", resume="never")
    assert beside.run_dir == tmp_path / "c-2"


def test_seeds_are_paired_by_images_and_order(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    engine.compare(recipes, PLAN, (3,), tmp_path / "c")
    runs = [engine.load(tmp_path / "c" / "runs" / f"{label}-seed3") for label in recipes]
    sources = [open_source(run.recipe.data, run.recipe.seed) for run in runs]
    assert runs[0].facts.fingerprint == runs[1].facts.fingerprint
    for step in range(sources[0].steps_per_epoch()):
        first, second = (source.batch(1, step) for source in sources)
        assert np.array_equal(first.indices, second.indices)


def test_the_test_set_does_not_choose(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    found = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    first, second = found.rows
    better = dataclasses.replace(second, test_scores={0: 0.0}, validation_scores={0: 1.0})
    worse = dataclasses.replace(first, test_scores={0: 1.0}, validation_scores={0: 0.0})
    assert dataclasses.replace(found, rows=(worse, better)).best == second.label


def test_one_recipe_alone_has_scores_and_is_compared_with_nothing(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    del recipes["cut"]
    found = engine.compare(recipes, PLAN, (0, 1), tmp_path / "c")
    assert runner.trained == [("whole", 0), ("whole", 1)]
    assert (found.status, found.best, found.warnings) == ("finished", None, ())
    (row,) = found.rows
    assert set(row.test_scores) == set(row.validation_scores) == {0, 1}
    page = (tmp_path / "c" / "comparison.md").read_text()
    assert page.startswith("# 1 recipe on digits, ")
    assert "| recipe | test accuracy | validation accuracy | seeds |" in page
    assert "gain" not in page and "baseline" not in page and "(best)" not in page


def test_an_interrupted_comparison_goes_on(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    runner.stop_after = 2
    found = engine.compare(recipes, PLAN, (0, 1), tmp_path / "c")
    assert found.status == "interrupted"
    assert [len(row.test_scores) for row in found.rows] == [1, 1]
    assert not (tmp_path / "c" / "comparison.md").exists()
    runner.stop_after = None
    assert engine.compare(recipes, PLAN, (0, 1), tmp_path / "c").status == "finished"
    assert runner.trained == [("whole", 0), ("cut", 0), ("whole", 1), ("cut", 1)]


def test_a_failed_run_stops_no_other_and_is_tried_again(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    recipes["cut"] = dataclasses.replace(recipes["cut"], optimizer=SGD(learning_rate=1e30), epochs=2)
    recipes["whole"] = dataclasses.replace(recipes["whole"], epochs=2)
    for attempt in (1, 2):
        found = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
        assert found.status == "failed"
        assert found.best == "whole"
        assert "learner segment" in found.rows[1].failures[0]
        assert "learner segment" in (tmp_path / "c" / "comparison.md").read_text()
        assert runner.trained.count(("cut", 0)) == attempt
    assert runner.trained.count(("whole", 0)) == 1


def test_a_summary_that_is_not_its_runs_is_not_compared(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    first = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    path = tmp_path / "c" / "runs" / "cut-seed0" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({**summary, "test_score": 1.0}))
    again = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    assert again.rows[1].test_scores == first.rows[1].test_scores
    assert json.loads(path.read_text())["test_score"] == summary["test_score"]


def test_input_that_cannot_be_used_is_refused_before_anything_is_written(
    recipes: Any, runner: Runner, tmp_path: Path
) -> None:
    def refused(kind: type[Exception], said: str, chosen: Any = recipes, seeds: Any = (0,), **more: Any) -> None:
        with pytest.raises(kind, match=said):
            engine.compare(chosen, seeds=seeds, run_dir=tmp_path / "c", **{"plan": PLAN, **more})

    refused(engine.RecipeError, "recipes: found a list, expected recipes by their labels", list(recipes.values()))
    refused(engine.RecipeError, "own: found a str, expected a Recipe; engine.load_recipe", {"own": "infopro_digits"})
    refused(engine.RecipeError, r"seeds: found 3, expected the seeds themselves", recipes, seeds=3)
    refused(engine.RecipeError, r"seeds: found \(0.5,\), expected the seeds", recipes, seeds=(0.5,))
    refused(engine.RunError, "resume=False: expected 'auto', ", resume=False)
    refused(engine.RecipeError, "found none, expected 1 or more", {})
    refused(engine.RecipeError, "seeds: found 1, 1", seeds=(1, 1))
    refused(engine.RecipeError, "seeds: found none", seeds=())
    refused(engine.PlanError, "max_concurrent=0", max_concurrent=0)
    refused(engine.PlanError, "come one after another", plan=engine.Plan(), max_concurrent=2)
    refused(engine.PlanError, "^whole: plan.replicas=2, .* has one device", plan=dataclasses.replace(PLAN, replicas=2))
    many = dataclasses.replace(recipes["cut"], method=Greedy(num_segments=99))
    refused(engine.RecipeError, "^cut: .*99", {"whole": recipes["whole"], "cut": many})
    limit = dataclasses.replace(recipes["cut"], data=dataclasses.replace(recipes["cut"].data, train_limit=500))
    refused(engine.DataError, "^cut: .*after holding out the validation images", {**recipes, "cut": limit})


def test_images_are_held_out_only_where_there_are_none(tiny_recipe: Any, tmp_path: Path) -> None:
    quiet = open_console(io.StringIO(), quiet=True)
    plain, own = tiny_recipe(), tiny_recipe(data={"validation_fraction": 0.2})
    assert with_validation(plain, quiet).data.validation_fraction == 0.1
    assert with_validation(own, quiet) == own
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((8, 8, 3), 20 * index, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    brings = tiny_recipe(
        data={"name": "folder", "root": str(tmp_path), "train_limit": None, "test_limit": None, "batch_size": 4}
    )
    assert with_validation(brings, quiet) == brings


def test_another_budget_is_told_and_written(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    data = dataclasses.replace(recipes["cut"].data, batch_size=13, evaluation_batch_size=3)
    other = dataclasses.replace(recipes["cut"], epochs=3, data=data)
    assert budget_warnings(recipes) == ()
    (warning,) = budget_warnings({"whole": recipes["whole"], "cut": other})
    assert warning == "not one budget: cut: epochs 3 against 1, data.batch_size 13 against 12"
    found = engine.compare({"whole": recipes["whole"], "cut": other}, PLAN, (0,), tmp_path / "c")
    assert found.warnings == (warning,)
    assert warning in (tmp_path / "c" / "comparison.md").read_text()


def test_peers_count_by_their_mean(tiny_recipe: Any, runner: Runner, tmp_path: Path) -> None:
    recipes = {"one": tiny_recipe(method=EndToEnd(), epochs=1), "two": tiny_recipe(method=DML(), epochs=1)}
    found = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    metrics = read_summary(tmp_path / "c" / "runs" / "two-seed0")["metrics"]  # type: ignore[index]
    for split, values in (("test", found.rows[1].test_scores), ("validation", found.rows[1].validation_scores)):
        assert values[0] == pytest.approx(np.mean([metrics[f"peer{peer}/{split}/accuracy"] for peer in (0, 1)]))
    assert found.rows[1].parameters == 2 * found.rows[0].parameters
    assert found.rows[1].flops_per_image == pytest.approx(2 * found.rows[0].flops_per_image)


def test_a_run_without_some_of_its_peers_is_told(tiny_recipe: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(method=DML(), epochs=1)
    whole = engine.train(recipe, PLAN, tmp_path)
    team = method_of(recipe).team(recipe, engine.load(tmp_path).facts)
    results = {
        0: whole,
        1: dataclasses.replace(whole, diverged={"peer1": "the loss is nan"}),
        2: dataclasses.replace(
            whole, steps=4, absences=(Absence("peer0", "killed", 1, 3), Absence("peer1", "gone", 3, None))
        ),
    }
    row = compared_recipe("two", recipe, team, results, {}, None, ACCURACY)
    assert row.disturbances == {
        1: "peer1 has left the cohort: the loss is nan; the score is that of the others",
        2: "peer0 was away for 2 steps: killed; peer1 was away for 1 step: gone",
    }


@pytest.mark.slow
def test_that_a_file_of_ones_own_has_changed_is_told(
    recipes: Any, tiny_recipe: Any, runner: Runner, tmp_path: Path
) -> None:
    net = tmp_path / "net.py"
    net.write_text(NETWORK)
    own = {"name": f"{net}:network", "widths": None}
    recipes["own"] = tiny_recipe(method=EndToEnd(), epochs=1, backbone=own)
    said = io.StringIO()
    with open_console(said, quiet=False) as console:
        assert engine.compare(recipes, PLAN, (0,), tmp_path / "c").rows[2].disturbances == {}
        net.write_text(NETWORK.replace("ReLU", "Tanh"))
        found = engine.compare(recipes, PLAN, (0, 1), tmp_path / "c", console=console)
    assert runner.trained[3:] == [("whole", 1), ("cut", 1), ("own", 1)]
    assert [row.disturbances for row in found.rows] == [{}, {}, {0: f"{net} has changed since it was trained"}]
    assert f"own, seed 0: {net} has changed since" in (tmp_path / "c" / "comparison.md").read_text().replace("\\", "")
    told = f"3 of 6 runs are finished already; --resume never starts a new comparison; since then {net} has changed"
    assert told in said.getvalue()


def test_a_run_whose_folder_is_held_still_is_waited_for(
    recipes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    with open_console(said, quiet=True) as console:
        lock = hold(tmp_path, "training")
        threading.Timer(0.5, release, [lock]).start()
        assert train_when_free(recipes["cut"], PLAN, tmp_path, console).status == "finished"
        assert said.getvalue().count("another process is training in this folder") == 1
        monkeypatch.setattr("engine.comparison.child._SECONDS_UNTIL_FREE", 0.3)
        lock = hold(tmp_path, "training")
        with pytest.raises(FolderHeld, match="wait for it, or give another --run-dir"):
            train_when_free(recipes["cut"], PLAN, tmp_path, console)
        release(lock)


def test_slots_are_cores_or_gpus(tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    recipe = tiny_recipe()
    three = dataclasses.replace(recipe, numerics=engine.Numerics(threads=3))
    assert len(free_slots([recipe], PLAN, None)) == 8
    assert len(free_slots([recipe, three], PLAN, None)) == 2
    assert free_slots([three], PLAN, None)[0]["OMP_NUM_THREADS"] == "3"
    assert len(free_slots([recipe], PLAN, 3)) == 3
    assert free_slots([recipe], engine.Plan(), None) == [{}]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in free_slots([recipe], PLAN, None)] == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in free_slots([recipe], PLAN, 3)] == ["5", "6", "5"]
    on_cpu = dataclasses.replace(recipe, numerics=engine.Numerics(device="cpu"))
    assert len(free_slots([on_cpu], PLAN, None)) == 8


def test_more_at_once_than_there_are_runs(recipes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def counted(jobs: Any, plan: Any, slots: Any, *_: Any) -> bool:
        found.append(len(slots))
        return False

    monkeypatch.setattr("engine.comparison.driver.run_jobs", counted)
    assert engine.compare(recipes, PLAN, (0,), tmp_path / "c", max_concurrent=10**400).runs_at_once == 2
    assert found == [2]
