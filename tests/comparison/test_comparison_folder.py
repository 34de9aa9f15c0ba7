"""Is the folder of a comparison used by that comparison and one process only, and is damage in it named?"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.comparison.folder import run_folder_names
from engine.tracking import open_console
from tests.comparison.conftest import PLAN, Runner


def test_a_folder_of_another_comparison_is_refused(recipes: Any, runner: Runner, tmp_path: Path) -> None:
    engine.compare(recipes, PLAN, (0,), tmp_path / "c")
    other = {"whole": recipes["whole"], "cut": dataclasses.replace(recipes["cut"], epochs=3)}
    with pytest.raises(engine.RunError, match="other fields of cut"):
        engine.compare(other, PLAN, (0,), tmp_path / "c")
    with pytest.raises(engine.RunError, match="seeds were 0 and are now 0, 1"):
        engine.compare(recipes, PLAN, (0, 1), tmp_path / "c")
    with pytest.raises(engine.RunError, match="recipes were whole, cut and are now cut, whole"):
        engine.compare(dict(reversed(recipes.items())), PLAN, (0,), tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").touch()
    with pytest.raises(engine.RunError, match=r"no comparison\.json, so it is no comparison; give another --run-dir"):
        engine.compare(recipes, PLAN, (0,), tmp_path / "d")


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


def test_the_default_folder_tells_comparisons_apart(
    recipes: Any, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner.stop_after = 0
    folders = {engine.compare(recipes, PLAN, seeds).run_dir for seeds in ((0,), (0, 1), (0,))}
    assert len(folders) == 2
    assert all(folder.parent == Path("runs") and folder.name.startswith("compare-") for folder in folders)


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
