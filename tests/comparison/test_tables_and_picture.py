"""Are the tables and the picture of compared recipes right, also where runs failed and labels are long?"""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from engine.comparison.picture import plot_compared
from engine.comparison.result import ComparedRecipe, best_on_validation, paired_gains, relative_costs
from engine.comparison.tables import compared_csv, compared_markdown, compared_text, format_gain
from engine.tasks import ACCURACY

SEEDS = (0, 1, 2)
BASELINE = ComparedRecipe(
    "end_to_end", {0: 0.90, 1: 0.91, 2: 0.92}, {0: 0.8, 1: 0.8, 2: 0.8}, {}, 1000, 4e6, 200.0, 3000
)
BETTER = ComparedRecipe("better", {2: 0.95, 0: 0.92, 1: 0.93}, {0: 0.9, 1: 0.8, 2: 0.8}, {}, 1250, 6e6, 100.0, 1500)
HALF = ComparedRecipe("half", {1: 0.99}, {1: 0.99}, {0: "it diverged", 2: "out of | memory"}, 1000, None, 50.0, None)
FAILED = ComparedRecipe("none:" + "method.some_field=1," * 5, {}, {}, dict.fromkeys(SEEDS, "no"), 9, None, None, None)
ALL = (BASELINE, BETTER, HALF, FAILED)


def test_gains_are_paired_by_seed_not_by_place() -> None:
    assert paired_gains(BETTER, BASELINE, ACCURACY) == pytest.approx({2: 0.03, 0: 0.02, 1: 0.02})
    assert paired_gains(HALF, BASELINE, ACCURACY) == pytest.approx({1: 0.08})
    assert paired_gains(FAILED, BASELINE, ACCURACY) == {}


def test_costs_are_multiples_of_the_baselines() -> None:
    assert relative_costs(BETTER, BASELINE) == {"parameters": 1.25, "compute": 1.5, "time": 2.0, "memory": 0.5}
    assert relative_costs(HALF, BASELINE) == {"parameters": 1.0, "compute": None, "time": 4.0, "memory": None}
    assert relative_costs(BETTER, HALF)["compute"] is None


def test_a_gain_over_some_of_the_seeds_says_so() -> None:
    third = dataclasses.replace(BETTER, test_scores={2: 0.95, 1: 0.93}, failures={0: "no"})
    first = dataclasses.replace(BASELINE, test_scores={0: 0.90, 2: 0.92}, failures={1: "no"})
    text = compared_text((first, third, FAILED), SEEDS, ACCURACY).splitlines()
    assert "+3.00, 1 of 3 seeds" in text[3]
    assert "2 of 3, 1 failed" in text[2] and "2 of 3, 1 failed" in text[3]
    assert "of 3 seeds" not in text[4], "where there is no gain there is nothing to say of it"
    rows = list(csv.DictReader(io.StringIO(compared_csv((first, third, FAILED), SEEDS, ACCURACY))))
    assert [row["gain_seeds"] for row in rows] == ["", "1", "0"]


def test_the_best_has_finished_every_seed() -> None:
    assert best_on_validation(ALL, SEEDS, ACCURACY) == "better"
    assert best_on_validation((BASELINE, HALF), (1,), ACCURACY) == "half"
    assert best_on_validation((HALF, FAILED), SEEDS, ACCURACY) is None


def test_of_equal_ones_the_first_is_best() -> None:
    again = ComparedRecipe("again", {}, {0: 0.1, 1: 0.8, 2: 1.5}, {}, 1, None, None, None)
    assert best_on_validation((BASELINE, again), SEEDS, ACCURACY) == "end_to_end"
    assert best_on_validation((again, BASELINE), SEEDS, ACCURACY) == "again"


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    ours, theirs = (list(dict(sorted(row.test_scores.items())).values()) for row in (BETTER, BASELINE))
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    gains = list(paired_gains(BETTER, BASELINE, ACCURACY).values())
    assert format_gain(ACCURACY, gains) == f"+2.33 [{100 * expected.low:+.2f}, {100 * expected.high:+.2f}]"
    assert format_gain(ACCURACY, [-0.0125]) == "-1.25"
    assert format_gain(ACCURACY, []) == "-"


