"""Is a recipe found in every form, and does a broken one say where it is broken?"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RecipeError
from engine.recipes import load_recipe, recipe_to_dict, recipe_to_json
from engine.recipes.files import import_file

GOOD = """
from engine.recipes import Backbone, Data, Greedy, Recipe


def recipe():
    return Recipe(name="mine", method=Greedy(), backbone=Backbone(name="resnet8"), data=Data(name="digits"))
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return to


def refusal(which: str | Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(which)
    return str(caught.value)


def values(**changes: Any) -> str:
    return json.dumps(recipe_to_dict(load_recipe("infopro_digits")) | changes)


def test_a_python_file(write: Write) -> None:
    path = write("mine.py", GOOD)
    assert load_recipe(path).name == "mine"
    assert load_recipe(str(path)) == load_recipe(path)


def test_a_python_file_by_relative_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write("mine.py", GOOD).parent)
    assert load_recipe("mine.py").name == "mine"


def test_a_recipe_may_be_built_from_a_shipped_one(write: Write) -> None:
    text = "import dataclasses\nfrom engine.recipes import load_recipe\n\ndef recipe():\n"
    path = write("mine.py", text + "    return dataclasses.replace(load_recipe('infopro_digits'), epochs=3)\n")
    assert (load_recipe(path).epochs, load_recipe(path).name) == (3, "infopro_digits")


def test_a_json_file_and_the_run_folder_that_holds_it(write: Write) -> None:
    recipe = load_recipe("infopro_digits")
    path = write("recipe.json", recipe_to_json(recipe))
    assert load_recipe(path) == recipe
    assert load_recipe(path.parent) == recipe


def test_an_unknown_name() -> None:
    told = refusal("infopro_digts")
    assert "recipe 'infopro_digts' does not exist; did you mean 'infopro_digits'?" in told
    assert "local-learning list" in told


