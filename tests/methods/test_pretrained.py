"""Does a teacher from somebody else teach, and run no code that the recipe does not name?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import engine
from engine import backbones
from engine.data import open_source
from engine.errors import RecipeError
from engine.methods.pretrained import open_pretrained
from engine.recipes import Backbone, OwnTask, Recipe, recipe_to_dict, with_absolute_paths
from engine.training import export_network, load

TinyRecipe = Callable[..., Recipe]

OWN = """
import pathlib
from torch import nn
pathlib.Path(__file__).with_name("ran").touch()

def own(num_classes, image_shape):
    body = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)))
"""


@pytest.fixture
def teachers(tmp_path: Path, tiny_recipe: TinyRecipe) -> Path:
    """A folder with a run of a network of the user's own, and what was exported of it."""
    folder = tmp_path
    (folder / "own.py").write_text(OWN)
    recipe = tiny_recipe(epochs=1, backbone=Backbone(name=f"{folder}/own.py:own"), method={"kind": "end_to_end"})
    engine.train(recipe, engine.Plan(executor="process"), folder / "run")
    export_network(load(folder / "run"), folder / "own.safetensors")
    return folder


def _asking(make: TinyRecipe, teacher: Path, **changes: Any) -> Recipe:
    return with_absolute_paths(make(method={"kind": "distillation", "teacher": str(teacher), **changes}))


def _opened(recipe: Recipe) -> torch.nn.Sequential:
    source = open_source(recipe.data, recipe.seed)
    try:
        return open_pretrained(recipe, source.facts)
    finally:
        source.close()


@pytest.mark.parametrize("which", ["run", "own.safetensors"])
def test_code_runs_only_if_the_recipe_names_it(which: str, teachers: Path, tiny_recipe: TinyRecipe) -> None:
    (teachers / "ran").unlink(missing_ok=True)
    with pytest.raises(RecipeError) as caught:
        _opened(_asking(tiny_recipe, teachers / which))
    assert not (teachers / "ran").exists()
    assert str(caught.value) == (
        f"method.teacher={teachers / which}: its network is made by {teachers}/own.py:own, and code runs only if the "
        f"recipe names it, too; if you trust that file, set method.teacher_backbone={teachers}/own.py:own"
    )
    network = _opened(_asking(tiny_recipe, teachers / which, teacher_backbone=f"{teachers}/own.py:own"))
    expected = load(teachers / "run").network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_method_in_a_file_is_not_imported_for_a_teacher(tmp_path: Path, tiny_recipe: TinyRecipe) -> None:
    own = tmp_path / "method.py"
    own.write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    values = {**recipe_to_dict(tiny_recipe(method={"kind": "end_to_end"})), "method": {"kind": f"{own}:Method"}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(values))
    with pytest.raises(RecipeError) as caught:
        _opened(_asking(tiny_recipe, tmp_path / "run"))
    assert not (tmp_path / "ran").exists()
    assert str(caught.value) == (
        f"method.teacher={tmp_path / 'run'}: it was trained with the code {own}:Method, and code runs only if the "
        "recipe names it, too; if you trust that file, export the network, and give the .safetensors file as "
        "method.teacher"
    )


