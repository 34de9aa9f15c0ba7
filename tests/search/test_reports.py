"""Does a search hear of a trial what its run has measured, no more and no less?"""

from __future__ import annotations

import errno
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.errors import RecipeError
from engine.recipes import DML, Plan, Recipe, plan_to_dict, recipe_to_dict
from engine.search import SweepConsole, trainable
from engine.search.trainable import Reports
from engine.tracking import ENSEMBLE, Record, read_metrics

TinyRecipe = Callable[..., Recipe]

PLAN = Plan(executor="process", evaluate_test=False, report_every_steps=1)


def _record(name: str, value: float, learner: str | None = None, split: str = "train", epoch: int = 1) -> Record:
    return Record(0.0, epoch, epoch * 4, learner, split, name, value)


@pytest.fixture
def told() -> list[Mapping[str, float]]:
    return []


@pytest.fixture
def reports(told: list[Mapping[str, float]]) -> Reports:
    return Reports(lambda values: told.append(dict(values)))


def test_several_networks_count_by_their_mean_without_the_ensemble(reports: Reports, told: Any) -> None:
    reports.take(
        [
            _record("accuracy", 0.2, "peer0", "validation"),
            _record("accuracy", 0.6, "peer1", "validation"),
            _record("accuracy", 0.9, ENSEMBLE, "validation"),
            _record("kl_between_peers", 0.3, ENSEMBLE, "validation"),
            _record("loss", 2.0, "peer0", "validation"),
            _record("loss", 1.0, "peer1", "validation"),
        ]
    )
    assert told == [{"epoch": 1, "validation/accuracy": pytest.approx(0.4), "validation/loss": 1.5}]


def test_memory_is_that_of_the_learner_that_holds_most_and_the_rate_that_of_the_slowest(
    reports: Reports, told: Any
) -> None:
    for name, first, second in (("memory_bytes", 10.0, 30.0), ("images_per_second", 500.0, 80.0)):
        reports.take([_record(name, first, "segment0"), _record(name, second, "segment1")])
    assert told == [], "only evaluations are reported"
    reports.take([_record("accuracy", 0.5, None, "validation")])
    # Newer values of one learner leave those of the others.
    reports.take([_record("memory_bytes", 20.0, "segment0"), _record("images_per_second", 70.0, "segment0")])
    reports.take([_record("accuracy", 0.6, None, "validation", epoch=2)])
    assert told == [
        {"epoch": 1, "validation/accuracy": 0.5, "memory_bytes": 30.0, "images_per_second": 80.0},
        {"epoch": 2, "validation/accuracy": 0.6, "memory_bytes": 30.0, "images_per_second": 70.0},
    ]


def test_scores_of_training_and_test_images_are_not_reported(reports: Reports, told: Any) -> None:
    reports.take([_record("accuracy", 0.9), _record("accuracy", 0.8, None, "test"), _record("loss/total", 1.0, "a")])
    assert told == []
    reports.take([_record("accuracy", 0.5, None, "validation"), _record("accuracy", 0.8, None, "test")])
    assert told == [{"epoch": 1, "validation/accuracy": 0.5}]


def test_a_score_that_is_not_a_number_is_reported_as_such(reports: Reports, told: Any) -> None:
    reports.take([_record("loss", math.nan, "peer0", "validation"), _record("loss", 1.0, "peer1", "validation")])
    assert math.isnan(told[0]["validation/loss"])


