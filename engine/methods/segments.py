"""Segments of a network as learners hold them: the recipe's backbone, sizes of messages, one-call programs."""

from __future__ import annotations

from torch import nn

from engine import backbones
from engine.data import Facts
from engine.errors import RecipeError
from engine.methods.team import LearnerSummary
from engine.objectives import Objective
from engine.partition import Segment
from engine.program import BATCH, SOURCE, Call, Message, Program, batch_message
from engine.recipes import Recipe
from engine.tasks import task_of


def build_network(recipe: Recipe, facts: Facts, seed: int, peer: int = 0) -> nn.Sequential:
    """Return the whole backbone of a recipe with the initial weights of a seed and a place in a cohort.

    Raises:
        RecipeError: it needs two images at a time, and a batch of an epoch holds one. None is shorter than the others
            where each draws its classes.
    """
    images, at_once = facts.sizes["train"], recipe.data.batch_size
    field = "name" if backbones.needs_two_images(recipe.backbone.name) else "neck" if recipe.backbone.neck else None
    if field is not None and recipe.data.classes_per_batch is None and (images % at_once or at_once) == 1:
        raise RecipeError(
            f"backbone.{field}={getattr(recipe.backbone, field)}: batch norm behind "
            f"its mean of all positions needs two images, but of {images:,} training images in batches of {at_once} "
            f"the last holds one: change data.batch_size, or set data.train_limit={images - 1}"
        )
    return backbones.build(recipe.backbone, task_of(recipe, facts).outputs, facts.image_shape, seed, peer)


def refuse_auxiliary_heads(recipe: Recipe, trainer: str) -> None:
    """Refuse a backbone's own auxiliary classifiers where they would silently not be trained.

    Args:
        recipe: whose backbone may be to have some.
        trainer: the field by which they are left out, such as ``method.kind=ps_kd``.

    Raises:
        RecipeError: it is to have some.
    """
    if recipe.backbone.auxiliary_heads:
        raise RecipeError(
            f"backbone.auxiliary_heads=true, but {trainer} trains no classifiers that a backbone brings: set "
            "backbone.auxiliary_heads=false, here and in what you compare with, or choose method.kind=end_to_end, dml, "
            "or one that cuts"
        )


def summarise(name: str, segment: Segment, network: nn.Sequential, objective: Objective) -> LearnerSummary:
    """Return what the learner of a segment will hold."""
    names = [block for block, _ in network.named_children()]
    body = network[segment.start : segment.stop]
    return LearnerSummary(name, tuple(names[segment.start : segment.stop]), _trained(body), _trained(objective))


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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
