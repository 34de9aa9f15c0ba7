"""A search for the least of a task's own error: direction, winners, front, who copies whom, and words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ray import tune

from engine.errors import RecipeError
from engine.search import Sweep, Trial
from engine.search.population import donors
from engine.search.reporting import plot, table_rows, value_in_words
from engine.search.searcher import study_of
from engine.search.winners import best_trial, pareto_front, ranked
from engine.tasks import ClassificationTask, Metric

SPACE = {"optimizer.lr": tune.loguniform(0.01, 1.0)}
TASK = """
from engine.tasks import ClassificationTask, Metric

class Mine(ClassificationTask):
    headline = Metric("error", higher_is_better=False, is_share=False)
"""


@pytest.fixture
def by_error(monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setattr(ClassificationTask, "headline", Metric("error", higher_is_better=False, is_share=False))
    return Sweep("s", "infopro_digits", SPACE, against=("images_per_second",))


def trials(*errors: float) -> list[Trial]:
    return [
        Trial(n, {"optimizer.lr": 0.1}, "finished", 1, {"validation/error": error, "images_per_second": 10.0 * n})
        for n, error in enumerate(errors)
    ]


def test_the_headline_on_validation_images_is_the_default(by_error: Sweep) -> None:
    assert (by_error.judged_by, by_error.mode) == ("validation/error", "min")
    assert Sweep("s", "infopro_digits", SPACE, metric="validation/accuracy").mode == "max"
    with pytest.raises(RecipeError, match=r"metric='validation/eror'.*'validation/error'"):
        Sweep("s", "infopro_digits", SPACE, metric="validation/eror")


def test_without_another_headline_it_is_accuracy() -> None:
    sweep = Sweep("s", "infopro_digits", SPACE)
    assert (sweep.judged_by, sweep.mode) == ("validation/accuracy", "max")
    with pytest.raises(RecipeError, match="validation/error"):
        Sweep("s", "infopro_digits", SPACE, metric="validation/error")


def test_fixed_changes_may_set_another_task(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TASK)
    fields = (f"task.kind={tmp_path}/mine.py:Mine",)
    usual = Sweep("s", "infopro_digits", SPACE)
    of_task = dataclasses.replace(usual, fields=fields)
    assert of_task == Sweep("s", "infopro_digits", SPACE, fields=fields)
    assert (of_task.judged_by, of_task.mode) == ("validation/error", "min")
    assert dataclasses.replace(of_task, fields=()).judged_by == "validation/accuracy"
    given = Sweep("s", "infopro_digits", SPACE, fields=fields, metric="validation/error")
    assert (given.judged_by, given.mode) == ("validation/error", "min")
    by_loss = dataclasses.replace(usual, metric="validation/loss")
    assert dataclasses.replace(by_loss, fields=fields).judged_by == "validation/loss"


def test_the_least_error_wins(by_error: Sweep) -> None:
    found = trials(3.0, 1.0, 2.0, 1.5)
    assert best_trial(by_error, found) is found[1]
    assert [trial.number for trial in ranked(by_error, found)] == [1, 3, 2, 0]
    assert pareto_front(by_error, found) == (1, 3)
    assert donors(by_error, found, 1) == {0: 1}
    assert study_of(by_error, found)[0].best_trial.number == 1


def test_it_is_written_and_drawn_as_a_number(by_error: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert value_in_words(by_error, "validation/error", 0.25) == value_in_words(by_error, "test/error", 0.25) == "0.25"
    assert value_in_words(by_error, "validation/accuracy", 0.25) == "25.00 %"
    titles, rows = table_rows(by_error, trials(3.0, 1.0), ())
    assert titles[3:6] == ["validation/error", "images_per_second", "test/error"]
    assert [row[3] for row in rows] == ["1", "3"]
    axes = []
    from engine.search import reporting

    ordinary = reporting._over_field
    monkeypatch.setattr(reporting, "_over_field", lambda each, *rest: (axes.append(each), ordinary(each, *rest)))
    plot(by_error, trials(3.0, 1.0), (), {}, tmp_path)
    assert [line.get_ydata()[0] for line in axes[0].lines] == [3.0, 1.0]
    assert axes[0].get_ylabel() == "validation/error (lower is better)"
