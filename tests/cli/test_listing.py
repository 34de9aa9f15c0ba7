"""Is everything listed that can be named in a recipe?"""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest

from engine import backbones
from engine.recipes import METHODS, Data, shipped_recipes


def test_everything_is_listed_by_kind(command: Any) -> None:
    listed = command("list", "--json").json
    assert list(listed) == ["methods", "backbones", "data", "recipes", "sweeps", "analyses"]
    assert set(listed["methods"]) == {*METHODS, "FILE.py:NAME"}
    assert set(listed["backbones"]) >= set(backbones.names())
    assert set(listed["data"]) == set(get_args(get_type_hints(Data)["name"]))
    assert set(listed["recipes"]) == set(shipped_recipes())


@pytest.mark.parametrize("kind", ["methods", "backbones", "data", "recipes", "sweeps", "analyses"])
def test_one_kind_is_a_line_each(command: Any, kind: str) -> None:
    answer = command("list", kind)
    names = command("list", kind, "--json").json[kind]
    title, *lines = answer.out.splitlines()
    assert title == f"{kind}:"
    assert [line.split()[0] for line in lines] == list(names)
    assert all(text.strip() and "\n" not in text for text in names.values())


def test_a_recipe_is_described_by_what_it_trains(command: Any) -> None:
    described = command("list", "recipes", "--json").json["recipes"]["infopro_digits"]
    for part in ("infopro", "K = 2", "resnet14", "digits"):
        assert part in described
