"""Are words of a command line numbers, or refused in one line that can be read?"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.analyse import positions_of
from engine.cli.measure import numbers_of_segments
from engine.cli.words import refuse_field, shown, whole_number, whole_numbers
from engine.errors import InputError, RecipeError


def test_numbers_as_people_write_them() -> None:
    assert whole_numbers("1, 2 ,0004", "--k", 1, 4, "numbers") == (1, 2, 4)
    assert whole_number("0" * 5000 + "7", "--k", 0, 9, "a number") == 7
    assert whole_number("0", "--k", 0, 9, "a number") == 0
    assert (positions_of(None), positions_of("3,17")) == (None, (3, 17))
    assert (numbers_of_segments(None), numbers_of_segments("1,2")) == (None, (1, 2))


@pytest.mark.parametrize(
    "text", ["", " ", "-1", "+1", "1.0", "1_0", "x", "²", "٣", "10", "0", "1,", "1,10", "9" * 5000]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="^--k .*: expected numbers from 1 to 9$") as refused:
        whole_numbers(text, "--k", 1, 9, "numbers from 1 to 9", RecipeError)
    assert len(str(refused.value)) < 120


def test_a_list_is_no_number() -> None:
    with pytest.raises(InputError, match="^--gpus 1,2: expected a number$"):
        whole_number("1,2", "--gpus", 1, 9, "a number")


@pytest.mark.parametrize("text", ["9" * 5000, "1," + "9" * 400])
def test_numbers_beyond_all_that_there_is(text: str) -> None:
    with pytest.raises(InputError, match="--positions .* characters.: expected positions of images .* at most 2,147"):
        positions_of(text)
    with pytest.raises(RecipeError, match="--k .* characters.: expected numbers of segments, at most 65,536"):
        numbers_of_segments(text)


def test_a_word_is_shown_in_one_line() -> None:
    assert shown("1,x") == "1,x"
    assert shown("1\n2") == r"'1\n2'"
    assert shown("9" * 41) == f"{'9' * 40}... (41 characters)"


@pytest.mark.parametrize("word", ["epochs=2", "data.root=pictures", "method.teacher=own.py", "lr=" + "9" * 5000])
def test_a_field_is_no_recipe(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="no recipe is given before it"):
        refuse_field(word)


def test_a_path_may_hold_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    for word in ("lr=0.1", "runs/lr=0.1", "infopro_digits", "runs/compare-0/runs/greedy_method.num_segments=4-seed0"):
        refuse_field(word)
