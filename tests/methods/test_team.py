"""Are the programs of a team known by their names?"""

from __future__ import annotations

import dataclasses

import pytest

from engine.methods import Team
from engine.program import BATCH, SOURCE, Call, Program, ProgramError, batch_message

NEXT = Call(SOURCE, "next", (), (BATCH,))


def _program(name: str, rows: int = 1) -> Program:
    return Program((NEXT,), {BATCH: batch_message(rows, (1, 1, 1))}, name)


def test_each_program_is_there_once_by_its_name() -> None:
    often, seldom, scoring = _program("training"), _program("training with exchange"), _program("evaluation")
    team = Team((), (often, _program("training"), seldom), scoring, {}, recalibration=_program("recalibration"))
    assert list(team.programs) == ["training", "training with exchange", "evaluation", "recalibration"]
    assert team.training_programs == ((often, "2 of 3 steps"), (seldom, "1 of 3 steps"))
    assert [team.program(step).name for step in range(4)] == [*["training"] * 2, "training with exchange", "training"]


def test_two_programs_cannot_share_a_name() -> None:
    team = Team((), (_program("training"),), _program("evaluation"), {})
    with pytest.raises(ProgramError, match="two programs of a team have the name 'training'"):
        dataclasses.replace(team, evaluation=_program("training", rows=2))