@pytest.fixture
def trial(tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any) -> Callable[..., Any]:
    """A function: runs a trial in this process; what it tells is in `told`."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    monkeypatch.setattr(trainable.tune, "report", lambda values: told.append(dict(values)))

    def run(recipe: Recipe, replay_only: bool = False, plan: Plan = PLAN, until_step: int | None = None) -> Path:
        trainable.run_trial(
            {
                "recipe": json.dumps(recipe_to_dict(recipe)),
                "plan": json.dumps(plan_to_dict(plan)),
                "run_dir": str(tmp_path / "trial"),
                "metric": "validation/accuracy",
                "replay_only": replay_only,
                "until_step": until_step,
                "settings": {},
            }
        )
        return tmp_path / "trial"

    return run


def test_a_trial_tells_every_epoch_and_at_its_end_what_its_summary_says(
    trial: Any, told: Any, tiny_recipe: TinyRecipe
) -> None:
    folder = trial(tiny_recipe(epochs=3, data={"validation_fraction": 0.2}))
    assert [values["epoch"] for values in told] == [1, 2, 3]
    records = [record for record in read_metrics(folder) if record.split == "validation"]
    for epoch in (1, 2, 3):
        expected = {f"validation/{record.name}": record.value for record in records if record.epoch == epoch}
        found = {name: value for name, value in told[epoch - 1].items() if name.startswith("validation/")}
        assert found == expected
    assert not any(record.split == "test" for record in read_metrics(folder))
    run = engine.load(folder)
    result = engine.train(run.recipe, PLAN, folder)
    assert told[-1]["memory_bytes"] == max(result.peak_memory_bytes.values())
    assert told[-1]["images_per_second"] == result.images_per_second
    assert result.test_score is None


def test_peers_are_told_as_one(trial: Any, told: Any, tiny_recipe: TinyRecipe) -> None:
    folder = trial(tiny_recipe(epochs=1, method=DML(), data={"validation_fraction": 0.2}))
    metrics = engine.train(engine.load(folder).recipe, PLAN, folder).metrics
    mean = (metrics["peer0/validation/accuracy"] + metrics["peer1/validation/accuracy"]) / 2
    assert told[-1]["validation/accuracy"] == pytest.approx(mean)
    assert not any("ensemble" in name or "peer" in name for name in told[-1])


def test_a_finished_trial_is_told_again_without_being_trained(trial: Any, told: Any, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe(epochs=3, data={"validation_fraction": 0.2})
    folder = trial(recipe)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    first = list(told)
    told.clear()
    trial(recipe, replay_only=True)
    assert [(v["epoch"], v["validation/accuracy"]) for v in told] == [
        (v["epoch"], v["validation/accuracy"]) for v in first[:3]
    ]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_interrupted_trial_is_told_again_up_to_its_checkpoint(
    trial: Any, told: Any, tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured after the newest checkpoint is measured once more, so it must not be told twice."""
    recipe = tiny_recipe(epochs=4, data={"validation_fraction": 0.2})

    def report(values: Any) -> None:
        told.append(dict(values))
        if len(told) == 3:
            raise KeyboardInterrupt  # as abrupt as a killed process

    monkeypatch.setattr(trainable.tune, "report", report)
    with pytest.raises(KeyboardInterrupt):
        trial(recipe)
    monkeypatch.setattr(trainable.tune, "report", lambda values: told.append(dict(values)))
    checkpoint = engine.load(tmp_path / "trial").checkpoint
    earlier, told[:] = list(told), []
    trial(recipe)
    assert [values["epoch"] for values in told] == [1, 2, 3, 4]
    told_again = checkpoint.step // 4
    assert 0 < told_again <= 3
    for first, again in zip(earlier, told, strict=False):
        scores = {name for name in first if name.startswith("validation/")}
        assert {name: first[name] for name in scores} == {name: again[name] for name in scores}


def test_a_trial_that_pauses_tells_what_it_has_measured_and_tells_it_again(
    trial: Any, told: Any, tiny_recipe: TinyRecipe
) -> None:
    """A search may be killed after a member has paused and before that is noted."""
    recipe = tiny_recipe(epochs=3, data={"validation_fraction": 0.2})
    folder = trial(recipe, until_step=8)
    assert [values["epoch"] for values in told] == [1, 2]
    assert engine.load(folder).checkpoint.step == 8
    first, told[:] = list(told), []
    trial(recipe, until_step=8)
    assert told[-1]["validation/accuracy"] == first[-1]["validation/accuracy"]
    assert {values["epoch"] for values in told} == {1, 2}
    assert told[-1]["memory_bytes"] == first[-1]["memory_bytes"]
    told.clear()
    trial(recipe)
    assert [values["epoch"] for values in told] == [1, 2, 3]


def test_a_trial_that_has_not_begun_has_nothing_to_tell(trial: Any, told: Any, tiny_recipe: TinyRecipe) -> None:
    trial(tiny_recipe(), replay_only=True)
    assert told == []


def test_a_metric_that_is_not_measured_is_named_with_those_that_are(told: Any) -> None:
    reports = Reports(lambda values: told.append(dict(values)), "validation/acuracy")
    with pytest.raises(RecipeError, match="metric='validation/acuracy' is not measured; measured are validation/accu"):
        reports.take([_record("accuracy", 0.5, None, "validation")])
    assert told == []


class Gone(io.StringIO):
    """A terminal that has gone away."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("stream", [None, Gone()], ids=["missing", "gone"])
def test_a_search_outlives_its_terminal(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with SweepConsole(stream) as console:
        console.message("before")
        console.show(("trial", "epochs"), [("trial-0000", "1")])
        console.message("between")
