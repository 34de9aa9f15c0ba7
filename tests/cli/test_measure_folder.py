"""Does `measure --out` replace what an earlier measurement wrote, and nothing else?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.benchmarking.output_folder import check_measurement_folder
from engine.errors import RunError

FILES = ("measure.json", "measure.md", "measure.png", "timeline.json", "timeline.png")


def _with(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_what_an_earlier_measurement_wrote_may_be_replaced(tmp_path: Path) -> None:
    check_measurement_folder(tmp_path / "missing")
    check_measurement_folder(_with(tmp_path / "empty"))
    check_measurement_folder(_with(tmp_path / "earlier", *FILES))
    check_measurement_folder(_with(tmp_path / "cut", *FILES[:1], ".measure.md.4711.tmp"))


@pytest.mark.parametrize("names", [("notes.txt",), (*FILES, "notes.txt"), ("timeline.json",), ("recipe.json",)])
def test_other_files_are_left_alone(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = _with(tmp_path / "mine", *names)
    with pytest.raises(RunError, match="--out .*/mine: holds other files than those of an earlier measurement"):
        check_measurement_folder(folder)


def test_the_recipe_may_be_a_folder_with_an_equals_sign_in_its_path(
    command: Any, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(recipe: Any, *_: Any) -> None:
        measured.append(recipe.name)
        raise RunError("measured")

    monkeypatch.setattr("engine.benchmarking.measure", measure)
    run_dir.rename("lr=0.1")
    assert "measured" in command("measure", "lr=0.1", "plan.executor=process").err
    assert measured == ["infopro_digits"]


def test_the_command_measures_nothing_before_that(command: Any) -> None:
    folder = _with(Path("mine"), "recipe.json")
    words = ("measure", "infopro_digits", "plan.executor=process", "--out", "mine")
    answer = command(*words)
    assert answer.code == 2
    assert "mine: holds other files than those of an earlier measurement (recipe.json); give" in answer.err
    assert [path.name for path in folder.iterdir()] == ["recipe.json"]
