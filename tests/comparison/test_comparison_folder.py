"""Is the folder of a comparison used by that comparison and one process only, and is damage in it named?"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.comparison.folder import ComparisonFolder, comparison_content, run_folder_names, with_compared_cuts
from engine.tracking import open_console
from tests.comparison.conftest import PLAN, Runner


def test_a_folder_of_another_comparison_is_refused(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    other = {"whole": recipes["whole"], "cut": dataclasses.replace(recipes["cut"], epochs=3)}
    with pytest.raises(engine.RunError, match="other fields of cut"):
        engine.compare(other, PLAN, (0,), tmp_path / "c")
    with pytest.raises(engine.RunError, match="recipes were whole, cut and are now cut, whole"):
        engine.compare(dict(reversed(recipes.items())), PLAN, (0,), tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").touch()
    with pytest.raises(engine.RunError, match=r"no comparison\.json, so it is no comparison; give another --run-dir"):
        engine.compare(recipes, PLAN, (0,), tmp_path / "d")


@pytest.mark.slow
def test_finished_runs_on_other_images_are_refused(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    def on(seed: int, where: str) -> dict[str, Any]:
        drawn = np.random.default_rng(seed)
        for split, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(20)):
            folder = tmp_path / where / split / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        data = dataclasses.replace(
            recipes["whole"].data, name="folder", root=str(tmp_path / where), train_limit=None, test_limit=None
        )
        return {"whole": dataclasses.replace(recipes["whole"], data=data)}

    first, other = on(0, "first"), on(1, "other")
    engine.compare(first, PLAN, (0,), tmp_path / "c")
    told = (
        r"whole, seed 0: .*step-\d+: was trained on other images than data.root=.*/other holds now .*another --run-dir"
    )
    with pytest.raises(engine.RunError, match=told):
        engine.compare(other, PLAN, (0, 1), tmp_path / "c")
    (tmp_path / "other").rename(tmp_path / "away")
    (tmp_path / "first").rename(tmp_path / "other")
    assert len(engine.compare(other, PLAN, (0, 1), tmp_path / "c").rows[0].test_scores) == 2, (
        "moved images are the same"
    )
    assert runner.trained == [("whole", 0), ("whole", 1)]


def test_measured_cuts_are_found_again_where_a_seed_was_put_in_front(recipes: Any, tmp_path: Path) -> None:
    method = dataclasses.replace(recipes["cut"].method, cuts="measured")
    asked = {"cut": dataclasses.replace(recipes["cut"], method=method, seed=4)}
    cuts = ("layer1_0",)
    chosen = {"cut": dataclasses.replace(asked["cut"], method=dataclasses.replace(method, num_segments=2, cuts=cuts))}
    asked = {"cut": dataclasses.replace(asked["cut"], method=dataclasses.replace(method, num_segments=2))}
    ComparisonFolder(tmp_path, comparison_content(asked, (4, 7), chosen)).close()
    again = {"cut": dataclasses.replace(asked["cut"], seed=0)}
    assert with_compared_cuts(again, tmp_path)["cut"] == dataclasses.replace(chosen["cut"], seed=0)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a list": lambda path: path.write_text("[]"),
    "other types": lambda path: path.write_text('{"seeds": 1, "recipes": {"whole": 2}, "whole": "x"}'),
    "nested deep": lambda path: path.write_text("[" * 100_000),
    "20 gigabytes": lambda path: os.truncate(path, 20 * 2**30),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


def test_what_is_damaged_in_its_folder_is_named(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    first = engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    content = (tmp_path / "c" / "comparison.json").read_bytes()
    for damage, spoil in DAMAGES.items():
        spoil(tmp_path / "c" / "costs.json")
        told = open_console(io.StringIO(), quiet=True)
        assert engine.compare(recipes, PLAN, (0,), tmp_path / "c", console=told).rows == first.rows, damage
        spoil(tmp_path / "c" / "comparison.json")
        with pytest.raises(engine.RunError, match=r"comparison\.json: .*give another --run-dir, or --resume never"):
            engine.compare(recipes, PLAN, (0,), tmp_path / "c")
        (tmp_path / "c" / "comparison.json").unlink()
        (tmp_path / "c" / "comparison.json").write_bytes(content)
    assert runner.trained == [("whole", 0), ("cut", 0)]


@pytest.fixture
def trained_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the counting of operations, and curves.png, which take longer than the training."""
    monkeypatch.setattr("engine.comparison.driver.training_flops_per_image", lambda recipe: 1.0)
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.mark.usefixtures("trained_only")
def test_seeds_are_added_and_what_is_finished_is_not_trained_again(
    recipes: Any, runner: Runner, tmp_path: Path
) -> None:
    first = engine.compare(recipes, PLAN, (1,), tmp_path / "c")
    before = contents(tmp_path / "c" / "runs")
    found = engine.compare(recipes, PLAN, (0, 1), tmp_path / "c")
    assert runner.trained == [("whole", 1), ("cut", 1), ("whole", 0), ("cut", 0)]
    after = contents(tmp_path / "c" / "runs")
    assert before.items() <= after.items() and len(after) == 4
    for earlier, row in zip(first.rows, found.rows, strict=True):
        assert list(row.test_scores) == [0, 1]
        assert earlier.test_scores.items() <= row.test_scores.items()
    assert "over the seeds (0, 1)" in (tmp_path / "c" / "comparison.md").read_text()
    assert engine.compare(recipes, PLAN, (1, 0), tmp_path / "c").status == "finished"
    words = r"seeds were 1, 0 and are now 0, 7\): to go on with all of them, give --seeds 1,0,7; for these seeds alone,"
    with pytest.raises(engine.RunError, match=f"{words} give another --run-dir, or --resume never"):
        engine.compare(recipes, PLAN, (0, 7), tmp_path / "c")
    with pytest.raises(engine.RunError, match="seeds were 1, 0 and are now 0.*give --seeds 2;"):
        engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    assert len(runner.trained) == 4


