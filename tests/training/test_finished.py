"""Is the summary of a finished run believed only as far as its checkpoint bears it out, and else made anew?"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image
from safetensors.torch import save_file

import engine
from engine import backbones
from engine.analysis import OpenedRun, Settings
from engine.errors import RecipeError, RunError
from engine.recipes import DML, Distillation, EndToEnd, Peer, Recipe
from engine.tracking import read_metrics
from engine.training import export_network
from engine.training.folder import read_summary
from tests.training.mirrored_runs import Told

TinyRecipe = Callable[..., Recipe]
PLAN = engine.Plan(executor="process", report_every_steps=1, checkpoint_every_steps=2)
# Known while a run lasts, and to nothing but its summary.
MEASURED = {"images_per_second", "waiting_share", "seconds"}


@pytest.fixture
def finished(tmp_path: Path, tiny_recipe: TinyRecipe) -> Path:
    engine.train(tiny_recipe(), PLAN, tmp_path / "run")
    return tmp_path / "run"


def _again(recipe: Recipe, run: Path) -> tuple[dict[str, Any], list[str]]:
    told = Told()
    result = engine.train(recipe, PLAN, run, console=told)  # type: ignore[arg-type]
    return {name: value for name, value in result.to_json().items() if name not in MEASURED}, told.lines


def _known(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in {*MEASURED, "version"}}


CHANGES: dict[str, dict[str, Any]] = {
    "one digit of the digest": {"weights_sha256": "0" * 64},
    "another accuracy": {"test_score": 0.99},
    "another score": {"metrics": {"test/accuracy": 0.99, "test/loss": 0.1}},
    "other steps": {"steps": 6},
    "other epochs": {"epochs": 1},
    "who has diverged": {"diverged": {"segment0": "gone"}},
    "other parameters": {"trained_parameters": 1},
    "another peak": {"peak_memory_bytes": {"segment0": 1, "segment1": 1, "segment2": 1}},
}


def test_a_summary_that_contradicts_its_checkpoint_is_named_and_made_anew(
    finished: Path, tiny_recipe: TinyRecipe
) -> None:
    before, text = _known(finished), (finished / "summary.json").read_text()
    for change, values in CHANGES.items():
        (finished / "summary.json").write_text(json.dumps({**json.loads(text), **values}))
        found, told = _again(tiny_recipe(), finished)
        assert found == before == _known(finished), change
        (field,) = values
        assert told[0].startswith(f"{finished}/summary.json: is damaged: "), change
        assert f"{field} is " in told[0], change
        assert told[0].endswith(f"; it is made anew from {finished}/checkpoints/step-000008"), change


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: path.write_text("[]"),
    "no fields": lambda path: path.write_text("{}"),
    "steps of text": lambda path: path.write_text(path.read_text().replace('"steps": 8', '"steps": "8"')),
    "a key twice": lambda path: path.write_text(path.read_text().replace("{", '{"steps": 8,', 1)),
    "nested deep": lambda path: path.write_text("[" * 100_000),
    "half of a character": lambda path: path.write_text(path.read_text().replace("finished", "\\ud800")),
    "NUL bytes": lambda path: path.write_bytes(bytes(500)),
    "an integer of 5,000 digits": lambda path: path.write_text(path.read_text().replace("8", "9" * 5000)),
    "20 gigabytes": lambda path: os.truncate(path, 20 * 2**30),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


def test_a_damaged_summary_is_named_and_made_anew(finished: Path, tiny_recipe: TinyRecipe) -> None:
    before, summary = _known(finished), finished / "summary.json"
    for damage, spoil in DAMAGES.items():
        spoil(summary)
        assert read_summary(finished) is None, damage
        found, told = _again(tiny_recipe(), finished)
        assert found == before == _known(finished), damage
        assert told[0].startswith(str(summary)), damage
        assert told[0].endswith("; it is made anew from the newest checkpoint"), damage


def test_without_a_whole_checkpoint_a_summary_is_returned_and_said_not_to_be_verified(
    finished: Path, tiny_recipe: TinyRecipe
) -> None:
    before = _known(finished)
    (finished / "checkpoints" / "step-000008" / "state.json").write_text("{}")
    found, told = _again(tiny_recipe(), finished)
    assert found == before
    assert "step-000008: damaged, skipped" in told[0]
    assert "could not be compared with its checkpoint" in told[1]
    shutil.rmtree(finished / "checkpoints")
    found, told = _again(tiny_recipe(), finished)
    assert found == before
    assert "could not be compared with its checkpoint" in told[0]


def test_parquet_that_holds_more_than_its_source_is_left_alone(finished: Path, tiny_recipe: TinyRecipe) -> None:
    source, before = finished / "metrics.jsonl", (finished / "metrics.parquet").read_bytes()
    source.write_bytes(source.read_bytes()[:-200])
    _, told = _again(tiny_recipe(), finished)
    assert told[0].startswith(f"{source}: is cut off after ")
    assert (finished / "metrics.parquet").read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "cut off", "of another run", "a pipe"])
def test_damaged_parquet_is_written_anew(damage: str, finished: Path, tiny_recipe: TinyRecipe) -> None:
    path = finished / "metrics.parquet"
    before = pyarrow.parquet.read_table(path)
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "of another run":
        pyarrow.parquet.write_table(before.slice(1), path)
    else:
        path.unlink()
        if damage == "a pipe":
            os.mkfifo(path)
    _, told = _again(tiny_recipe(), finished)
    assert told[0].startswith(f"{path}: ")
    assert told[0].endswith("; it was written anew from metrics.jsonl")
    assert pyarrow.parquet.read_table(path).equals(before)
    assert len(read_metrics(finished)) == before.num_rows


@pytest.fixture
def start(tmp_path: Path, tiny_recipe: TinyRecipe) -> Path:
    """A network of the tiny recipe in a file."""
    engine.train(tiny_recipe(epochs=1, method=EndToEnd()), PLAN, tmp_path / "start")
    export_network(engine.load(tmp_path / "start"), tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


@pytest.mark.parametrize("kind", ["segments", "cohort", "student"])
def test_a_finished_run_needs_no_file_that_its_training_began_with(
    kind: str, start: Path, tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    tuned = dataclasses.replace(tiny_recipe().backbone, weights=str(start), weights_without="classifier")
    changes: dict[str, Any] = {
        "segments": {"backbone": tuned},
        # The file alone tells these peers apart.
        "cohort": {"method": DML(peers=(Peer(backbone=tuned, seed=5), Peer(seed=5)))},
        "student": {"method": Distillation(teacher=str(start))},
    }
    recipe, run = tiny_recipe(epochs=1, **changes[kind]), tmp_path / "run"
    result = engine.train(recipe, PLAN, run)
    start.unlink()
    opened = engine.load(run)
    assert engine.evaluate(opened) == result.metrics
    name = next(iter(opened.networks))
    exported = export_network(opened, tmp_path / "exported.safetensors", name)
    assert exported["weights_sha256"] == result.weights_sha256.split("-")[0]
    with OpenedRun(run, Settings()) as analysed:
        assert analysed.learners(name).keys() == set(opened.networks[name].learners)
    found, told = _again(recipe, run)
    assert found["weights_sha256"] == result.weights_sha256
    assert [line for line in told if "is finished already" not in line] == []
    with pytest.raises(RecipeError, match=r"start\.safetensors"):
        engine.train(recipe, PLAN, tmp_path / "anew")


def test_a_finished_run_of_other_images_is_not_taken_for_this_one(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    for place, shade in (("one", 0), ("other", 90)):
        for split in ("train", "test"):
            for number, kind in enumerate(("cat", "dog")):
                (tmp_path / place / split / kind).mkdir(parents=True)
                for index in range(4):
                    picture = Image.new("RGB", (8, 8), (60 * index, 100 * number, shade))
                    picture.save(tmp_path / place / split / kind / f"{index}.png")
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    backbone, start = tiny_recipe().backbone, tmp_path / "start.safetensors"
    save_file(backbones.plain_state(backbones.build(backbone, 2, (3, 8, 8), seed=1), backbone.name), start)
    tuned = dataclasses.replace(backbone, weights=str(start))
    fields = {"name": "folder", "train_limit": None, "test_limit": None, "batch_size": 4, "evaluation_batch_size": 4}

    def train(place: str) -> str:
        recipe = tiny_recipe(epochs=1, backbone=tuned, data={**fields, "root": str(tmp_path / place)})
        return engine.train(recipe, PLAN, tmp_path / "run").weights_sha256

    first = train("one")
    # What the run began with does not count.
    start.unlink()
    assert train("moved") == first
    with pytest.raises(RunError, match="was trained on other images than data.root=.*/other holds now"):
        train("other")
    assert train("one") == first


def test_a_damaged_recipe_in_a_folder_that_takes_nothing_ends_no_command(
    finished: Path, tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    before = _known(finished)
    (finished / "recipe.json").write_text("{")
    monkeypatch.setattr("engine.atomic.os.replace", full)
    found, told = _again(tiny_recipe(), finished)
    assert found == before
    assert "it could not be written anew: " in told[0]
    assert "Read-only file system" in told[0]
