"""Is each trial of a search an ordinary run, which takes no other along, and are winners chosen without test images?"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from ray import tune

import engine
from engine.errors import DataError, PlanError, RecipeError, RunError
from engine.recipes import DML, Numerics, Plan, Recipe
from engine.search import Sweep, SweepResult, sweep
from engine.search.settings import drawn
from engine.tracking import read_metrics
from engine.training import evaluate, export_network
from engine.training.folder import read_summary

pytestmark = pytest.mark.usefixtures("local_ray")

RAY_CPUS = 2

IN_PROCESS = Plan(executor="process")
TRAINS = Plan(executor="process", evaluate_test=False)
TINY = (
    "epochs=2",
    "backbone.widths=4,4,4",
    "data.train_limit=44",
    "data.test_limit=20",
    "data.batch_size=12",
    "data.validation_fraction=0.2",
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """A random search of three trials, of which one has a setting that only its training refuses."""
    definition = Sweep(
        name="three",
        recipe="infopro_digits",
        fields=TINY,
        space={
            "method.num_segments": tune.choice([1, 2, 99]),
            "method.reconstruction_weight": tune.loguniform(0.1, 10.0),
        },
        against=("memory_bytes",),
        num_samples=3,
        seed=next(seed for seed in range(10_000) if _segments_drawn(seed) == [2, 99, 1]),
    )
    return sweep(definition, run_dir=tmp_path_factory.mktemp("searched") / "s")


def _segments_drawn(seed: int) -> list[int]:
    space = {"method.num_segments": tune.choice([1, 2, 99])}
    definition = Sweep(name="three", recipe="infopro_digits", space=space, seed=seed)
    return [(drawn(definition, number) or {})["method.num_segments"] for number in range(3)]


def _finished(result: SweepResult) -> list[Path]:
    return [result.run_dir / "trials" / trial.name for trial in result.trials if trial.status == "finished"]


@pytest.mark.slow
def test_a_trial_that_fails_does_not_stop_the_others(searched: SweepResult) -> None:
    assert searched.status == "finished"
    assert [trial.status for trial in searched.trials] == ["finished", "failed", "finished"]
    assert "method.num_segments=99" in (searched.trials[1].error or "")
    assert "99" in (searched.run_dir / "sweep.md").read_text()
    assert searched.at_once == 2


@pytest.mark.slow
def test_trials_have_the_settings_that_were_drawn(searched: SweepResult) -> None:
    for number, trial in enumerate(searched.trials):
        assert trial.number == number
        assert trial.settings == drawn(searched.sweep, number)
        if trial.status == "finished":
            recipe: Any = engine.load(searched.run_dir / "trials" / trial.name).recipe
            assert recipe.method.num_segments == trial.settings["method.num_segments"]
            weight = trial.settings["method.reconstruction_weight"]
            assert (recipe.method.reconstruction_weight.first, recipe.method.reconstruction_weight.last) == (
                weight,
                weight,
            )


@pytest.mark.slow
def test_a_search_equals_a_loop_by_hand_bit_for_bit(searched: SweepResult, tmp_path: Path) -> None:
    for folder in _finished(searched):
        trial = next(trial for trial in searched.trials if trial.name == folder.name)
        alone = engine.train(engine.load_recipe(folder / "recipe.json"), TRAINS, tmp_path / folder.name)
        summary = read_summary(folder)
        assert summary is not None
        assert alone.weights_sha256 == summary["weights_sha256"]
        scores = {name: value for name, value in trial.metrics.items() if name.startswith("validation/")}
        assert scores == alone.metrics
        assert trial.metrics["memory_bytes"] == max(alone.peak_memory_bytes.values())
        assert trial.epochs == alone.epochs == 2


@pytest.mark.slow
def test_only_winners_have_test_scores(searched: SweepResult) -> None:
    assert searched.best is not None
    winners = {searched.best.number, *searched.front}
    assert searched.best.number in searched.front
    for trial in searched.trials:
        tested = {name for name in trial.metrics if name.startswith("test/")}
        assert bool(tested) == (trial.number in winners)
        if tested:
            scores = evaluate(engine.load(searched.run_dir / "trials" / trial.name))
            assert {name: trial.metrics[name] for name in tested} == {
                n: scores[n] for n in scores if n.startswith("test/")
            }
    for folder in _finished(searched):
        records = read_metrics(folder)
        assert {record.split for record in records} == {"train", "validation"}
        summary = read_summary(folder)
        assert summary is not None and summary["test_score"] is None
        assert not any("test" in name for name in summary["metrics"])


@pytest.mark.slow
def test_the_best_is_the_best_on_validation_images(searched: SweepResult) -> None:
    finished = [trial for trial in searched.trials if trial.status == "finished"]
    best = max(finished, key=lambda trial: (trial.metrics["validation/accuracy"], -trial.number))
    assert searched.best is best


@pytest.mark.slow
def test_the_folder_of_a_trial_is_a_run_folder(searched: SweepResult, tmp_path: Path) -> None:
    for folder in _finished(searched):
        assert set(evaluate(engine.load(folder))) >= {"test/accuracy", "validation/accuracy"}
        assert export_network(engine.load(folder), tmp_path / f"{folder.name}.safetensors")
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        again = engine.train(engine.load_recipe(folder / "recipe.json"), IN_PROCESS, folder)
        assert again.status == "finished"
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_what_is_written_tells_the_same(searched: SweepResult) -> None:
    columns = pyarrow.parquet.read_table(searched.run_dir / "trials.parquet").to_pydict()
    assert columns["trial"] == [0, 1, 2]
    assert columns["status"] == [trial.status for trial in searched.trials]
    assert [Path(path) for path in columns["run_dir"]] == [
        searched.run_dir / "trials" / t.name for t in searched.trials
    ]
    known = [trial.metrics.get("validation/accuracy", math.nan) for trial in searched.trials]
    assert [a for a in columns["validation/accuracy"] if a == a] == [a for a in known if a == a]
    text = (searched.run_dir / "sweep.md").read_text()
    assert searched.best is not None
    assert f"Best: {searched.best.name}" in text
    assert text.count("Pareto front") == len(searched.front)
    assert (searched.run_dir / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_search_again_trains_nothing(searched: SweepResult) -> None:
    before = {path: path.stat().st_mtime_ns for path in (searched.run_dir / "trials").rglob("*")}
    again = sweep(searched.sweep, run_dir=searched.run_dir)
    assert (again.status, again.best, again.front, again.trials) == (
        searched.status,
        searched.best,
        searched.front,
        searched.trials,
    )
    after = {path: path.stat().st_mtime_ns for path in (searched.run_dir / "trials").rglob("*")}
    assert after == before


def test_a_search_in_which_no_trial_finished_has_failed(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    definition = make_sweep(space={"method.num_segments": tune.choice([98])}, num_samples=1)
    result = sweep(definition, run_dir=tmp_path / "s")
    assert (result.status, result.best, result.front) == ("failed", None, ())
    assert [trial.status for trial in result.trials] == ["failed"]
    assert "use 1..7" in (result.trials[0].error or "")
    for name in ("sweep.md", "sweep.png", "trials.parquet"):
        assert (result.run_dir / name).is_file()


@pytest.mark.parametrize(
    ("plan", "changes", "kind", "said"),
    [
        (Plan(executor="ray", cpus_per_learner=1), {}, PlanError, "the plan does not fit.*room for 2 such actors"),
        (Plan(executor="process", gpus_per_learner=64), {}, PlanError, "the plan does not fit"),
        (Plan(executor="process"), {"threads": 3}, PlanError, "a trial takes 3 CPUs.*numerics.threads"),
        (Plan(executor="ray"), {"segments": 99}, RecipeError, "use 1..7"),
        (Plan(executor="process"), {"limit": 9000}, DataError, "train_limit"),
        (Plan(executor="process"), {"field": "method.num_segmnets"}, RecipeError, "method.num_segmnets"),
    ],
)
def test_a_trial_that_can_never_run_is_refused_before_anything_is_written(
    plan: Plan,
    changes: dict[str, Any],
    kind: type[Exception],
    said: str,
    tiny_recipe: Callable[..., Recipe],
    make_sweep: Callable[..., Sweep],
    tmp_path: Path,
) -> None:
    """The largest trial is the one that counts: of 1 and 3 segments on two CPUs, 3 do not fit."""
    recipe = tiny_recipe(data={"train_limit": changes.get("limit", 44)})
    recipe = dataclasses.replace(recipe, numerics=Numerics(threads=changes.get("threads", 1)))
    name = changes.get("field", "method.num_segments")
    space = {name: tune.choice([1, changes.get("segments", 3)])}
    with pytest.raises(kind, match=said):
        sweep(make_sweep(recipe=recipe, space=space), plan=plan, run_dir=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("number", [0, -1])
def test_no_trial_at_once_is_refused(make_sweep: Callable[..., Sweep], tmp_path: Path, number: int) -> None:
    with pytest.raises(PlanError, match=f"max_concurrent={number}: expected at least 1"):
        sweep(make_sweep(), max_concurrent=number, run_dir=tmp_path / "s")
    with pytest.raises(RecipeError, match=f"num_samples={number}"):
        sweep(make_sweep(), num_samples=number, run_dir=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_grid_has_as_many_trials_as_combinations(make_sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    definition = make_sweep(space={"seed": tune.grid_search([0, 1, 2])}, searcher="grid")
    for number in (2, 4):
        with pytest.raises(PlanError, match=f"--num-samples {number}: a grid tries each .*, which are 3; leave it out"):
            sweep(definition, num_samples=number, run_dir=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_folder_of_another_search_is_refused_before_a_trial_starts(searched: SweepResult) -> None:
    other = dataclasses.replace(searched.sweep, seed=12345)
    with pytest.raises(RunError, match=r"other seed\)"):
        sweep(other, run_dir=searched.run_dir)


@pytest.mark.slow
def test_a_grid_has_every_combination_and_peers_count_by_their_mean(
    make_sweep: Callable[..., Sweep], tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    definition = make_sweep(
        recipe=tiny_recipe(method=DML(), epochs=1),
        space={"seed": tune.choice([0, 1, 2]), "method.temperature": tune.grid_search([1.0])},
        searcher="grid",
        num_samples=1,
    )
    result = sweep(definition, run_dir=tmp_path / "s")
    assert [dict(trial.settings)["seed"] for trial in result.trials] == [0, 1, 2]
    for trial in result.trials:
        metrics = json.loads((result.run_dir / "trials" / trial.name / "summary.json").read_text())["metrics"]
        mean = (metrics["peer0/validation/accuracy"] + metrics["peer1/validation/accuracy"]) / 2
        assert trial.metrics["validation/accuracy"] == pytest.approx(mean)
    # A tenth of the training images was held out, as the recipe does not do so itself.
    assert engine.load(result.run_dir / "trials" / "trial-0000").recipe.data.validation_fraction == 0.1


@pytest.mark.slow
def test_more_trials_than_before_are_added_to_those_that_are_there(
    make_sweep: Callable[..., Sweep], tmp_path: Path
) -> None:
    definition = make_sweep(fields=("epochs=1",), seed=3)
    first = sweep(definition, num_samples=1, run_dir=tmp_path / "s")
    summary = tmp_path / "s" / "trials" / "trial-0000" / "summary.json"
    before = summary.stat().st_mtime_ns
    both = sweep(definition, num_samples=2, run_dir=tmp_path / "s")
    assert [trial.status for trial in both.trials] == ["finished", "finished"]
    assert summary.stat().st_mtime_ns == before
    assert both.trials[0].settings == first.trials[0].settings
    assert both.trials[1].settings == drawn(definition, 1)
