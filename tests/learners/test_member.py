"""Do learners do and answer what the tables of phases and questions say?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from engine.data import open_source
from engine.errors import LearnerError
from engine.knowledge import KnowledgeStore
from engine.learners import KnowledgeServer, Member, Teacher, Trunk
from engine.methods import method_of
from engine.phases import PHASES, QUESTIONS
from engine.recipes import Recipe

CPU = torch.device("cpu")


@pytest.fixture
def members(tiny_recipe: Callable[..., Recipe]) -> dict[str, Member]:
    recipe = tiny_recipe()
    source = open_source(recipe.data, recipe.seed)
    source.close()
    learner = method_of(recipe).build_learner(recipe, source.facts, 1, "segment0", CPU)
    teacher = Teacher("teacher", nn.Sequential(nn.Flatten()), "", recipe, source.facts, CPU)
    keeper = KnowledgeServer("store0", KnowledgeStore(2, 2, 1, 0.5), 2, 0, 1, CPU)
    return {"learner": learner, "teacher": teacher, "keeper": keeper}


def test_each_phase_of_the_table_is_one_of_some_member(members: dict[str, Member]) -> None:
    own = {"conclude": Trunk.conclude, "learn": Trunk.learn}
    assert {*own, *(phase for member in members.values() for phase in member.phases)} == set(PHASES)


def test_each_member_answers_every_question_of_the_table(members: dict[str, Member]) -> None:
    for member in members.values():
        assert list(member.questions) == list(QUESTIONS)
        assert member.ask("diverged") is None


def test_what_a_member_cannot_do_is_said(members: dict[str, Member]) -> None:
    with pytest.raises(LearnerError, match="learner teacher: cannot 'forward', which a program says; it can predict"):
        members["teacher"].call("forward", None, {})
    with pytest.raises(LearnerError, match="learner store0: unknown question 'weather'; expected one of metrics, "):
        members["keeper"].ask("weather")
