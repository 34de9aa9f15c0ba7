"""Programs of a single call, in which one learner takes the batch: those of evaluation and recalibration."""

from __future__ import annotations

from engine.data import Facts
from engine.program import BATCH, SOURCE, Call, Program, batch_message
from engine.recipes import Recipe


def evaluation_program(recipe: Recipe, facts: Facts, learner: str) -> Program:
    """Return the program of an evaluation batch that a learner scores alone, since it holds a whole network."""
    return _of_one_call(Call(learner, "score", (BATCH,)), recipe.data.evaluation_batch_size, facts)


def recalibration_program(recipe: Recipe, facts: Facts, learner: str) -> Program:
    """Return the program of a training batch from which a learner's batch-norm statistics are measured anew."""
    return _of_one_call(Call(learner, "recalibrate", (BATCH,)), recipe.data.batch_size, facts)


def _of_one_call(call: Call, rows: int, facts: Facts) -> Program:
    return Program((Call(SOURCE, "next", (), (BATCH,)), call), {BATCH: batch_message(rows, facts.image_shape)})
