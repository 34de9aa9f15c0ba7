"""Programs of a single call, in which one learner takes the batch: those of evaluation and recalibration."""

from __future__ import annotations

from engine.data import Facts
from engine.methods.segments import evaluation_images_message, images_message
from engine.program import BATCH, SOURCE, Call, Program
from engine.recipes import Recipe


def evaluation_program(recipe: Recipe, facts: Facts, learner: str) -> Program:
    """Return the program of an evaluation batch that a learner scores alone, since it holds a whole network."""
    batch = evaluation_images_message(recipe, facts)
    return Program((Call(SOURCE, "next", (), (BATCH,)), Call(learner, "score", (BATCH,))), {BATCH: batch}, "evaluation")


def recalibration_program(recipe: Recipe, facts: Facts, learner: str) -> Program:
    """Return the program of a training batch from which a learner's batch-norm statistics are measured anew."""
    batch, calls = images_message(recipe, facts, recipe.data.batch_size), Call(learner, "recalibrate", (BATCH,))
    return Program((Call(SOURCE, "next", (), (BATCH,)), calls), {BATCH: batch}, "recalibration")
