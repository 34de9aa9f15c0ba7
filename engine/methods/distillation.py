"""Learning from a frozen teacher (Hinton, Vinyals, Dean 2015): the one-way road that mutual learning is compared with.

    L = label_weight * CE(z, y) + weight * T^2 * KL(p_teacher^T || p^T)

With both weights 1 and T = 1 it is the loss of a peer of two (Zhang et al. 2018, Table 4), whose other peer has
finished; 1 - a, a and T = 2 to 4 are Hinton's. The teacher is a learner of its own that only predicts, in evaluation
mode and on the student's augmented images, so on Ray it works ahead on a device of its own.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from engine.backbones import feature_shapes
from engine.data import Facts
from engine.errors import RecipeError
from engine.learners import Learner, Role, Teacher
from engine.methods.networks import weights_sha256
from engine.methods.pretrained import open_pretrained
from engine.methods.segments import build_network, evaluation_program, images_message, refuse_auxiliary_heads, summarise
from engine.methods.tasks import distribution_axis, whole_objective
from engine.methods.team import LearnerSummary, Network, Team
from engine.objectives import Mimicry, Objective
from engine.partition import Segment, whole_network
from engine.program import BATCH, SOURCE, Call, Message, Program
from engine.recipes import Distillation, Recipe
from engine.tasks import task_of

_TEACHER, _STUDENT = "teacher", "student"
_PREDICTIONS = "teacher_predictions"


class _Distillation:
    """A student, and its frozen teacher."""

    def team(self, recipe: Recipe, facts: Facts) -> Team:
        """Return teacher and student, and their programs."""
        refuse_auxiliary_heads(recipe, "method.kind=distillation")
        teacher = open_pretrained(recipe, facts)
        segment, alone = _alone(recipe, facts)
        blocks = tuple(name for name, _ in teacher.named_children())
        # Neither trained here nor counted as such.
        learners = (LearnerSummary(_TEACHER, blocks, 0, 0), *alone.learners)
        rows, dtype = recipe.data.batch_size, recipe.numerics.precision
        training = Program(
            (
                Call(SOURCE, "next", (), (BATCH,)),
                Call(_TEACHER, "predict", (BATCH,), (_PREDICTIONS,)),
                Call(_STUDENT, "forward", (BATCH,)),
                Call(_STUDENT, "update", (_PREDICTIONS,)),
            ),
            {
                BATCH: images_message(recipe, facts, rows),
                _PREDICTIONS: Message(_PREDICTIONS, (((rows, *_compared(recipe, facts, teacher, segment)), dtype),)),
            },
            "training",
        )
        return dataclasses.replace(alone, learners=learners, training=(training,))

    def team_alone(self, recipe: Recipe, facts: Facts) -> Team:
        """Return the student, and how it is scored; the teacher is not opened."""
        return _alone(recipe, facts)[1]

    def build_learner(
        self, recipe: Recipe, facts: Facts, steps_per_epoch: int, name: str, device: torch.device
    ) -> Learner | Teacher:
        """Build the student, which starts as it would alone, or load the teacher."""
        if name == _TEACHER:
            network = open_pretrained(recipe, facts)
            return Teacher(name, network, weights_sha256(network.state_dict()), recipe, facts, device)
        role = Role("network", recipe.seed, "segment0")
        network = build_network(recipe, facts, recipe.seed)
        return Learner(name, role, network, _objective(recipe, facts), recipe, facts, steps_per_epoch, device)


def _alone(recipe: Recipe, facts: Facts) -> tuple[Segment, Team]:
    """Return the student, and the team that it is where nobody teaches it."""
    network = build_network(recipe, facts, recipe.seed)
    segment = whole_network(recipe, facts, network)
    student = summarise(_STUDENT, segment, network, _objective(recipe, facts))
    deployed = Network(recipe.backbone, (_STUDENT,), task_of(recipe, facts).outputs)
    return segment, Team((student,), (), evaluation_program(recipe, facts, _STUDENT), {"network": deployed})


def _compared(recipe: Recipe, facts: Facts, teacher: nn.Sequential, student: Segment) -> tuple[int, ...]:
    """Return the shape of what is compared for each image.

    Raises:
        RecipeError: teacher and student give their predictions at other positions.
    """
    wanted = task_of(recipe, facts).prediction_shape_of(student.features, facts.image_shape)
    found = feature_shapes(teacher, facts.image_shape)[-1]
    if found != wanted:
        raise RecipeError(
            f"method.teacher={_settings(recipe).teacher}: gives predictions of shape {found} for each image where the "
            f"student gives {wanted}, and they are compared position by position: give a teacher with the same "
            "backbone.output_stride"
        )
    return wanted


def _objective(recipe: Recipe, facts: Facts) -> Objective:
    method = _settings(recipe)
    axis = distribution_axis(recipe, facts, "method.weight")
    mimicry = Mimicry((_PREDICTIONS,), temperature=method.temperature, axis=axis)
    labels = whole_objective(recipe, facts, method.label_weight)
    return labels.plus({Mimicry.name: mimicry}, {Mimicry.name: method.weight})


def _settings(recipe: Recipe) -> Distillation:
    assert isinstance(recipe.method, Distillation)
    return recipe.method


METHOD = _Distillation()
