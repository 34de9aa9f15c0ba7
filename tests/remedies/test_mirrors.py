"""Does what a refusal of a place for a mirror says lead to one that is taken, and is the other left as it is?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.recipes import Recipe, recipe_to_dict
from engine.training.mirror import open_mirror

Refused = Callable[..., re.Match[str]]


@pytest.fixture
def opened(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Any]:
    """A function: open the mirror of a run that has not begun, at a place."""

    def run(place: str, resume: Any = "auto") -> Any:
        return open_mirror(place.replace("HERE", str(tmp_path)), tmp_path / "run", tiny_recipe(), resume, print)

    return run


@pytest.fixture
def held(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> Path:
    """A mirror of a run with another seed."""
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "recipe.json").write_text(json.dumps(recipe_to_dict(tiny_recipe(seed=7))))
    return tmp_path / "held"


@pytest.mark.parametrize(
    ("place", "says", "then"),
    [
        ("HERE/held", "of another recipe .*give another plan.mirror", "HERE/other"),
        ("HERE/damaged", "its recipe.json: .*give another plan.mirror", "HERE/other"),
        ("HERE/notes", "give each run a place of its own", "HERE/other"),
        ("HERE/run/mirror", "give a place outside", "HERE/mirror"),
        ("/proc/mirror", "check that the folder exists on this machine and may be .* written", "HERE/mirror"),
        ("ftp://host/mirror", r"begins with one of .*(file://)", "file://HERE/mirror"),
        ("file://me:secret@HERE/mirror", "take it out of the URI", "file://HERE/mirror"),
        ("file:///proc/mirror", "check that it exists and may be read and written", "file://HERE/mirror"),
        ("file://HERE/a%zz", "give the path of the folder instead, without file://", "HERE/a"),
    ],
)
def test_a_place_that_is_none(
    place: str, says: str, then: str, held: Path, opened: Callable[..., Any], tmp_path: Path, refused: Refused
) -> None:
    for name, file in (("damaged", "recipe.json"), ("notes", "notes.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused(says, lambda: opened(place))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert opened(then) is not None


def test_a_new_run_where_a_mirror_is(
    opened: Callable[..., Any], tiny_recipe: Callable[..., Recipe], tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "recipe.json").write_text(json.dumps(recipe_to_dict(tiny_recipe())))
    found = refused("give another plan.mirror, or --resume (auto)", lambda: opened("HERE/same", "never"))
    assert opened("HERE/other", "never") is not None
    assert opened("HERE/same", found[1]) is not None