def test_text_is_aligned_and_marks_the_best() -> None:
    header, line, *rows = compared_text(ALL, SEEDS, ACCURACY).splitlines()
    assert len({len(header), len(line), *map(len, rows)}) == 1
    assert [row.split()[0] for row in rows[:3]] == ["end_to_end", "better", "half"]
    assert ["(best)" in row for row in rows] == [False, True, False, False]
    assert "91.00 ± 1.00 %" in rows[0] and "baseline" in rows[0]
    assert "1 of 3, 2 failed" in rows[2] and "+8.00" in rows[2]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    page = compared_markdown("title", ALL, SEEDS, ACCURACY, ["epochs 2 against 1"], ["a note"])
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ALL)
    assert {line.replace("\\|", "").count("|") for line in table} == {10}
    for said in ("# title", "epochs 2 against 1", "half, seed 2: out of \\| memory", "a note"):
        assert said in page
    plain = compared_markdown("title", (BASELINE, BETTER), SEEDS, ACCURACY, [], ["a note"])
    assert "Failed" not in plain and "budget" not in plain and "Disturbed" not in plain
    disturbed = dataclasses.replace(BETTER, disturbances={2: "peer1 has left the cohort"})
    page = compared_markdown("title", (BASELINE, disturbed), SEEDS, ACCURACY, [], ["a note"])
    assert "**Disturbed:**\n\n- better, seed 2: peer1 has left the cohort\n" in page


def test_csv_keeps_every_digit() -> None:
    rows = list(csv.DictReader(io.StringIO(compared_csv(ALL, SEEDS, ACCURACY))))
    assert [row["recipe"] for row in rows] == [row.label for row in ALL]
    assert float(rows[1]["test_accuracy"]) == statistics.fmean(BETTER.test_scores.values())
    assert [rows[1][f"test_accuracy_seed{seed}"] for seed in SEEDS] == ["0.92", "0.93", "0.95"]
    assert rows[0]["gain"] == rows[0]["gain_half_width_95"] == ""
    assert rows[2]["gain_half_width_95"] == rows[2]["test_accuracy_seed0"] == rows[3]["test_accuracy"] == ""
    assert [row["best_on_validation"] for row in rows] == ["0", "1", "0", "0"]


def test_one_recipe_alone_has_no_columns_beside_its_scores() -> None:
    header, _, line = compared_text([BASELINE], SEEDS, ACCURACY).splitlines()
    assert header.split() == ["recipe", "test", "accuracy", "validation", "accuracy", "seeds"]
    assert " ".join(line.split()) == "end_to_end 91.00 ± 1.00 % 80.00 ± 0.00 % 3"
    page = compared_markdown("title", [HALF], SEEDS, ACCURACY, [], ["a note"])
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {5} and "1 of 3, 2 failed" in table[-1]
    (row,) = csv.DictReader(io.StringIO(compared_csv([BASELINE], SEEDS, ACCURACY)))
    assert (row["gain"], row["best_on_validation"], row["parameters"]) == ("", "0", "1000")


# Of the drawing; files that an earlier test left open are let go at any time.
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("rows", "width"),
    [((BASELINE, BETTER), 2025), (ALL, 2025), ((FAILED, BASELINE), 2025), ((BASELINE,), 1125), ((FAILED,), 1125)],
    ids=["two", "all", "baseline failed", "alone", "alone and failed"],
)
def test_any_rows_are_drawn(tmp_path: Path, rows: tuple[ComparedRecipe, ...], width: int) -> None:
    plot_compared(rows, SEEDS, ACCURACY, tmp_path / "comparison.png", "title $x$")
    with Image.open(tmp_path / "comparison.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] == width
    assert len(np.unique(pixels)) > 10
    # Nothing is cut off: no ink touches the edges of the picture.
    assert min(pixels[0].min(), pixels[-1].min(), pixels[:, 0].min(), pixels[:, -1].min()) == 255
