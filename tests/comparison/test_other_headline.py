"""A comparison by a score of which less is better, and which is no share: numbers, columns, the best, the pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import engine
from engine.comparison import ComparedRecipe, ComparisonRow, comparison_table, driver, picture, plot_comparison
from engine.comparison import side_by_side as methods
from engine.comparison.picture import plot_compared
from engine.comparison.result import best_on_validation, paired_gains
from engine.comparison.tables import compared_csv, compared_markdown, compared_text, format_gain
from engine.recipes import EndToEnd, Greedy, Recipe
from engine.tasks import ClassificationTask, Metric
from engine.tasks.metric import LOSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR = Metric("error", higher_is_better=False, is_share=False)
SEEDS = (0, 1)
WORSE = ComparedRecipe("worse", {0: 3.0, 1: 3.5}, {0: 2.0, 1: 2.5}, {}, 1000, 4e6, 200.0, 3000)
BETTER = ComparedRecipe("better", {0: 1.5, 1: 2.25}, {0: 1.0, 1: 1.5}, {}, 1000, 4e6, 200.0, 3000)
ROWS = (WORSE, BETTER)


def captured(monkeypatch: pytest.MonkeyPatch, room: Any) -> list[Figure]:
    found: list[Figure] = []
    monkeypatch.setattr(room, "write_figure", lambda figure, _: found.append(figure))
    return found


def drawn(figure: Figure, axes: int) -> set[float]:
    return {float(value) for line in figure.axes[axes].lines for value in line.get_xdata()}  # type: ignore[union-attr]


def test_less_is_better_and_a_gain_is_positive() -> None:
    assert best_on_validation(ROWS, SEEDS, ERROR) == "better"
    assert paired_gains(BETTER, WORSE, ERROR) == {0: 1.5, 1: 1.25}
    assert format_gain(ERROR, [0.5]) == "+0.5000"


def test_the_tables_name_it_and_print_numbers() -> None:
    header, _, worse, better = compared_text(ROWS, SEEDS, ERROR).splitlines()
    assert "test error" in header and "validation error" in header and "points" not in header
    assert "3.2500 ± 0.3536" in worse and "(best)" in better and "+1.3750 [" in better
    page = compared_markdown("title", ROWS, SEEDS, ERROR, [], [])
    assert "%" not in page and "accuracy" not in page
    rows = list(csv.DictReader(io.StringIO(compared_csv(ROWS, SEEDS, ERROR))))
    assert [row["test_error_seed1"] for row in rows] == ["3.5", "2.25"]
    assert [float(row["validation_error"]) for row in rows] == [2.25, 1.25]
    assert float(rows[1]["gain"]) == 1.375 and not any("accuracy" in name for name in rows[0])


def test_the_picture_draws_it_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = captured(monkeypatch, picture)
    plot_compared(ROWS, SEEDS, ERROR, tmp_path / "x.png", "title")
    (figure,) = figures
    assert {3.0, 3.5, 1.5, 2.25} <= drawn(figure, 0)
    assert {1.5, 1.25} <= drawn(figure, 1)
    assert figure.axes[0].get_xlabel() == "test error (lower is better)"


def test_methods_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [ComparisonRow("one", (0.5, 0.75), {}, math.nan)]
    header, _, line = comparison_table(rows, ERROR).splitlines()
    assert header.split()[2] == "error" and "0.6250 ± 0.1768" in line
    figures = captured(monkeypatch, methods)
    plot_comparison(rows, tmp_path / "x.png", "title", ERROR)
    assert {0.5, 0.75} <= drawn(figures[0], 0)


def test_recipes_are_trained_and_judged_by_it(
    monkeypatch: pytest.MonkeyPatch, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    def run_here(jobs: Any, plan: Any, slots: Any, started: Any, ended: Any) -> bool:
        for job in jobs:
            engine.train(job.recipe, plan, job.run_dir)
            ended(job, None)
        return True

    monkeypatch.setattr(ClassificationTask, "headline", LOSS)
    monkeypatch.setattr(driver, "run_jobs", run_here)
    monkeypatch.setattr(driver, "plot_compared", lambda *_: None)
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)
    recipes = {
        "whole": tiny_recipe(name="whole", method=EndToEnd(), epochs=1),
        "cut": tiny_recipe(name="cut", method=Greedy(num_segments=2), epochs=1),
    }
    found = engine.compare(recipes, engine.Plan(executor="process"), (3,), tmp_path)
    for row in found.rows:
        scores = engine.evaluate(engine.load(tmp_path / "runs" / f"{row.label}-seed3"))
        assert row.test_scores == {3: scores["test/loss"]} and row.validation_scores == {3: scores["validation/loss"]}
    assert found.best == min(found.rows, key=lambda row: row.validation_scores[3]).label
    assert found.to_json()["headline"] == "loss"
    assert "lowest mean loss" in (tmp_path / "comparison.md").read_text()
