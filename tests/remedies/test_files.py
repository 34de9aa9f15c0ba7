"""Does a refusal of a recipe's file, or of code of one's own, say what makes it accepted?"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engine.recipes.files
from engine.methods import method_of
from engine.recipes import Plan, Recipe, apply_overrides, load_recipe, recipe_from_dict, recipe_to_dict, recipe_to_json

Refused = Callable[..., re.Match[str]]

MINE = """
from engine.recipes import Backbone, Data, Greedy, Recipe


def recipe():
    return Recipe(name="mine", method=Greedy(), backbone=Backbone(name="resnet8"), data=Data(name="digits"))
"""
# What a shell does to mine.py, recipe.json and own.py, the word for the recipe, and for each remedy what the message
# says, what a shell does then, and the word for the recipe then; "{0}" is what the message said.
RECIPES: list[tuple[str, str, list[tuple[str, str, str]]]] = [
    (
        "true",
        "infopro_digit",
        [
            (r"did you mean '(\w+)'", "true", "{0}"),
            (r"the path of its (\.py) file", "true", "mine{0}"),
        ],
    ),
    (
        "mkdir empty",
        "empty",
        [
            (r"neither a (\.py) file", "true", "mine{0}"),
            (r"nor a (recipe\.json)", "true", "{0}"),
            (r"nor a run folder that holds one", "cp recipe.json empty", "empty"),
        ],
    ),
    (
        "mkdir greedy_digits; cp recipe.json greedy_digits",
        "greedy_digits",
        [
            (r"give (\./greedy_digits) for that of the run", "true", "{0}"),
            (r"for the shipped one rename the folder (\w+)", "mv {0} other", "{0}"),
            ("give the command in another folder", "mkdir empty; mv greedy_digits empty", "greedy_digits"),
        ],
    ),
    (
        "sed -i 's/recipe():/other():/' mine.py",
        "mine.py",
        [(r"expected `(def recipe\(\)) -> Recipe`", "sed -i 's/def other():/{0}:/' mine.py", "mine.py")],
    ),
    (
        "sed -i 's/return Recipe(/return dict(/' mine.py",
        "mine.py",
        [(r"expected engine\.(Recipe)", "sed -i 's/return dict(/return {0}(/' mine.py", "mine.py")],
    ),
    (
        "sed -i 's/Greedy()/Greedy(num_segment=2)/' mine.py",
        "mine.py",
        [(r"did you mean '(\w+)'", "sed -i s/num_segment=/{0}=/ mine.py", "mine.py")],
    ),
    (
        "yes '#' | head -c 17000000 >> mine.py",
        "mine.py",
        [(r"expected at most ([\d,]+) of Python", "truncate -s $(echo {0} | tr -d ,) mine.py", "mine.py")],
    ),
    (
        "echo '[]' > recipe.json",
        "recipe.json",
        [("expected an object with the fields", "cp .whole recipe.json", "recipe.json")],
    ),
    (
        'sed -i \'s/"epochs"/"epoch"/\' recipe.json',
        "recipe.json",
        [(r"did you mean '(\w+)'", 'sed -i \'s/"epoch"/"{0}"/\' recipe.json', "recipe.json")],
    ),
    (
        "cp .headless recipe.json",
        "recipe.json",
        [("backbone: is missing, and has no default", "cp .whole recipe.json", "recipe.json")],
    ),
    (
        "cp .with_code recipe.json",
        "recipe.json",
        [
            (
                "put the file elsewhere, and its whole path, beginning with /, into recipe.json",
                "mkdir ../elsewhere; mv own.py ../elsewhere; sed -i s#/here/own#/elsewhere/own# recipe.json",
                "recipe.json",
            )
        ],
    ),
    (
        'sed -i \'0,/"version": [0-9]*/s//"version": -1/\' recipe.json',
        "recipe.json",
        [
            (
                r"version is -1, expected a whole number from 0 to (\d+)",
                'sed -i \'s/"version": -1/"version": {0}/\' recipe.json',
                "recipe.json",
            )
        ],
    ),
    (
        "truncate -s 10G recipe.json",
        "recipe.json",
        [(r"expected at most [\d,]+$", "cp .whole recipe.json", "recipe.json")],
    ),
    (
        "rm recipe.json; mkfifo recipe.json",
        "recipe.json",
        [("expected a file with data in it", "rm recipe.json; cp .whole recipe.json", "recipe.json")],
    ),
]

OWN = """
from engine.methods.chain import Chain
from engine.recipes import MethodSettings, Segmented
from engine.recipes.methods.local_learning import Greedy
from engine.recipes.settings import settings


@settings
class Own(Segmented):
    pass


class Bare(Segmented):
    pass


@settings
class Shipped(Greedy):
    pass


class Other:
    pass


