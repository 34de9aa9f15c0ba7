"""Does what a refusal of a run folder, checkpoint, mirror or comparison says lead to the result, and lose nothing?"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.data import Source, open_source
from engine.recipes import GKT, Distillation, Recipe
from engine.search import begin_from
from engine.training.export import export_network
from engine.training.holding import hold, release

TinyRecipe = Callable[..., Recipe]
Refused = Callable[..., re.Match[str]]
Broken = Callable[[int, Callable[[], None]], None]

pytestmark = pytest.mark.slow

# 8 steps, 4 in an epoch; checkpoints after every second one, two of which are kept.
PLAN = engine.Plan(executor="process", checkpoint_every_steps=2)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than the training."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """A function: step of the run, from 1, and what happens while its batch is made; images are decoded when needed."""

    def arrange(step: int, happen: Callable[[], None]) -> None:
        def opened(*arguments: Any, **named: Any) -> Source:
            source = open_source(*arguments, **named, stored_limit_bytes=0)
            make, steps = source.batch, source.steps_per_epoch()

            def batch(epoch: int, index: int) -> Any:
                if epoch * steps + index + 1 == step:
                    happen()
                return make(epoch, index)

            monkeypatch.setattr(source, "batch", batch)
            return source

        monkeypatch.setattr("engine.training.session.open_source", opened)

    return arrange


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder but its log."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "log.txt" and ".lock" not in name}


def test_a_folder_of_another_recipe(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    recipe, folder = tiny_recipe(), tmp_path / "run"
    other = dataclasses.replace(recipe, seed=7)
    engine.train(recipe, PLAN, folder, until_step=2)
    before = content(folder)
    refused("give another --run-dir, or --resume never", lambda: engine.train(other, PLAN, folder))
    assert engine.train(other, PLAN, tmp_path / "other").status == "finished"
    assert engine.train(other, PLAN, folder, resume="never").run_dir != folder
    assert content(folder) == before


def test_a_folder_without_its_recipe(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    refused("give another --run-dir", lambda: engine.train(tiny_recipe(), PLAN, folder))
    assert engine.train(tiny_recipe(), PLAN, tmp_path / "other").status == "finished"
    refused("give the name of a folder", lambda: engine.train(tiny_recipe(), PLAN, folder / "notes.txt"))
    assert content(folder) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_run_whose_recipe_is_gone_goes_on_from_its_checkpoint(
    damage: str, tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused
) -> None:
    recipe, folder = tiny_recipe(), tmp_path / "run"
    engine.train(recipe, PLAN, folder, until_step=4)
    (folder / "recipe.json").unlink()
    if damage == "damaged":
        (folder / "recipe.json").write_text("{")
    other = dataclasses.replace(recipe, seed=7)
    refused("recipe.json.*give another --run-dir", lambda: engine.train(other, PLAN, folder))
    result = engine.train(recipe, PLAN, folder)
    assert "(step 4 of 8)" in (folder / "log.txt").read_text()
    assert result.weights_sha256 == engine.train(recipe, PLAN, tmp_path / "straight").weights_sha256
    # Of a finished run, too.
    (folder / "recipe.json").write_text("{")
    assert engine.train(recipe, PLAN, folder) == result
    assert engine.load(folder).recipe == recipe


def test_a_folder_that_another_process_holds(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = hold(folder, "training")
    refused("wait for it, or give another --run-dir", lambda: engine.train(tiny_recipe(), PLAN, folder))
    assert engine.train(tiny_recipe(), PLAN, tmp_path / "other").status == "finished"
    release(lock)
    assert engine.train(tiny_recipe(), PLAN, folder).status == "finished"


@pytest.mark.parametrize("steps", [4, None])
@pytest.mark.parametrize("loss", ["removed", "damaged"])
def test_a_run_without_a_whole_checkpoint(
    loss: str, steps: int | None, tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused
) -> None:
    recipe, folder = tiny_recipe(), tmp_path / "run"
    engine.train(recipe, PLAN, folder, until_step=steps)
    for checkpoint in (folder / "checkpoints").iterdir():
        if loss == "removed":
            shutil.rmtree(checkpoint)
        else:
            (checkpoint / "MANIFEST.json").write_text("{")
    words = "train the recipe first, or, where its run is finished, once more with --resume never"
    refused(words, lambda: engine.load(folder))
    again = engine.train(recipe, PLAN, folder, resume="auto" if steps else "never")
    assert engine.evaluate(engine.load(again.run_dir))["test/accuracy"] == again.test_score


def test_a_checkpoint_of_another_recipe(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    recipe, folder = tiny_recipe(), tmp_path / "run"
    engine.train(dataclasses.replace(recipe, seed=7), PLAN, folder, until_step=2)
    (folder / "recipe.json").write_text(json.dumps(engine.recipes.recipe_to_dict(recipe)))
    found = refused(
        r"(\S+): belongs to another recipe .*move it away, or give another", lambda: engine.train(recipe, PLAN, folder)
    )
    assert engine.train(recipe, PLAN, tmp_path / "other").status == "finished"
    shutil.move(found[1], tmp_path / "aside")
    assert engine.train(recipe, PLAN, folder).status == "finished"


def test_a_folder_that_is_moved_while_it_trains(
    tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused, at_step: Broken
) -> None:
    recipe, folder, moved = tiny_recipe(), tmp_path / "run", tmp_path / "moved"
    at_step(6, lambda: folder.rename(moved) and None)
    refused("giving its new place as --run-dir; otherwise the same", lambda: engine.train(recipe, PLAN, folder))
    at_step(99, lambda: None)
    straight = engine.train(recipe, PLAN, folder)
    assert engine.train(recipe, PLAN, moved).weights_sha256 == straight.weights_sha256
    assert "goes on from" in (moved / "log.txt").read_text()


def test_a_checkpoint_that_the_next_one_builds_on(
    tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused, at_step: Broken
) -> None:
    recipe, folder = tiny_recipe(method=GKT(), epochs=4), tmp_path / "run"
    plan = dataclasses.replace(PLAN, checkpoint_every_steps=4)
    at_step(12, lambda: shutil.rmtree(folder / "checkpoints" / "step-000008"))
    refused("Start the same command again: it goes on from the newest", lambda: engine.train(recipe, plan, folder))
    at_step(99, lambda: None)
    result = engine.train(recipe, plan, folder)
    assert "goes on from" in (folder / "log.txt").read_text()
    assert result.weights_sha256 == engine.train(recipe, plan, tmp_path / "straight").weights_sha256


def write_pictures(root: Path) -> Path:
    """Write 8 training and 4 test pictures of two classes."""
    from PIL import Image

    for number in range(12):
        path = root / ("train" if number < 8 else "test") / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number, 0, 255 - 20 * number)).save(path)
    return root


def of_pictures(tiny_recipe: TinyRecipe, root: Path) -> Recipe:
    """Return the recipe on a folder of pictures: 2 steps in each of 8 epochs."""
    limits = {"train_limit": None, "test_limit": None}
    return tiny_recipe(epochs=8, data={"name": "folder", "root": str(root), "image_size": 8, "batch_size": 4, **limits})


def test_a_picture_that_is_damaged_while_a_run_trains(
    tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused, at_step: Broken
) -> None:
    root = write_pictures(tmp_path / "set")
    recipe, folder = of_pictures(tiny_recipe, root), tmp_path / "run"
    picture = root / "train" / "class0" / "2.png"
    whole = picture.read_bytes()
    at_step(5, lambda: picture.write_bytes(bytes(len(whole))) and None)
    refused("put the same file back, and the same command goes on", lambda: engine.train(recipe, PLAN, folder))
    picture.write_bytes(whole)
    at_step(99, lambda: None)
    result = engine.train(recipe, PLAN, folder)
    assert "goes on from" in (folder / "log.txt").read_text()
    assert result.weights_sha256 == engine.train(recipe, PLAN, tmp_path / "straight").weights_sha256


def test_images_that_are_others_now(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    root = write_pictures(tmp_path / "set")
    recipe, folder = of_pictures(tiny_recipe, root), tmp_path / "run"
    engine.train(recipe, PLAN, folder, until_step=4)
    picture = root / "train" / "class0" / "2.png"
    picture.rename(tmp_path / "2.png")
    words = "give the same images and labels"
    refused(f"{words}, or another --run-dir", lambda: engine.train(recipe, PLAN, folder))
    refused(words, lambda: engine.evaluate(engine.load(folder)))
    assert engine.train(recipe, PLAN, tmp_path / "other").status == "finished"
    (tmp_path / "2.png").rename(picture)
    assert engine.evaluate(engine.load(folder))
    assert engine.train(recipe, PLAN, folder).status == "finished"
    assert "(step 4 of 16)" in (folder / "log.txt").read_text()


def test_a_teacher_whose_weights_are_others(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    teachers = [tmp_path / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, file in enumerate(teachers):
        engine.train(tiny_recipe(seed=seed), PLAN, tmp_path / f"teacher{seed}")
        export_network(engine.load(tmp_path / f"teacher{seed}"), file)
    file, folder = tmp_path / "teacher.safetensors", tmp_path / "run"
    recipe = tiny_recipe(method=Distillation(teacher=str(file)))
    shutil.copy(teachers[0], file)
    engine.train(recipe, PLAN, folder, until_step=4)
    shutil.copy(teachers[1], file)
    refused("give back the old ones, or start anew with --resume never", lambda: engine.train(recipe, PLAN, folder))
    assert engine.train(recipe, PLAN, folder, resume="never").run_dir != folder
    shutil.copy(teachers[0], file)
    assert engine.train(recipe, PLAN, folder).status == "finished"
    assert "(step 4 of 8)" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("steps", [4, None])
def test_a_damaged_line_among_the_metrics(
    steps: int | None, tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused
) -> None:
    recipe, folder = tiny_recipe(), tmp_path / "run"
    plan = dataclasses.replace(PLAN, report_every_steps=1)
    engine.train(recipe, plan, folder, until_step=steps)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([lines[0], "{damaged\n", *lines[1:]]))
    found = refused(r"line (\d+): .*remove that line", lambda: engine.load(folder).metrics())
    lines.insert(1, "")
    assert lines.pop(int(found[1]) - 1) == ""
    metrics.write_text("".join(lines))
    assert len(engine.load(folder).metrics()) == len(lines)
    result = engine.train(recipe, plan, folder)
    assert result.weights_sha256 == engine.train(recipe, plan, tmp_path / "straight").weights_sha256
    assert len(engine.load(folder).metrics()) == len(engine.load(tmp_path / "straight").metrics())


def test_a_run_that_cannot_begin_from_another(tiny_recipe: TinyRecipe, tmp_path: Path, refused: Refused) -> None:
    recipe = tiny_recipe(seed=7)
    engine.train(tiny_recipe(), PLAN, tmp_path / "donor", until_step=4)
    engine.train(recipe, PLAN, tmp_path / "run", until_step=2)
    before = content(tmp_path / "run")
    refused("give another folder", lambda: begin_from(tmp_path / "donor", recipe, tmp_path / "run"))
    begin_from(tmp_path / "donor", recipe, tmp_path / "other")
    assert content(tmp_path / "run") == before
    assert engine.train(recipe, PLAN, tmp_path / "other").status == "finished"
