"""Does a method, optimizer or schedule of another kind keep what both have, and say what it lacks?"""

from __future__ import annotations

from typing import Any

import pytest

from engine.recipes import DGL, SGD, Adam, AdamW, Constant, Cosine, EndToEnd, Greedy, InfoPro, Polynomial, RMSProp, Step
from tests.recipes.overridden import changed, problems, start


def test_another_method_keeps_what_both_have() -> None:
    recipe = start(method=InfoPro(num_segments=8, cuts=("layer1_0",), head="contrastive"))
    assert changed("method.kind=greedy", recipe=recipe).method == Greedy(
        num_segments=8, cuts=("layer1_0",), head="contrastive"
    )
    assert changed("method.kind=dgl", recipe=recipe).method == DGL(num_segments=8, cuts=("layer1_0",))
    assert changed("method.kind=end_to_end", recipe=recipe).method == EndToEnd()
    assert changed("method.kind=infopro", recipe=recipe) == recipe


def test_a_change_of_kind_comes_first_wherever_it_stands() -> None:
    words = ["optimizer.betas=[0.8, 0.9]", "optimizer.kind=adam", "optimizer.learning_rate=0.01"]
    expected = Adam(learning_rate=0.01, betas=(0.8, 0.9), weight_decay=1e-4)
    for order in (words, words[::-1]):
        assert changed(*order).optimizer == expected


@pytest.mark.parametrize(
    ("words", "part", "expected"),
    [
        (("optimizer.kind=adamw",), "optimizer", AdamW(learning_rate=0.3, weight_decay=1e-4)),
        (("optimizer.kind=rmsprop",), "optimizer", RMSProp(learning_rate=0.3, momentum=0.9, weight_decay=1e-4)),
        (("schedule.kind=constant",), "schedule", Constant()),
        (("schedule.kind=polynomial", "schedule.power=2"), "schedule", Polynomial(power=2)),
        (
            ("schedule.kind=step", "schedule.milestones=[80, 120]"),
            "schedule",
            Step(milestones=(80, 120), warmup_epochs=10),
        ),
    ],
)
def test_optimizers_and_schedules_can_be_exchanged(words: tuple[str, ...], part: str, expected: Any) -> None:
    recipe = start(optimizer=SGD(learning_rate=0.3), schedule=Cosine(warmup_epochs=10))
    assert getattr(changed(*words, recipe=recipe), part) == expected


def test_a_new_kind_says_which_field_it_lacks() -> None:
    assert problems("schedule.kind=step") == ["schedule.milestones: is missing, and has no default"]


def test_a_field_of_the_old_kind_is_gone() -> None:
    (line,) = problems("method.kind=dgl", "method.head=softmax")
    assert line.startswith("method.head: there is no such field")


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("method.kind=dgl", "method.head=softmax"), "'method.head'"),
        (("method.kind=end_to_end", "method.num_segments=3"), "'method.num_segments'"),
        (("optimizer.kind=adam", "optimizer.momentum=0.5"), "'optimizer.momentum'"),
    ],
)
def test_a_field_is_never_suggested_for_itself(words: tuple[str, ...], wrong: str) -> None:
    assert wrong not in problems(*words)[0]


@pytest.mark.parametrize("word", ["method=infopro", "optimizer=adam", "schedule=cosine"])
def test_a_kind_without_the_word_kind_is_told_how_it_is_said(word: str) -> None:
    name, kind = word.split("=")
    assert problems(word) == [f"{word}: expected {name}.kind={kind}"]