METHOD = Chain(lambda recipe, facts, segment: None)
"""
# What a shell does to own.py, the words for the method, and remedies as above.
METHODS: list[tuple[str, str, list[tuple[str, str, str]]]] = [
    (
        "mv own.py ..",
        "method.kind=own.py:Own",
        [("there is no file .* Relative paths start at the current folder", "true", "method.kind=../own.py:Own")],
    ),
    ("true", "method.kind=own.py", [("expected path/to/file.py:(Name)", "true", "method.kind=own.py:Own")]),
    ("true", "method.kind=own.py:Onw", [(r"did you mean '(\w+)'", "true", "method.kind=own.py:{0}")]),
    ("true", "method=own.py:Own", [(r"expected (method\.kind=own\.py:Own)", "true", "{0}")]),
    (
        "true",
        "method.kind=own.py:Other",
        [
            (
                "expected a class that inherits from (MethodSettings), under (@settings)",
                "sed -i 's/class Other:/{1}\\nclass Other({0}):/' own.py",
                "method.kind=own.py:Other",
            )
        ],
    ),
    (
        "true",
        "method.kind=own.py:Bare",
        [("under (@settings)", "sed -i 's/^class Bare/{0}\\nclass Bare/' own.py", "method.kind=own.py:Bare")],
    ),
    (
        "true",
        "method.kind=own.py:Shipped",
        [
            ("inherit from (MethodSettings) or", "sed -i 's/(Greedy)/({0})/' own.py", "method.kind=own.py:Shipped"),
            ("or (Segmented), and leave `kind` out", "sed -i 's/(Greedy)/({0})/' own.py", "method.kind=own.py:Shipped"),
        ],
    ),
    (
        "cp own.py first_of_two.py; echo 'from first_of_two import Own' > own.py",
        "method.kind=own.py:Own",
        [(r"is defined in (\S+), not .*name the file that defines it", "true", "method.kind={0}:Own")],
    ),
    (
        "sed -i s/^METHOD/NOTHING/ own.py",
        "method.kind=own.py:Own",
        [("such as `(METHOD) = Chain", "sed -i s/^NOTHING/{0}/ own.py", "method.kind=own.py:Own")],
    ),
]


Arrange = Callable[[str], None]


@pytest.fixture
def arrange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrange:
    """A function: what a shell does in the current folder, which holds recipes, a method of one's own, and copies."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    recipe = load_recipe("infopro_digits")
    (folder / "mine.py").write_text(MINE)
    (folder / "own.py").write_text(OWN)
    values = recipe_to_dict(recipe)
    without = {name: value for name, value in values.items() if name != "backbone"}
    coded = {**values, "method": {"kind": f"{folder}/own.py:Own"}}
    (folder / ".headless").write_text(json.dumps(without, indent=2))
    (folder / ".with_code").write_text(json.dumps(coded, indent=2))
    for name in ("recipe.json", ".whole"):
        (folder / name).write_text(recipe_to_json(recipe))

    def run(command: str) -> None:
        subprocess.run(["sh", "-ec", command], cwd=folder, check=True, env={"PATH": os.environ["PATH"]})

    return run


def each(rows: list[tuple[str, str, list[tuple[str, str, str]]]]) -> list[Any]:
    """Return a case for each remedy."""
    return [
        pytest.param(before, word, *remedy, id=f"{word}: {remedy[0]}") for before, word, all_ in rows for remedy in all_
    ]


@pytest.mark.parametrize(("before", "which", "says", "command", "then"), each(RECIPES))
def test_a_recipe_in_a_file(
    before: str, which: str, says: str, command: str, then: str, arrange: Arrange, refused: Refused
) -> None:
    arrange(before)
    groups = refused(says, lambda: load_recipe(which)).groups()
    arrange(command.format(*groups))
    assert load_recipe(then.format(*groups))


@pytest.mark.parametrize(("before", "which", "says", "command", "then"), each(METHODS))
def test_a_method_in_a_file(
    before: str, which: str, says: str, command: str, then: str, arrange: Arrange, refused: Refused
) -> None:
    def found(word: str) -> object:
        return method_of(apply_overrides(load_recipe("end_to_end_digits"), Plan(), [word])[0])

    arrange(before)
    groups = refused(says, lambda: found(which)).groups()
    arrange(command.format(*groups))
    assert found(then.format(*groups))


def test_a_method_whose_class_is_in_no_file(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe], refused: Refused
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own = apply_overrides(tiny_recipe(), Plan(), [f"method.kind={tmp_path}/own.py:Own"])[0].method
    inside = type("Inside", (type(own),), {"__module__": "nowhere"})
    refused("to the top level|top level of a Python file: move it there", lambda: tiny_recipe(method=inside()))
    with (tmp_path / "own.py").open("a") as file:
        file.write("\n\n@settings\nclass Inside(Own):\n    pass\n")
    recipe = apply_overrides(tiny_recipe(), Plan(), [f"method.kind={tmp_path}/own.py:Inside"])[0]
    assert recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_a_file_of_a_newer_engine(arrange: Arrange, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    arrange('sed -i \'0,/"version": [0-9]*/s//"version": 1000/\' recipe.json')
    found = refused(
        r"its version is (\d+), .*install an engine that is at least as new", lambda: load_recipe("recipe.json")
    )
    # A newer engine knows more versions.
    monkeypatch.setattr(engine.recipes.files, "RECIPE_VERSION", int(found[1]))
    assert load_recipe("recipe.json") == load_recipe("infopro_digits")


def test_a_file_that_may_not_be_read(arrange: Arrange, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be allowed to read everything."""
    opened = os.open

    def as_others(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("recipe.json") and not os.stat(path).st_mode & 0o400:
            raise PermissionError(13, os.strerror(13), str(path))
        return opened(path, *arguments, **named)

    monkeypatch.setattr(os, "open", as_others)
    arrange("chmod 000 recipe.json")
    refused("may not be read by this user .*change its mode", lambda: load_recipe("recipe.json"))
    arrange("chmod u+r recipe.json")
    assert load_recipe("recipe.json")
