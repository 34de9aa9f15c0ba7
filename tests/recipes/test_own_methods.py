"""Is a method of one's own checked, written and found again like those that are shipped?"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from engine.errors import OwnFileChanged, RecipeError
from engine.methods import method_of
from engine.recipes import Plan, Recipe, apply_overrides, load_recipe, recipe_from_dict, recipe_to_dict, recipe_to_json
from engine.recipes.own_methods import check_as_made
from engine.training.session import Session

OWN = '''
from __future__ import annotations

from typing import ClassVar

from engine import load_recipe
from engine.methods.chain import Chain
from engine.recipes import InfoPro, MethodSettings, Segmented
from engine.recipes.settings import Weight, settings


@settings
class Own(MethodSettings):
    """A method of one's own."""

    weight: Weight = 0.5


@settings
class Cut(Segmented):
    """Another, which cuts."""


@settings
class Counting(MethodSettings):
    """One that is not for classes."""

    takes_tasks: ClassVar[tuple[str, ...] | None] = ("counting",)


class Bare(MethodSettings):
    weight: Weight = 0.5


@settings
class Shipped(InfoPro):
    weight: Weight = 0.5


class Other:
    pass


METHOD = Chain(lambda recipe, facts, segment: None)


def recipe():
    import dataclasses

    return dataclasses.replace(load_recipe("end_to_end_digits"), method=Own(weight=WEIGHT))
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN.replace("WEIGHT", "0.25"))
    return path


def _changed(*words: str) -> Recipe:
    return apply_overrides(load_recipe("end_to_end_digits"), Plan(), words)[0]


def test_a_method_of_ones_own_is_named_by_its_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    recipe = _changed("method.kind=own.py:Own", "method.weight=0.75")
    assert recipe_to_dict(recipe)["method"] == {"kind": f"{file}:Own", "weight": 0.75}
    again = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))))
    assert again == recipe
    assert type(again.method) is type(recipe.method)
    assert method_of(again) is method_of(recipe)
    assert [again.method.paired_images, again.method.num_segments, again.method.placement] == ["none", 1, "PACK"]
    assert again.method.obstacle_to_replicas() is not None


def test_fields_that_both_methods_have_are_kept(file: Path) -> None:
    cut = apply_overrides(load_recipe("infopro_digits"), Plan(), [f"method.kind={file}:Cut"])[0].method
    assert cut.num_segments == load_recipe("infopro_digits").method.num_segments


def test_a_recipe_in_a_file_may_define_its_method_there(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.method.kind == f"{file}:Own"
    assert recipe_to_dict(recipe_from_dict(recipe_to_dict(recipe))) == recipe_to_dict(recipe)
    file.write_text(OWN.replace("WEIGHT", "-1"))
    with pytest.raises(RecipeError, match=r"own\.py:\d+: Own: weight: found -1; input should be greater"):
        load_recipe(file)


def test_a_recipe_json_names_only_code_outside_of_its_folder(file: Path, tmp_path: Path) -> None:
    written = tmp_path / "run" / "recipe.json"
    written.parent.mkdir()
    written.write_text(recipe_to_json(_changed(f"method.kind={file}:Own")))
    assert load_recipe(written).method.kind == f"{file}:Own"
    written.replace(tmp_path / "recipe.json")
    with pytest.raises(RecipeError, match="names the code"):
        load_recipe(tmp_path / "recipe.json")
    written.write_text(recipe_to_json(_changed(f"method.kind={file}:Own")))
    file.unlink()
    with pytest.raises(RecipeError, match=r"run/recipe\.json: method\.kind=.*there is no file"):
        load_recipe(written)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.kind=OWN.py:Own"], "there is no file"),
        (["method.kind=own.py"], "no class is named; expected path/to/file.py:Name"),
        (["method.kind=own.py:Onw"], "defines no class 'Onw'; did you mean 'Own'?"),
        (["method.kind=own.py:Other"], "Other is no subclass of MethodSettings"),
        (["method.kind=own.py:Bare"], "Bare is not decorated"),
        (["method.kind=own.py:Shipped"], "Shipped has a field `kind`"),
        (["method.kind=own.py:MethodSettings"], "engine/recipes/method_settings.py, not in this file"),
        (["method=own.py:Own"], "expected method.kind=own.py:Own"),
        (["method.kind=own.py:Own", "method.wieght=1"], "method.wieght: there is no such field; did you mean"),
        (["method.kind=own.py:Own", "method.head=softmax"], "method.head: there is no such field; there is weight"),
        (["method.kind=own.py:Own", "method.weight=-1"], "method.weight: found -1; input should be greater"),
    ],
)
def test_what_is_wrong_is_said(file: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(RecipeError) as caught:
        _changed(*words)
    assert message in str(caught.value)


def test_the_implementation_stands_beside_the_settings(file: Path) -> None:
    file.write_text(file.read_text().replace("METHOD =", "method ="))
    recipe = _changed(f"method.kind={file}:Own")
    with pytest.raises(RecipeError, match=r"own\.py defines no METHOD with the functions team and build_learner"):
        method_of(recipe)


def test_a_task_that_it_does_not_take_is_refused(file: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        method_of(_changed(f"method.kind={file}:Counting"))
    said, _, named = str(caught.value).partition(", such as ")
    assert said == (
        f"task.kind=classification: method.kind={file}:Counting takes only counting: set task.kind=counting, or choose "
        "a method that takes every task"
    )
    assert {*named.split(", ")} >= {"end_to_end", "greedy", "dgl", "infopro", "dml"}


def test_settings_that_no_file_defines_are_refused(file: Path) -> None:
    base = load_recipe("end_to_end_digits")
    inside = type("Inside", (type(load_recipe(file).method),), {"__module__": "nowhere"})
    with pytest.raises(RecipeError, match="can only be found again at the top level of a Python file"):
        dataclasses.replace(base, method=inside())


def test_a_file_that_was_edited_since_does_not_train_as_it_was(file: Path) -> None:
    """Its digest is kept with the run, which would be that of a file that has trained nothing."""
    recipe = _changed(f"method.kind={file}:Own")
    text = file.read_text()
    file.write_text(f"{text}# edited\n")
    told = f"^{file}: has changed since this recipe was made of it: load or build"
    with Session(recipe, Plan(executor="process")) as session, pytest.raises(OwnFileChanged, match=told):
        session.start()
    check_as_made(_changed(f"method.kind={file}:Own").method)
    file.write_text(text)
    check_as_made(recipe.method)


def test_a_file_that_was_imported_by_name_and_edited(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(file.parent)
    recipe = importlib.import_module("own").recipe()
    check_as_made(recipe.method)
    file.write_text(f"{file.read_text()}# edited\n")
    with pytest.raises(OwnFileChanged, match=f"^{file}: has changed"):
        check_as_made(recipe.method)
    file.unlink()
    check_as_made(recipe.method)
