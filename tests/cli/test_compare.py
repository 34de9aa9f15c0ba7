"""Does `local-learning compare` train what was asked, write one table, and refuse what is wrong?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from engine.cli.compare import recipes_and_plan, seeds_of
from engine.comparison import ComparedRecipe, Comparison
from engine.errors import PlanError, RecipeError
from engine.tasks import ACCURACY

TINY = ("epochs=2", "data.train_limit=130", "data.test_limit=100")
TWO = ("end_to_end_digits", "greedy_digits")
DIVERGES = "greedy_digits:optimizer.learning_rate=1e30"


@pytest.mark.slow
def test_two_recipes_and_one_that_fails(command: Any) -> None:
    words = ("compare", *TWO, DIVERGES, *TINY, "--seeds", "4,", "--run-dir", "c")
    answer = command(*words)
    assert answer.code == 3
    told = answer.err.splitlines()
    assert sum("starts" in line for line in told) == 3
    assert [line.split()[0] for line in told if "finished" in line or "failed" in line] == ["1/3", "2/3", "3/3"]
    assert "loss" not in answer.err.replace("loss term", ""), "progress of the runs goes to their logs"
    for said in ("gain (points)", "baseline", "c/comparison.md", "c/comparison.csv", "c/comparison.png", "learner"):
        assert said in answer.out
    for label in TWO:
        run = f"c/runs/{label}-seed4"
        assert "epoch 2" in Path(run, "log.txt").read_text()
        assert command("evaluate", run).code == 0
    assert command("export", "c/runs/greedy_digits-seed4", "--to", "net.safetensors").code == 0
    with Path("c/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == [*TWO, DIVERGES]
    assert [row["failed_seeds"] for row in rows] == ["0", "0", "1"]
    gain = float(rows[1]["test_accuracy_seed4"]) - float(rows[0]["test_accuracy_seed4"])
    assert float(rows[1]["gain"]) == pytest.approx(gain)
    assert "Failed" in Path("c/comparison.md").read_text()
    # Once more: what is finished is not repeated, what failed is.
    finished = {path: path.stat().st_mtime_ns for label in TWO for path in Path(f"c/runs/{label}-seed4").rglob("*")}
    again = command(*words, "--json")
    assert again.code == 3
    assert "2 of 3 runs are finished already" in again.err
    assert again.err.count("starts") == 1
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    values = again.json
    assert (values["status"], values["baseline"], values["seeds"]) == ("failed", TWO[0], [4])
    assert values["best"] in TWO
    assert "learner segment" in values["rows"][2]["failures"]["4"]
    assert values["rows"][1]["relative"]["memory"] < 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("epochs=2",), 2, "found no recipe, expected 1 or more"),
        ((*TWO, "method.num_segments=2"), 2, "end_to_end_digits: method.num_segments: there is no such field"),
        ((*TWO, "greedy_digits"), 2, "greedy_digits: given twice"),
        ((*TWO, "nothing_digits"), 2, "nothing_digits: recipe 'nothing_digits' does not exist"),
        ((*TWO, "seed=3"), 2, "--seeds"),
        ((*TWO, "greedy_digits:plan.window=3"), 2, "plan.window=3: belongs to the whole comparison"),
        ((*TWO, "--seeds", "0"), 2, "--seeds 0"),
        ((*TWO, "--seeds", "x"), 2, "--seeds x"),
        ((*TWO, "--seeds", "4,4"), 2, "seeds: found 4, 4"),
        ((*TWO, "--on", "process", "--address", "auto"), 2, "uses no Ray"),
        ((*TWO, "--on", "process", "plan.executor=ray"), 2, "contradicts"),
        ((*TWO, "--on", "ray", "--max-concurrent", "2"), 2, "one after another"),
        ((*TWO, "--max-concurrent", "0"), 2, "max_concurrent=0"),
        ((*TWO, "plan.replicas=2"), 2, "end_to_end_digits: plan.replicas=2, but plan.executor=process has one device"),
    ],
)
def test_input_that_cannot_be_used_ends_with_2(command: Any, words: tuple[str, ...], code: int, said: str) -> None:
    answer = command("compare", *words)
    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not Path("runs").exists()


def test_a_run_that_lost_a_peer_is_named(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ComparedRecipe("whole", {0: 0.5}, {0: 0.5}, {}, 1, None, None, None)
    cohort = ComparedRecipe("cohort", {0: 0.75}, {0: 0.75}, {}, 1, None, None, None, {0: "peer1 has left the cohort"})
    found = Comparison(Path("c"), "finished", (0,), ACCURACY, (whole, cohort), (), 1)
    monkeypatch.setattr("engine.comparison.compare", lambda *_: found)
    assert "cohort, seed 0: peer1 has left the cohort" in command("compare", *TWO).out.splitlines()
    rows = command("compare", *TWO, "--json").json["rows"]
    assert [row["disturbances"] for row in rows] == [{}, {"0": "peer1 has left the cohort"}]


def test_one_recipe_alone_is_told_by_its_scores(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    row = ComparedRecipe("alone", {0: 0.5, 1: 0.75}, {0: 0.5, 1: 0.5}, {}, 1, 2.0, 3.0, 4)

    def compare(recipes: Any, plan: Any, seeds: Any, *_: Any) -> Comparison:
        given.append((list(recipes), seeds))
        return Comparison(Path("c"), "finished", seeds, ACCURACY, (row,), (), 1)

    monkeypatch.setattr("engine.comparison.compare", compare)
    answer = command("compare", TWO[0], "--seeds", "2")
    assert (answer.code, given) == (0, [([TWO[0]], (0, 1))])
    assert "62.50 ± 17.68 %" in answer.out
    for said in ("gain", "baseline", "(best)", "compute"):
        assert said not in answer.out
    assert command("compare", TWO[0], "--seeds", "2", "--json").json["best"] is None


def test_changes_of_all_recipes_and_of_one() -> None:
    own = "greedy_digits:method.num_segments=4,backbone.widths=4,4,8,epochs=5"
    recipes, plan = recipes_and_plan(["epochs=2", *TWO, own, "plan.window=7"], None, None)
    assert list(recipes) == [*TWO, own]
    assert [recipe.epochs for recipe in recipes.values()] == [2, 2, 5]
    assert recipes[own].method.num_segments == 4  # type: ignore[union-attr]
    assert recipes[own].backbone.widths == (4, 4, 8)
    assert (plan.executor, plan.window) == ("process", 7)


def test_recipes_in_files_are_labelled_by_their_names(tmp_path: Path) -> None:
    for folder, name in (("a", "first"), ("b", "first"), ("c", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(
            "import dataclasses, engine\n"
            f"def recipe():\n    return dataclasses.replace(engine.load_recipe('greedy_digits'), name={name!r})\n"
        )
    words = [str(tmp_path / folder / "own.py") for folder in "abc"]
    recipes, _ = recipes_and_plan([*words, f"{words[0]}:epochs=3"], None, None)
    assert list(recipes) == ["first", words[1], "second", "first:epochs=3"]


@pytest.mark.parametrize(
    ("fields", "on", "address", "executor"),
    [
        ([], None, None, "process"),
        ([], "ray", None, "ray"),
        ([], None, "auto", "ray"),
        (["plan.address=auto"], None, None, "ray"),
        (["plan.executor=ray"], None, None, "ray"),
        (["plan.executor=ray"], "ray", None, "ray"),
    ],
)
def test_flags_and_fields_say_where(fields: list[str], on: Any, address: Any, executor: str) -> None:
    assert recipes_and_plan([*TWO, *fields], on, address)[1].executor == executor


def test_a_field_that_is_given_twice_is_an_error() -> None:
    with pytest.raises(RecipeError, match="plan.address: given twice"):
        recipes_and_plan([*TWO, "plan.address=a:1", "plan.address=a:1"], None, "a:1")
    with pytest.raises(PlanError, match="contradicts"):
        recipes_and_plan([*TWO, "plan.address=a:1"], None, "b:1")


@pytest.mark.parametrize(
    ("text", "seeds"), [("1", (0,)), ("3", (0, 1, 2)), ("4,7", (4, 7)), ("4,", (4,)), ("0, 2", (0, 2))]
)
def test_seeds_are_a_number_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "1.5", "a", "1,,2", ",", "1,x", "²", "99999999999", "2147483648,1", "9" * 5000, "1," + "9" * 5000],
)
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--seeds .*: expected a number of seeds such as 3") as refused:
        seeds_of(text)
    assert len(str(refused.value)) < 300
