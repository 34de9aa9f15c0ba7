"""Do names in pictures stay short and different?"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis.names import LONGEST_LABEL, distinct_ends, folder_together, shortened
from engine.errors import InputError


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    long = "infopro_softmax_cifar10_resnet32_with_many_more_words-seed0"
    (short,) = shortened([long])
    assert len(short) == LONGEST_LABEL
    beginning, end = short.split("…")
    assert long.startswith(beginning) and long.endswith(end) and end.endswith("-seed0")
    assert shortened(["a" * LONGEST_LABEL]) == ["a" * LONGEST_LABEL]


def test_names_that_differ_in_the_middle_alone_stay_different() -> None:
    names = [f"{'a' * 60}{number}{'b' * 60}" for number in range(3)]
    found = shortened(names)
    assert len(set(found)) == 3 and all(len(each) <= 121 for each in found)


@given(st.lists(st.text("ab", max_size=60), unique=True, min_size=1, max_size=6))
def test_different_names_never_become_one(names: list[str]) -> None:
    assert len(set(shortened(names))) == len(names)


def test_folders_that_are_called_alike_are_told_apart_by_those_above() -> None:
    paths = [Path("/a/x/run"), Path("/a/y/run"), Path("/a/other"), Path("/a/other")]
    assert distinct_ends(paths) == ["x/run", "y/run", "other", "other"]


def test_a_folder_for_several_is_refused_to_one() -> None:
    own = Path("/runs/a/analysis")
    assert folder_together(own, 1, None) == folder_together(own, 2, None) == own / "together"
    assert folder_together(own, 2, "/x/../y") == Path("/y")
    with pytest.raises(InputError, match=r"--to /y: is for several runs together, but one is given; .*/analysis$"):
        folder_together(own, 1, "/y")
