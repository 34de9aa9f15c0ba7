"""Is everything listed that can be named in a recipe?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from engine import backbones
from engine.recipes import METHODS, Data, shipped_recipes
from engine.recipes.files import import_file


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


@pytest.mark.parametrize(
    ("kind", "pattern", "listed", "left_out"),
    [
        ("recipes", "infopro_*cifar10*", "infopro_cifar10_resnet32_k4", "infopro_svhn_resnet110"),
        ("backbones", "resnet[13]*", "resnet18", "resnet50"),
        ("data", "cifar10?", "cifar100", "cifar10"),
        ("methods", "d[!h]*", "dml", "dhm"),
    ],
)
def test_names_that_match_a_pattern(command: Any, kind: str, pattern: str, listed: str, left_out: str) -> None:
    everything = command("list", kind, "--json").json[kind]
    assert {listed, left_out} <= set(everything)
    answer = command("list", kind, pattern)
    found = command("list", kind, pattern, "--json").json
    assert list(found) == [kind]
    assert found[kind].items() <= everything.items()
    assert listed in found[kind] and left_out not in found[kind]
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == list(found[kind])


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("infopro_cifar10_resnet32_k16", "cifar10.py", ("Budget: 160 epochs", "one Titan Xp", "12.75 (0.11)")),
        ("dml_market1501_mobilenet", "retrieval.py", ("DIR is the folder of Market-1501", "52.95*, 51.26*")),
    ],
)
def test_a_whole_name_shows_budget_and_published_figures(
    command: Any, name: str, file: str, said: tuple[str, ...]
) -> None:
    answer, found = command("list", "recipes", name), command("list", "recipes", name, "--json").json
    assert list(found) == ["recipes", "file", "docstring"]
    assert list(found["recipes"]) == [name]
    assert Path(found["file"]).name == file and name in import_file(Path(found["file"])).RECIPES
    assert all(part in found["docstring"] for part in said)
    assert found["docstring"] in answer.out and f"{found['file']}:" in answer.out.splitlines()


def test_a_pattern_shows_no_docstring_even_if_one_name_matches(command: Any) -> None:
    found = command("list", "recipes", "infopro_digit[s]", "--json").json
    assert list(found) == ["recipes"] and list(found["recipes"]) == ["infopro_digits"]


@pytest.mark.parametrize(
    ("kind", "pattern", "said"),
    [
        ("recipes", "infopro_digit", "Nearest: infopro_digits, "),
        ("recipes", "infopro_digit", "; '*infopro_digit*' finds a part of a name"),
        ("recipes", "INFOPRO_*", "list recipes 'INFOPRO_*': no name matches. Nearest: infopro_"),
        ("backbones", "resnt50", "Nearest: resnet50, "),
        ("data", "", "list data '': no name matches"),
        ("data", "cifar\x1b", "'cifar\\x1b'"),
    ],
)
def test_a_pattern_without_match_is_refused_with_the_nearest_names(
    command: Any, kind: str, pattern: str, said: str
) -> None:
    answer = command("list", kind, pattern, "--json")
    assert answer.code == 2
    assert said in answer.json["error"] and said in answer.err
    assert answer.json == {"error": answer.json["error"], "exit_code": 2}
