"""Can ramps and cuts be said in few words, and is each mistake in them told?"""

from __future__ import annotations

import pytest

from engine.recipes import Ramp
from tests.recipes.overridden import changed, problems


@pytest.mark.parametrize(
    ("text", "ramp"),
    [
        ("5", Ramp(first=5, last=5)),
        ("0.5", Ramp(first=0.5, last=0.5)),
        ("5,0", Ramp(first=5, last=0)),
        ("5, 0.5", Ramp(first=5, last=0.5)),
        ("[5, 0]", Ramp(first=5, last=0)),
        ('{"first": 5, "last": 1}', Ramp(first=5, last=1)),
    ],
)
def test_a_ramp_is_one_number_or_two(text: str, ramp: Ramp) -> None:
    method = changed(f"method.reconstruction_weight={text}").method
    assert method.reconstruction_weight == ramp
    assert method.classification_weight == Ramp(first=1, last=1)


def test_one_end_of_a_ramp_can_be_changed() -> None:
    assert changed("method.reconstruction_weight.last=3").method.reconstruction_weight == Ramp(first=1, last=3)


@pytest.mark.parametrize("text", ["5,0,1", "nan", "NaN,1", "-1", "1,-1", "true", "five", "[]", "null"])
def test_a_wrong_ramp_is_refused(text: str) -> None:
    assert all(
        line.startswith("method.reconstruction_weight") for line in problems(f"method.reconstruction_weight={text}")
    )


def test_a_ramp_is_linear_over_the_local_losses() -> None:
    ramp = Ramp(first=6, last=1)
    assert [ramp.at(segment, 4) for segment in range(3)] == [6, 3.5, 1]
    assert [ramp.at(segment, 3) for segment in range(2)] == [6, 1]
    assert ramp.at(0, 2) == 6
    assert Ramp(first=5, last=0).at(6, 8) == 0


@pytest.mark.parametrize(
    ("text", "cuts"),
    [
        ("published", "published"),
        ("published_memory", "published_memory"),
        ("balanced_layers", "balanced_layers"),
        ("layer1_2,layer2_1", ("layer1_2", "layer2_1")),
        ("layer1_2, layer2_1", ("layer1_2", "layer2_1")),
        ("layer1_2", ("layer1_2",)),
        ("stem", ("stem",)),
        ('["stem", "layer1_0"]', ("stem", "layer1_0")),
    ],
)
def test_cuts_are_a_rule_or_names_of_blocks(text: str, cuts: str | tuple[str, ...]) -> None:
    assert changed(f"method.cuts={text}").method.cuts == cuts


def test_a_misspelt_rule_for_cuts_is_not_taken_for_a_block() -> None:
    (line,) = problems("method.cuts=pulished")
    assert line.startswith("method.cuts: found 'pulished'")
    assert line.endswith("did you mean 'published'?")