def contents(folder: Path) -> dict[str, str]:
    """Return what was trained in each run folder: its summary."""
    return {run.name: (run / "summary.json").read_text() for run in folder.iterdir()}


def test_the_default_folder_tells_recipes_apart_and_no_seeds(
    recipes: Any, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner.stop_after = 0
    other = {label: dataclasses.replace(recipe, epochs=2) for label, recipe in recipes.items()}
    folders = [engine.compare(recipes, PLAN, seeds).run_dir for seeds in ((0,), (0, 1), (3, 1, 0))]
    folders += [engine.compare(other, PLAN, (0,)).run_dir, engine.compare(dict([*recipes.items()][:1]), PLAN).run_dir]
    assert len(set(folders[:3])) == 1 and len(set(folders)) == 3
    assert all(folder.parent == Path("runs") and folder.name.startswith("compare-") for folder in folders)


@pytest.mark.usefixtures("trained_only")
def test_a_folder_that_was_named_by_its_seeds_is_found_with_more_of_them(
    recipes: Any, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As version 0.1.0 has named it."""
    monkeypatch.chdir(tmp_path)
    del recipes["cut"]
    named_now = engine.compare(recipes, PLAN, (0, 1)).run_dir
    content = json.loads((named_now / "comparison.json").read_text())
    identities = [[label, each["identity"]] for label, each in content["recipes"].items()]
    digest = hashlib.sha256(json.dumps([[0, 1], identities]).encode()).hexdigest()
    before = named_now.rename(Path("runs") / f"compare-{digest[:8]}")
    assert before != named_now
    for seeds, number in (((0, 1), 2), ((0, 1, 2), 3), ((0, 1, 2), 3)):
        assert engine.compare(recipes, PLAN, seeds).run_dir == before
        assert len(runner.trained) == number
    with pytest.raises(engine.RunError, match="seeds were 0, 1, 2 and are now 0, 1"):
        engine.compare(recipes, PLAN, (0, 1))
    runner.stop_after = len(runner.trained)
    assert engine.compare(recipes, PLAN, (4, 5)).run_dir == named_now
    assert engine.compare(recipes, PLAN, (0, 1), resume="never").run_dir == before.with_name(f"{before.name}-2")


def test_every_label_has_a_folder_of_its_own() -> None:
    labels = ["a:b=1", "a_b=1", "A_b=1", "x/y", "x" * 300, "x" * 299 + "y", "..", "plain"]
    names = run_folder_names(labels)
    assert len({name.lower() for name in names.values()}) == len(labels)
    assert names["plain"] == "plain"
    assert all("/" not in name and 0 < len(name) <= 120 and not name.startswith(".") for name in names.values())


def test_a_folder_that_cannot_be_written_is_refused_before_images_are_looked_at(recipes: Any, tmp_path: Path) -> None:
    missing = {
        label: dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, name="folder", root="/nowhere"))
        for label, recipe in recipes.items()
    }
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "c", tmp_path / ("x" * 300)):
        for resume in ("auto", "never"):
            with pytest.raises(engine.RunError, match="--run-dir"):
                engine.compare(missing, PLAN, (0,), folder, resume=resume)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_comparison_left_is_removed(recipes: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("engine.comparison.driver.run_jobs", lambda *_: False)
    left = tmp_path / "c" / ".comparison.json.4711.tmp"
    left.parent.mkdir()
    left.write_text("half")
    os.utime(left, (0, 1_000_000_000))
    engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    assert not left.exists()


def test_only_one_process_compares_in_a_folder(recipes: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def compare_again(*_: Any) -> bool:
        with pytest.raises(engine.RunError, match="another process is comparing"):
            engine.compare(recipes, PLAN, (0,), tmp_path / "c")
        return False

    monkeypatch.setattr("engine.comparison.driver.run_jobs", compare_again)
    assert engine.compare(recipes, PLAN, (0,), tmp_path / "c").status == "interrupted"
