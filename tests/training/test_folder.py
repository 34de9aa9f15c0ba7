"""Is a run folder used by its own recipe and its own images only, and is nothing in it lost?"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.recipes import SGD, Backbone, Data, Recipe
from engine.training import load
from tests.training.conftest import _contents

TinyRecipe = Callable[..., Recipe]
IN_PROCESS = engine.Plan(executor="process")


def test_another_recipe_is_refused_and_the_difference_named(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(2)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    before = _contents(tmp_path)
    other = tiny_recipe(optimizer=SGD(learning_rate=0.07), seed=3)
    with pytest.raises(engine.RunError) as caught:
        engine.train(other, IN_PROCESS, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "optimizer.learning_rate was 0.05 and is now 0.07" in message
    assert "seed was 0 and is now 3" in message
    assert "--run-dir" in message
    assert "--resume never" in message
    assert _contents(tmp_path) == before


def test_another_name_is_the_same_recipe(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(2)
    engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    interrupt_at(0)
    assert engine.train(tiny_recipe(name="other"), IN_PROCESS, tmp_path).status == "finished"


def test_a_folder_of_something_else_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(engine.RunError, match=r"no recipe.json, so it is no run folder; give another --run-dir"):
        engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    assert _contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_is_refused(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    for resume in ("auto", "never"):
        with pytest.raises(engine.RunError, match="is a file; give the name of a folder"):
            engine.train(tiny_recipe(), IN_PROCESS, path, resume=resume)
    assert path.read_text() == "years of work"


def test_an_empty_folder_is_used(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    assert engine.train(tiny_recipe(epochs=1), IN_PROCESS, tmp_path).run_dir == tmp_path


def test_default_folder_is_found_again(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch, interrupt_at: Callable[[int], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt_at(2)
    first = engine.train(tiny_recipe(), IN_PROCESS)
    interrupt_at(0)
    second = engine.train(tiny_recipe(), IN_PROCESS)
    other = engine.train(tiny_recipe(seed=1, epochs=1), IN_PROCESS)
    assert (first.status, second.status) == ("interrupted", "finished")
    assert first.run_dir == second.run_dir != other.run_dir
    assert first.run_dir.parent == tmp_path / "runs"
    assert first.run_dir.name.startswith("tiny-")


def test_resume_never_starts_beside_it(
    tmp_path: Path, tiny_recipe: TinyRecipe, interrupt_at: Callable[[int], None]
) -> None:
    folder = tmp_path / "run"
    interrupt_at(2)
    engine.train(tiny_recipe(), IN_PROCESS, folder)
    before = _contents(folder)
    interrupt_at(0)
    for number in (2, 3):
        result = engine.train(tiny_recipe(epochs=1), IN_PROCESS, folder, resume="never")
        assert result.run_dir == tmp_path / f"run-{number}"
        assert result.steps == 4
    assert _contents(folder) == before


def test_a_finished_run_is_returned_at_once(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    before = _contents(tmp_path)

    def refuse(*_: Any) -> None:
        raise AssertionError("images were opened")

    monkeypatch.setattr("engine.training.session.open_source", refuse)
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path) == first
    assert _contents(tmp_path) == before


def test_a_link_out_of_the_folder_is_refused_and_its_target_left_alone(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    thesis.chmod(0o600)
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "log.txt"):
        (folder / name).symlink_to(thesis)
        with pytest.raises(engine.RunError, match=name):
            engine.train(tiny_recipe(), IN_PROCESS, folder)
        (folder / name).unlink()
    (folder / "checkpoints").rmdir()
    (folder / "checkpoints").symlink_to(tmp_path / "another_run", target_is_directory=True)
    (tmp_path / "another_run" / "step-000001").mkdir(parents=True)
    with pytest.raises(engine.RunError, match=r"checkpoints: is a symbolic link; expected a folder of the run's own"):
        engine.train(tiny_recipe(), IN_PROCESS, folder)
    assert [each.name for each in (tmp_path / "another_run").iterdir()] == ["step-000001"]
    assert thesis.read_text() == "years of work"
    assert thesis.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("engine.training.folder.os.listdir", refuse)
        with pytest.raises(engine.RunError, match=f"{tmp_path}: may not be read by this user"):
            engine.train(tiny_recipe(), IN_PROCESS, tmp_path)
    monkeypatch.setattr("engine.training.runs.os.lstat", refuse)
    with pytest.raises(engine.RunError, match=f"{tmp_path}: may not be read by this user"):
        load(tmp_path)


def test_a_run_that_was_killed_before_its_recipe_was_there_starts_again(
    tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    for name in (".lock", ".recipe.json.123.tmp", "log.txt"):
        (tmp_path / name).write_text("")
    assert engine.train(tiny_recipe(), IN_PROCESS, tmp_path).status == "finished"


@pytest.fixture
def pictures_recipe(tmp_path: Path) -> Callable[[str], Recipe]:
    """A function: name of a folder with two classes of pictures, made unless it exists -> a recipe for them."""

    def make(name: str) -> Recipe:
        root = tmp_path / name
        if not root.exists():
            draws = np.random.default_rng(0)
            for split, number in (("train", 6), ("test", 4)):
                for kind in ("cat", "dog"):
                    (root / split / kind).mkdir(parents=True)
                    for index in range(number):
                        pixels = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                        Image.fromarray(pixels).save(root / split / kind / f"{index}.png")
        data = Data(name="folder", root=str(root), batch_size=4, image_size=8)
        return Recipe(name="tiny", backbone=Backbone(name="resnet14", widths=(4, 4, 4)), data=data, epochs=2,
                      method={"kind": "greedy"})  # fmt: skip

    return make


def test_the_images_may_move(
    tmp_path: Path, pictures_recipe: Callable[[str], Recipe], interrupt_at: Callable[[int], None]
) -> None:
    straight = engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "straight")
    interrupt_at(2)
    assert engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "moved").status == "interrupted"
    (tmp_path / "here").rename(tmp_path / "there")
    interrupt_at(0)
    moved = engine.train(pictures_recipe("there"), IN_PROCESS, tmp_path / "moved")
    assert (moved.status, moved.weights_sha256) == ("finished", straight.weights_sha256)


def test_other_images_are_refused(
    tmp_path: Path, pictures_recipe: Callable[[str], Recipe], interrupt_at: Callable[[int], None]
) -> None:
    interrupt_at(2)
    engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "run")
    checkpoints = _contents(tmp_path / "run" / "checkpoints")
    Image.new("RGB", (8, 8)).save(tmp_path / "here" / "train" / "cat" / "0.png")
    interrupt_at(0)
    with pytest.raises(engine.RunError, match=r"step-000002: was trained on other images than data.root=.*here"):
        engine.train(pictures_recipe("here"), IN_PROCESS, tmp_path / "run")
    assert _contents(tmp_path / "run" / "checkpoints") == checkpoints
