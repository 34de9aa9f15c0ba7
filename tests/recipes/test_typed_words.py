"""Words on the command line mean what their field holds."""

from __future__ import annotations

from pathlib import Path

import pytest

import engine
from engine.recipes import Recipe


def _changed(*words: str) -> Recipe:
    return engine.apply_overrides(engine.load_recipe("infopro_digits"), engine.Plan(), words)[0]


def _problems(*words: str) -> list[str]:
    with pytest.raises(engine.RecipeError) as refused:
        _changed(*words)
    return str(refused.value).splitlines()


def test_numbers_with_commas_are_a_list() -> None:
    assert _changed("backbone.widths=4,8,16").backbone.widths == (4, 8, 16)


@pytest.mark.parametrize(
    ("word", "names"), [("7", ("7",)), ("0,1", ("0", "1")), ("sky,1", ("sky", "1")), ('["sky", 1]', ("sky", "1"))]
)
def test_classes_may_be_called_by_numbers(word: str, names: tuple[str, ...]) -> None:
    assert _changed(f"data.class_names={word}").data.class_names == names


@pytest.mark.parametrize("word", ["0.5", "true", "[true]", "{}"])
def test_other_values_are_no_names(word: str) -> None:
    assert all(line.startswith("data.class_names") for line in _problems(f"data.class_names={word}"))


def test_an_option_of_an_own_backbone_keeps_its_type() -> None:
    assert _changed("backbone.options.width=32").backbone.options == {"width": 32}


@pytest.mark.parametrize("word", ["epochs=true", "seed=True"])
def test_a_truth_value_is_no_number(word: str) -> None:
    assert "integer" in _problems(word)[0]


def test_a_whole_and_its_part_contradict_each_other() -> None:
    words = ("method.reconstruction_weight=5", "method.reconstruction_weight.first=2")
    for order in (words, words[::-1]):
        found = _problems(*order)
        assert any("method.reconstruction_weight and method.reconstruction_weight.first contradict" in f for f in found)


def test_a_recipe_file_with_a_wrong_field_names_line_class_and_right_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from engine.recipes import Data\n\ndef recipe():\n    return Data(name='digits', batchsize=3)\n")
    with pytest.raises(engine.RecipeError, match=r"mine\.py:4: Data: batchsize: .*did you mean 'batch_size'"):
        engine.load_recipe(file)


def test_a_recipe_file_that_exits_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(engine.RecipeError, match=r"mine\.py:2: could not be imported: SystemExit"):
        engine.load_recipe(file)


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text("[" * 100_000)
    with pytest.raises(engine.RecipeError, match="is damaged: "):
        engine.load_recipe(file)