@pytest.fixture
def exported(tmp_path: Path, tiny_recipe: TinyRecipe) -> Path:
    engine.train(tiny_recipe(epochs=1), engine.Plan(executor="process"), tmp_path / "run")
    export_network(load(tmp_path / "run"), tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def test_a_teacher_is_of_the_same_task_and_of_the_same_options_of_ones_own(
    tmp_path: Path, tiny_recipe: TinyRecipe
) -> None:
    own = tmp_path / "mine.py"
    own.write_text("from engine.tasks import ClassificationTask\nclass Mine(ClassificationTask): pass\n")
    task = OwnTask(kind=f"{own}:Mine", options={"scale": 2.5})
    recipe = tiny_recipe(epochs=1, method={"kind": "end_to_end"}, task=task)
    engine.train(recipe, engine.Plan(executor="process"), tmp_path / "run")
    asking = dataclasses.replace(_asking(tiny_recipe, tmp_path / "run"), task=task)
    assert _opened(asking)
    words = r"was trained with task\.options={\"scale\": 2\.5}, but here they are task\.options={}; give a teacher"
    with pytest.raises(RecipeError, match=words):
        _opened(dataclasses.replace(asking, task=OwnTask(kind=task.kind)))
    with pytest.raises(RecipeError, match=r"was trained with the code .*mine\.py:Mine"):
        _opened(dataclasses.replace(asking, task=OwnTask(kind=f"{own}:Other")))


def test_odd_metadata_are_one_line(exported: Path, tiny_recipe: TinyRecipe) -> None:
    tensors = safetensors.torch.load_file(exported)
    with safetensors.safe_open(exported, framework="pt") as file:
        metadata = file.metadata()
    assert _opened(_asking(tiny_recipe, exported))
    settings = json.loads(metadata["backbone_settings"])
    odd = {
        "num_classes": ["9" * 5000, "-1", "1e3", '"10"', "null", "[", ""],
        "image_shape": ["[1, 8]", "[1, 8, 8, 8]", '["1", 8, 8]', "{}", "[" * 5000, "[1, 8, 1e400]"],
        "mean": ["[]", "0.5", '"a"', "[NaN]", "[1e999]"],
        "std": ["[0.1, 0.2]", "null"],
        "backbone_settings": [
            "[]",
            "{}",
            '{"name": "no_such"}',
            '{"name": "resnet8", "name": "resnet14"}',
            json.dumps({**settings, "widths": [10**9] * 3}),
            json.dumps({**settings, "widths": "9" * 5000}),
            json.dumps({**settings, "other": 1}),
            json.dumps({**settings, "name": "\ud800"}),
            json.dumps({**settings, "name": "a\0.py:f"}),
        ],
    }
    for field, texts in odd.items():
        for text in [*texts, None]:
            changed = {name: value for name, value in {**metadata, field: text}.items() if value is not None}
            exported.write_bytes(safetensors.torch.save(tensors, changed))
            with pytest.raises(RecipeError) as caught:
                _opened(_asking(tiny_recipe, exported))
            message = str(caught.value)
            assert message.startswith(f"method.teacher={exported}: "), (field, text)
            assert len(message) < 2000 and "\n" not in message, (field, text)


def test_exports_of_a_newer_version_are_refused_and_earlier_ones_are_read(
    exported: Path, tiny_recipe: TinyRecipe
) -> None:
    tensors = safetensors.torch.load_file(exported)
    with safetensors.safe_open(exported, framework="pt") as file:
        metadata = file.metadata()
    recipe = _asking(tiny_recipe, exported)
    tuned = dataclasses.replace(recipe.backbone, weights=str(exported))
    facts = open_source(recipe.data, recipe.seed).facts

    def load_both() -> None:
        _opened(recipe)
        backbones.build(tuned, facts.num_classes, facts.image_shape, seed=0)

    del metadata["export_version"]
    # Files of others have a version, too, which is none of ours.
    for earlier in (metadata, {**metadata, "version": "2.0"}):
        exported.write_bytes(safetensors.torch.save(tensors, earlier))
        load_both()
    for text, words in (("1000", "was written by a newer engine: its version is 1000"), ("x", "is damaged")):
        exported.write_bytes(safetensors.torch.save(tensors, {**metadata, "export_version": text}))
        with pytest.raises(RecipeError, match=f"^method.teacher={exported}: its metadata.* {words}"):
            _opened(recipe)
        with pytest.raises(engine.EngineError, match=f"^backbone.weights={exported}: its metadata.* {words}"):
            backbones.build(tuned, facts.num_classes, facts.image_shape, seed=0)


def test_a_student_teaches_when_its_own_teacher_is_gone(exported: Path, tiny_recipe: TinyRecipe) -> None:
    run = exported.with_name("student")
    engine.train(_asking(tiny_recipe, exported), engine.Plan(executor="process"), run)
    exported.unlink()
    expected = load(run).network().state_dict()
    found = _opened(_asking(tiny_recipe, run)).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_a_folder_without_a_whole_checkpoint_is_no_teacher(exported: Path, tiny_recipe: TinyRecipe) -> None:
    run = exported.with_name("run")
    for path in run.glob("checkpoints/*/state.json"):
        path.write_text("{}")
    with pytest.raises(RecipeError, match=r"method\.teacher=.*holds no complete checkpoint"):
        _opened(_asking(tiny_recipe, run))
