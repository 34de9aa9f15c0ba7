"""Does what a refusal of a mirror, comparison or exported file says lead to the result, and lose nothing?"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine
from engine.cli.compare import seeds_of
from engine.errors import EngineError
from engine.recipes import Recipe
from engine.training.export import export_network

TinyRecipe = Callable[..., Recipe]

PLAN = engine.Plan(executor="process")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out curves.png, which takes longer than the training."""
    monkeypatch.setattr("engine.training.by_products.plot_curves", lambda *_: None)


def refused(words: str, call: Callable[[], Any]) -> re.Match[str]:
    """See a call refused with words that match, and return the match."""
    with pytest.raises(EngineError) as found:
        call()
    match = re.search(words, str(found.value), re.DOTALL)
    assert match, f"the message no longer says {words!r}: {found.value}"
    return match


def mirrored(place: Path) -> engine.Plan:
    """Return the plan of a run that is copied to a place."""
    return dataclasses.replace(PLAN, mirror=str(place))


@pytest.mark.slow
def test_a_new_run_beside_one_with_a_mirror(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe, folder, mirror = tiny_recipe(epochs=1), tmp_path / "run", tmp_path / "mirror"
    first = engine.train(recipe, mirrored(mirror), folder)
    before = (mirror / "summary.json").read_bytes()
    words = "give another plan.mirror, or --resume auto"
    refused(words, lambda: engine.train(recipe, mirrored(mirror), folder, resume="never"))
    again = engine.train(recipe, mirrored(tmp_path / "other"), folder, resume="never")
    assert again.weights_sha256 == first.weights_sha256 and again.run_dir != folder
    assert engine.train(recipe, mirrored(mirror), folder, resume="auto") == first
    assert (mirror / "summary.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("has_recipe", [True, False])
def test_a_mirror_that_is_further_than_its_run(has_recipe: bool, tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe, folder, mirror = tiny_recipe(), tmp_path / "run", tmp_path / "mirror"
    engine.train(recipe, mirrored(mirror), folder, until_step=4)
    engine.train(recipe, PLAN, tmp_path / "behind", until_step=2)
    if not has_recipe:
        (tmp_path / "behind" / "recipe.json").unlink()
    before = sorted((tmp_path / "behind").rglob("*"))
    words = "move that folder away to go on from the mirror, or give another plan.mirror"
    refused(words, lambda: engine.train(recipe, mirrored(mirror), tmp_path / "behind"))
    assert sorted((tmp_path / "behind").rglob("*")) == before
    other = engine.train(recipe, mirrored(tmp_path / "other"), tmp_path / "behind")
    (tmp_path / "behind").rename(tmp_path / "away")
    result = engine.train(recipe, mirrored(mirror), tmp_path / "behind")
    assert "(step 4 of 8)" in (result.run_dir / "log.txt").read_text()
    assert result.weights_sha256 == other.weights_sha256


def place_with_notes(tmp_path: Path) -> Path:
    """Return a folder that holds something else."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("mine")
    return tmp_path / "notes"


def place_with_a_damaged_recipe(tmp_path: Path) -> Path:
    """Return a mirror whose recipe cannot be read."""
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "recipe.json").write_text("{")
    return tmp_path / "damaged"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda folder: folder / "run" / "mirror", "give a place outside"),
        (place_with_notes, "give each run a place of its own"),
        (place_with_a_damaged_recipe, "give another plan.mirror"),
    ],
)
def test_a_place_that_is_none_for_a_mirror(
    place: Callable[[Path], Path], words: str, tiny_recipe: TinyRecipe, tmp_path: Path
) -> None:
    wrong = place(tmp_path)
    refused(words, lambda: engine.train(tiny_recipe(epochs=1), mirrored(wrong), tmp_path / "run"))
    assert engine.train(tiny_recipe(epochs=1), mirrored(tmp_path / "outside"), tmp_path / "run").status == "finished"
    assert (tmp_path / "outside" / "summary.json").is_file()


@pytest.mark.slow
def test_a_link_in_a_mirror(tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    recipe, folder, mirror = tiny_recipe(epochs=1), tmp_path / "run", tmp_path / "mirror"
    mirror.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (mirror / "checkpoints").symlink_to(tmp_path / "elsewhere")
    (mirror / "recipe.json").write_text(json.dumps(engine.recipes.recipe_to_dict(recipe)))
    result = engine.train(recipe, mirrored(mirror), folder)
    log = (folder / "log.txt").read_text()
    assert re.search(r"symbolic link, .*; remove it.*give the same command again", log), log
    (mirror / "checkpoints").unlink()
    assert engine.train(recipe, mirrored(mirror), folder) == result
    assert engine.load(mirror).checkpoint.step == result.steps
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.fixture
def compare(tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function: begin a comparison, with other arguments than usual; it ends when its runs would start."""

    class Accepted(Exception):
        """The comparison has begun."""

    def begin(*_: Any) -> None:
        raise Accepted

    monkeypatch.setattr("engine.comparison.driver._costs", begin)

    def run(**changes: Any) -> None:
        recipes = {"first": tiny_recipe(), "second": tiny_recipe(epochs=1)}
        given = {"recipes": recipes, "plan": PLAN, "seeds": (0, 1), **changes}
        with pytest.raises(Accepted):
            engine.compare(**given)

    return run


@pytest.mark.parametrize(
    ("wrong", "words", "right"),
    [
        ({"seeds": (1, 1)}, "expected different numbers", {"seeds": (1, 2)}),
        ({"max_concurrent": 0}, "expected at least 1", {"max_concurrent": 1}),
        ({"max_concurrent": 0}, "or leave it out", {"max_concurrent": None}),
        ({"plan": dataclasses.replace(PLAN, mirror="/tmp/mirror")}, "leave it out", {"plan": PLAN}),
        ({"plan": engine.Plan(), "max_concurrent": 2}, "leave it out", {"plan": engine.Plan()}),
        (
            {"plan": engine.Plan(), "max_concurrent": 2},
            "set plan.executor=process",
            {"plan": PLAN, "max_concurrent": 2},
        ),
    ],
)
def test_arguments_of_a_comparison(
    wrong: dict[str, Any], words: str, right: dict[str, Any], compare: Callable[..., None], tmp_path: Path
) -> None:
    refused(words, lambda: compare(run_dir=tmp_path / "compared", **wrong))
    compare(run_dir=tmp_path / "compared", **right)


def test_a_comparison_needs_a_recipe(compare: Callable[..., None], tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    refused("expected 1 or more", lambda: compare(run_dir=tmp_path / "compared", recipes={}))
    compare(run_dir=tmp_path / "compared", recipes={"one": tiny_recipe()})


@pytest.mark.parametrize(("earlier", "now"), [((0, 1, 2), (0, 1)), ((7, 8), (0,))])
def test_a_comparison_with_fewer_seeds(
    earlier: tuple[int, ...], now: tuple[int, ...], compare: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "compared"
    compare(run_dir=folder, seeds=earlier)
    words = r"give --seeds (\S+); for these seeds alone, give another --run-dir, or --resume (never)"
    found = refused(words, lambda: compare(run_dir=folder, seeds=now))
    compare(run_dir=tmp_path / "other", seeds=now)
    compare(run_dir=folder, seeds=now, resume=found[2])
    compare(run_dir=folder, seeds=seeds_of(found[1]))
    assert set(json.loads((folder / "comparison.json").read_text())["seeds"]) == {*earlier, *now}


@pytest.mark.parametrize("held", ["another", "damaged", "something else"])
def test_a_folder_that_holds_another_comparison(held: str, compare: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "compared"
    compare(run_dir=folder, seeds=(7, 8))
    content = folder / "comparison.json"
    words = "give another --run-dir, or --resume never"
    if held == "damaged":
        content.write_text("{")
    elif held == "something else":
        content.rename(folder / "notes.json")
        words = "give another --run-dir"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused(words, lambda: compare(run_dir=folder))
    compare(run_dir=tmp_path / "other")
    if "--resume never" in words:
        compare(run_dir=folder, resume="never")
        assert (tmp_path / "compared-2").is_dir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_file_of_an_export(tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.train(tiny_recipe(epochs=1), PLAN, tmp_path / "run")
    run = engine.load(tmp_path / "run")
    (tmp_path / "folder.safetensors").mkdir()
    refused("give another name", lambda: export_network(run, tmp_path / "folder.safetensors"))
    monkeypatch.setattr("engine.training.export.importlib.util.find_spec", lambda name: None)
    suffix = refused(r"give a name with (\.safetensors)", lambda: export_network(run, tmp_path / "network.onnx"))[1]
    name = refused(r"expected one of (\w+)", lambda: export_network(run, tmp_path / "to.safetensors", "other"))[1]
    assert export_network(run, tmp_path / f"network{suffix}", name)["tensors"] > 0