@pytest.mark.parametrize("name", ["missing.py", "missing.json"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    assert refusal(tmp_path / name) == f"{tmp_path / name}: there is no such file"


def test_a_folder_without_recipe(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: is neither a .py file, nor a recipe.json, nor a run folder")


@pytest.mark.parametrize(
    ("text", "line", "kind"),
    [
        ("import a_module_that_is_not_there\n", 1, "ModuleNotFoundError"),
        ("x = 1\n\ny = x / 0\n", 3, "ZeroDivisionError"),
        ("x = 1\ndef recipe(:\n    pass\n", 2, "SyntaxError"),
        ("\n\nfrom engine.recipes import NoSuchThing\n", 3, "ImportError"),
    ],
)
def test_a_file_that_does_not_import_names_the_line(write: Write, text: str, line: int, kind: str) -> None:
    path = write("mine.py", text)
    assert refusal(path).startswith(f"{path}:{line}: could not be imported: {kind}: ")


def test_the_line_is_that_of_the_users_file_not_of_the_library(write: Write) -> None:
    path = write("mine.py", "import json\n\njson.loads('{')\n")
    assert refusal(path).startswith(f"{path}:3: could not be imported: JSONDecodeError")


@pytest.mark.parametrize("text", ["x = 1\n", "recipe = 5\n"])
def test_a_file_without_the_function(write: Write, text: str) -> None:
    path = write("mine.py", text)
    assert refusal(path) == f"{path}: defines no function recipe(); expected `def recipe() -> Recipe`"


@pytest.mark.parametrize(("value", "kind"), [("None", "NoneType"), ("3", "int"), ("{'name': 'x'}", "dict")])
def test_a_function_that_returns_something_else(write: Write, value: str, kind: str) -> None:
    path = write("mine.py", f"def recipe():\n    return {value}\n")
    assert refusal(path) == f"{path}: recipe() returned {kind}, expected engine.Recipe"


def test_a_function_that_fails_names_the_line(write: Write) -> None:
    path = write("mine.py", "def recipe():\n    x = 1\n    return x.name\n")
    assert refusal(path).startswith(f"{path}:3: recipe() failed: AttributeError: ")


def test_a_wrong_value_in_a_file_is_named(write: Write) -> None:
    path = write(
        "mine.py", "from engine.recipes import Data\n\ndef recipe():\n    return Data(name='digits', batch_size=0)\n"
    )
    told = refusal(path)
    assert told.startswith(str(path))
    assert "batch_size" in told
    assert "greater than or equal to 1" in told


def test_a_wrong_name_in_a_file_is_named(write: Write) -> None:
    path = write("mine.py", "from engine.recipes import Data\n\nDATA = Data(name='digits', batchsize=4)\n")
    told = refusal(path)
    assert told.startswith(str(path))
    assert "batchsize" in told


@pytest.mark.parametrize("text", ["{broken", "", "[1, 2", '{"name": }'])
def test_broken_json(write: Write, text: str) -> None:
    path = write("recipe.json", text)
    assert refusal(path).startswith(f"{path}: is damaged: ")


def test_json_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert refusal(path).startswith(f"{path}: is damaged: ")


def test_json_of_another_kind(write: Write) -> None:
    path = write("recipe.json", "[1, 2]")
    assert refusal(path) == f"{path}: holds a list, expected an object with the fields of a recipe"


def test_json_with_wrong_fields_names_each_of_them(write: Write) -> None:
    path = write("recipe.json", values(epoch=3, seed=-1, method={"kind": "infopro", "num_segmnts": 2}))
    lines = refusal(path).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    found = {line.removeprefix(f"{path}: ").partition(":")[0] for line in lines}
    assert found == {"epoch", "seed", "method.num_segmnts"}


def test_json_with_a_wrong_field_suggests_the_right_one(write: Write) -> None:
    told = refusal(write("recipe.json", values(epoch=3)))
    assert told.endswith("epoch: there is no such field; did you mean 'epochs'?")


def test_json_that_lacks_fields_names_each_of_them(write: Write) -> None:
    path = write("recipe.json", "{}")
    assert refusal(path).splitlines() == [
        f"{path}: {field}: is missing, and has no default" for field in ("name", "method", "backbone", "data")
    ]


def test_json_with_nan_is_refused(write: Write) -> None:
    path = write("recipe.json", values(optimizer={"kind": "sgd", "learning_rate": float("nan")}))
    assert "optimizer.learning_rate: found nan" in refusal(path)


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    text = recipe_to_json(load_recipe("infopro_digits"))
    (tmp_path / "recipe.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_recipe(tmp_path) == load_recipe("infopro_digits")


@pytest.mark.parametrize("name", ["recipe.json", "recipe.py"])
def test_what_is_no_file_is_named_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: is no regular file")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: is no regular file")
    (tmp_path / name).rmdir()
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 20 * 2**30)
    assert "21,474,836,480 bytes; expected at most" in refusal(tmp_path / name)


def test_a_recipe_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engine.reading.os.open", refuse)
    for name in ("recipe.json", "recipe.py"):
        assert "may not be read by this user" in refusal(tmp_path / name)


def test_a_recipe_json_brings_no_code_along(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        place.mkdir()
        (place / "net.py").write_text("raise SystemExit('run')")
    values = json.loads(recipe_to_json(load_recipe("infopro_digits")))
    for code in (f"{folder}/net.py:net", "net.py:net", "run/net.py:net", f"{elsewhere}/../run/net.py:net"):
        values["backbone"] = {"name": code}
        (folder / "recipe.json").write_text(json.dumps(values))
        with pytest.raises(RecipeError, match="names the code"):
            load_recipe(folder)
    values["backbone"] = {"name": f"{elsewhere}/net.py:net"}
    (folder / "recipe.json").write_text(json.dumps(values))
    assert load_recipe(folder).backbone.name == f"{elsewhere}/net.py:net"


def test_no_python_file_of_any_size_is_taken_into_memory(tmp_path: Path) -> None:
    """Those of searches come here without `load_recipe`."""
    path = tmp_path / "sweep.py"
    path.touch()
    os.truncate(path, 20 * 2**30)
    with pytest.raises(RecipeError) as caught:
        import_file(path)
    assert str(caught.value) == f"{path}: has 21,474,836,480 bytes; expected at most 16,777,216 of Python"
