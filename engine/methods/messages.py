"""Messages that learners take and give, sized by a recipe, and the programs in which one learner takes the batch."""

from __future__ import annotations

from engine.data import Facts
from engine.partition import Segment
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Recipe
from engine.tasks import task_of


def features_message(recipe: Recipe, name: str, segment: Segment, batch_size: int) -> Message:
    """Return the message with the features of a segment, of a training batch."""
    return Message(name, (((batch_size, *segment.features), recipe.numerics.precision),))


def evaluation_features_message(recipe: Recipe, name: str, segment: Segment) -> Message:
    """Return the message with the features of a segment, of an evaluation batch; of the largest images at most."""
    shape = segment.evaluation_features or segment.features
    return Message(name, (((recipe.data.evaluation_batch_size, *shape), recipe.numerics.precision),))


def images_message(recipe: Recipe, facts: Facts, batch_size: int) -> Message:
    """Return the message with a training batch of images, and the labels that the recipe's task has for them."""
    return _images_message(recipe, facts, batch_size, facts.image_shape)


def evaluation_images_message(recipe: Recipe, facts: Facts) -> Message:
    """Return the message with an evaluation batch of images, as `images_message`; of the largest ones at most."""
    shape = task_of(recipe, facts).evaluated_shape
    return _images_message(recipe, facts, recipe.data.evaluation_batch_size, shape)


def _images_message(recipe: Recipe, facts: Facts, batch_size: int, image_shape: tuple[int, int, int]) -> Message:
    task = task_of(recipe, facts)
    return batch_message(batch_size, image_shape, task.label_shape(image_shape), task.label_dtype)


def evaluation_program(recipe: Recipe, facts: Facts, learner: str) -> Program:
    """Return the program of an evaluation batch that a learner scores alone, since it holds a whole network."""
    batch = evaluation_images_message(recipe, facts)
    return Program((Call(SOURCE, "next", (), (BATCH,)), Call(learner, "score", (BATCH,))), {BATCH: batch}, "evaluation")


def recalibration_program(recipe: Recipe, facts: Facts, learner: str) -> Program:
    """Return the program of a training batch from which a learner's batch-norm statistics are measured anew."""
    batch, calls = images_message(recipe, facts, recipe.data.batch_size), Call(learner, "recalibrate", (BATCH,))
    return Program((Call(SOURCE, "next", (), (BATCH,)), calls), {BATCH: batch}, "recalibration")
