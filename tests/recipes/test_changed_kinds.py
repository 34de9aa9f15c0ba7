"""Does a method, optimizer or schedule of another kind keep what both have, and say what it lacks?"""

from __future__ import annotations

from typing import Any

import pytest

from engine.recipes import (
    DGL,
    DHM,
    DML,
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    EndToEnd,
    Greedy,
    InfoPro,
    Polynomial,
    Ramp,
    RMSProp,
    Step,
)
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


def test_a_part_of_a_field_of_the_new_kind_can_be_given() -> None:
    recipe = start(method=Greedy(num_segments=2))
    words = ("method.kind=infopro", "method.reconstruction_weight.first=5")
    expected = InfoPro(num_segments=2, reconstruction_weight=Ramp(first=5, last=1))
    for order in (words, words[::-1]):
        assert changed(*order, recipe=recipe).method == expected


@pytest.mark.parametrize(
    ("words", "wrong", "remedy"),
    [
        (("method.kind=dml",), "method.peer_method.branches.kind=dhm", "method.peer_method.kind=greedy"),
        (
            ("method.kind=dml", "method.peer_method.kind=dsl"),
            "method.peer_method.branches.kind=dhm",
            "method.peer_method.kind=greedy",
        ),
        (("method.kind=greedy",), "method.reconstruction_weight.first=5", "method.kind=infopro"),
        ((), "method.peer_method.kind=greedy", "method.kind=dml"),
    ],
)
def test_a_part_that_only_other_kinds_have_is_refused_with_these(
    words: tuple[str, ...], wrong: str, remedy: str
) -> None:
    (line,) = problems(*words, wrong)
    assert line.startswith(f"{wrong.partition('=')[0]}: there is no such field with ")
    assert line.partition("; set ")[2].split()[0] == remedy
    kept = [word for word in words if word.partition("=")[0] != remedy.partition("=")[0]]
    changed(*kept, remedy, wrong)


def test_branches_of_peers_that_are_cut_can_be_given_together_with_all_kinds() -> None:
    words = ("method.kind=dml", "method.peer_method.kind=greedy", "method.peer_method.branches.kind=dhm")
    assert changed(*words).method == DML(peer_method=Greedy(branches=DHM()))


def test_a_part_without_a_kind_is_told_which_there_are() -> None:
    expected = "method.branches.kind: is missing, and decides which fields there are; give one of dsn, dsl, dhm"
    assert problems("method.branches.label_weight=2") == [expected]
    assert changed("method.branches.label_weight=2", "method.branches.kind=dhm").method.branches == DHM(label_weight=2)


def test_an_unknown_kind_is_all_that_is_wrong() -> None:
    for wrong in ("method.reconstruction_weight.first=5", "method.peer_method.branches.kind=dhm"):
        (line,) = problems("method.kind=infopr", wrong)
        assert line.startswith("method.kind: found 'infopr'")


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
