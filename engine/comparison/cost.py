"""The floating-point operations of a training step, counted."""

from __future__ import annotations

import dataclasses

from torch.utils.flop_counter import FlopCounterMode

from engine.errors import LearnerError
from engine.recipes import Plan, Recipe
from engine.training.session import Session

_FEW_STEPS = 6
_MANY_STEPS = 24
# Steps that differ by more than this share do different work, such as that of a sub-network drawn for each step.
_SAME_WORK = 0.01


def training_flops_per_image(recipe: Recipe) -> float | None:
    """Return the floating-point operations of a training step for each of its images.

    Counted, not estimated: 6 steps, spread evenly over the run, are trained on the CPU with the run's own batches and
    programs; 24 more if they do not all do the same work. Every matrix product and convolution counts two operations
    for each multiplication and addition, forward, backward, and in whatever passes a method adds. Operations that
    PyTorch has no formula for, such as those between single elements, do not count. Images that a method reads beside
    those of a batch add to the operations, not to the images.

    Returns:
        the operations per image; None where a step failed, for instance because the loss diverges.

    Raises:
        RecipeError, DataError: the recipe cannot be trained.
    """
    precision = "bfloat16" if recipe.numerics.precision == "float16" else recipe.numerics.precision
    # What is compiled cannot be counted, and float16 does not run on a CPU; neither changes the operations.
    numerics = dataclasses.replace(recipe.numerics, device="cpu", compile=False, precision=precision)
    recipe = dataclasses.replace(recipe, numerics=numerics)
    paired_images = recipe.method.paired_images
    with Session(recipe, Plan(executor="process")) as session:
        session.start()
        total = recipe.epochs * session.source.steps_per_epoch()
        try:
            # Not counted: a method that learns from the batch before does less in a run's first step.
            _count(session, 0)
            counted = [_count(session, step) for step in _spread(_FEW_STEPS, total)]
            shares = [operations / images for operations, images in counted]
            if max(shares) > (1 + _SAME_WORK) * min(shares):
                counted += [_count(session, step) for step in _spread(_MANY_STEPS, total)]
        except LearnerError:
            return None
    images = sum(images for _, images in counted)
    return sum(operations for operations, _ in counted) / (images if paired_images == "none" else images / 2)


def _spread(number: int, total: int) -> list[int]:
    """Return at most so many of the steps 0 to total - 1: the first, the last, and some evenly spread between them."""
    return sorted({round(index * (total - 1) / (number - 1)) for index in range(number)})


def _count(session: Session, step: int) -> tuple[int, int]:
    """Train a step; returns its operations and the images that were read for it."""
    batch = session.source.batch(*divmod(step, session.source.steps_per_epoch()))
    with FlopCounterMode(display=False) as counter:
        session.runtime.submit(session.team.program(step), batch)
    return int(counter.get_total_flops()), len(batch.labels)
