"""Phases and questions: all that programs, learners and planning know of what a learner can be told to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Cost:
    """Which part of a step's computation a phase is.

    Attributes:
        direction: whether the network runs forward or backward in it.
        part: ``trunk`` up to the last block with a branch, ``rest`` from there on; a network whose branches are not
            learners of their own is all trunk.
    """

    direction: Literal["forward", "backward"]
    part: Literal["trunk", "rest"] = "trunk"


@dataclass(frozen=True)
class Phase:
    """What a learner does in one call.

    Attributes:
        name: of the method of a learner, and in programs.
        use: what it is a part of. With replicas, each does what is training, and the first alone what is evaluation.
        takes_batch: whether the call takes the batch; never depends on the program.
        cost: which part of a step it is; None where no network that is trained runs.
    """

    name: str
    use: Literal["training", "evaluation"]
    takes_batch: bool
    cost: Cost | None = None


@dataclass(frozen=True)
class Question:
    """What learners are asked between steps.

    Attributes:
        name: of the question.
        over_replicas: whether the answer of a learner with replicas is their mean, or that of the first of them.
    """

    name: str
    over_replicas: Literal["mean", "first"] = "first"


PHASES: Mapping[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("forward", "training", takes_batch=True, cost=Cost("forward")),
        Phase("update", "training", takes_batch=False, cost=Cost("backward")),
        Phase("restate", "training", takes_batch=True, cost=Cost("forward")),
        # A network and its branches as learners of their own.
        Phase("conclude", "training", takes_batch=False, cost=Cost("forward", "rest")),
        Phase("learn", "training", takes_batch=False, cost=Cost("backward", "rest")),
        # An exchange of weights.
        Phase("publish", "training", takes_batch=False),
        Phase("adopt", "training", takes_batch=False),
        # Members that do not train: a teacher, and those that keep group knowledge.
        Phase("predict", "training", takes_batch=True),
        Phase("recall", "training", takes_batch=True),
        Phase("remember", "training", takes_batch=False),
        Phase("recalibrate", "evaluation", takes_batch=True),
        Phase("infer", "evaluation", takes_batch=True),
        Phase("score", "evaluation", takes_batch=True),
        Phase("score_together", "evaluation", takes_batch=True),
    )
}

QUESTIONS: Mapping[str, Question] = {
    question.name: question
    for question in (
        Question("metrics", over_replicas="mean"),
        Question("score"),
        Question("memory"),
        Question("timeline"),
        Question("diverged"),
        Question("state"),
        Question("features"),
    )
}
